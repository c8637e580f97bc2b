//! `bequest torture`: the promises of the service under attack, each beside the naive way, which has to fail.
//!
//! What lives here: the scenes, stores that misbehave on command, and the table that is printed. The scenes drive the
//! parts that the service itself is made of, on loopback, with data in a temporary folder.

mod away;
mod disconnects;
pub(crate) mod gate;
mod killed;
mod progress;
mod race;
mod remote;
mod stampede;
pub(crate) mod stores;
mod throughput;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bequest::Context;
use clap::{Args, Subcommand};

use self::progress::Progress;
use crate::session::sqlite::SqliteSessions;

/// What is attacked.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Torture {
    /// Sessions: logins and logouts under race, caches that go away, clients that leave
    Sessions(Extent),

    /// Postgres and Redis: calls that are given up at every instant, crowds that leave, networks that hang
    Stores(remote::Extent),

    /// The process that `sessions` kills
    #[command(hide = true)]
    Victim(killed::Victim),
}

/// How long it goes on.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Logouts, each raced by 8 readers
    #[arg(long, default_value_t = 1000)]
    pub(crate) rounds: usize,

    /// Clients that leave in the middle of a request
    #[arg(long, default_value_t = 10_000)]
    pub(crate) disconnects: usize,

    /// Readers that ask for one session at once
    #[arg(long, default_value_t = 1000)]
    pub(crate) readers: usize,

    /// Logins during which the process is killed over and over
    #[arg(long, default_value_t = 1000)]
    pub(crate) logins: usize,

    /// Slices of a quarter second in which the throughput is measured; 0 to leave it out
    #[arg(long, default_value_t = 20)]
    pub(crate) slices: usize,
}

/// What one scene has shown.
#[derive(Debug)]
pub(crate) struct Verdict {
    scene: &'static str,
    /// What was counted, here and at the control.
    ours: String,
    control: String,
    holds: bool,
    /// The control failed, as it has to: otherwise the scene proves nothing.
    control_failed: bool,
}

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A folder under the system's temporary one. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

/// Runs the scenes and prints what they have shown. Whether every promise held and every control failed.
///
/// # Errors
///
/// A scene could not be set up.
pub(crate) async fn run(what: Torture) -> Result<bool, Failure> {
    match what {
        Torture::Sessions(extent) => sessions(extent).await,
        Torture::Stores(extent) => remote::run(extent).await,
        Torture::Victim(victim) => killed::run(victim).await.map(|()| true),
    }
}

async fn sessions(extent: Extent) -> Result<bool, Failure> {
    let ctx = Context::background();
    let mut all = true;
    say(&Verdict::head());
    all &= race::scene(&ctx, extent.rounds).await?.tell();
    if let Some(on_servers) = race::on_servers(&ctx, extent.rounds).await? {
        all &= on_servers.tell();
    }
    all &= away::scene().await?.tell();
    all &= stampede::scene(&ctx, extent.readers).await?.tell();
    all &= disconnects::scene(&ctx, extent.disconnects).await?.tell();
    all &= killed::scene(&ctx, extent.logins).await?.tell();
    if extent.slices > 0 {
        say(&throughput::scene(extent.slices).await?);
    }
    Ok(all)
}

impl Verdict {
    /// What is above the lines.
    fn head() -> String {
        format!("{:<44} {:<38} {}\n", "scene", "here", "the naive way")
    }

    /// Prints the line. Whether all is as it has to be.
    fn tell(&self) -> bool {
        self.tell_so_far(false)
    }

    /// Prints the line of a scene that may have been stopped: then its control need not have failed yet.
    fn tell_so_far(&self, stopped: bool) -> bool {
        let mut line = format!("{:<44} {:<38} {}", self.scene, self.ours, self.control);
        if !self.holds {
            line.push_str("   BROKEN");
        }
        if stopped {
            line.push_str("   so far");
        } else if !self.control_failed {
            line.push_str("   the control did not fail, so this proves nothing");
        }
        line.push('\n');
        say(&line);
        self.holds && self.control_failed
    }
}

impl Scratch {
    pub(crate) fn new() -> std::io::Result<Scratch> {
        static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bequest-torture-{}-{call}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A session database in this folder.
    pub(crate) async fn database(&self, ctx: &Context) -> Result<SqliteSessions, Failure> {
        Ok(SqliteSessions::open(ctx, self.path()).await?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whatever cleans the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes to standard output, whether or not anybody reads it.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
