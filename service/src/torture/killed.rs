//! `kill -9` in the middle of logins, again and again, until a thousand have been acknowledged.
//!
//! A process of its own logs in with eight tasks on the session database of this scene; a login is acknowledged when its
//! id has been written to a pipe. It is killed without warning, started again on what it left, and so on. What is counted:
//! acknowledged sessions that the database does not know afterwards. The naive way acknowledges first and writes behind.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bequest::Context;
use clap::Args;
use tokio::task::JoinSet;

use super::race::LIFETIME;
use super::stores::user;
use super::{Failure, Progress, Scratch, Verdict};
use crate::domain::session::SessionHash;
use crate::session::Sessions;
use crate::session::cache::memory::MemoryCache;
use crate::session::database::{Answer, Claim, Claimed, SessionDatabase};
use crate::session::id::SessionId;
use crate::session::record::{Ended, Record};
use crate::session::sqlite::SqliteSessions;

const SCENE: &str = "kill -9 during logins, over and over";
const TASKS: usize = 8;
/// The fewest logins between two kills; up to as many again are added, another number each time.
const BETWEEN: usize = 40;

/// The process that is killed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Victim {
    /// Folder of the session database
    #[arg(long)]
    data: PathBuf,

    /// Acknowledge first and write afterwards
    #[arg(long)]
    behind: bool,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counted {
    acknowledged: usize,
    kills: usize,
    lost: usize,
}

pub(super) async fn scene(ctx: &Context, logins: usize) -> Result<Verdict, Failure> {
    let progress = Progress::new(SCENE, 2 * logins);
    let ours = play(ctx, logins, false).await?;
    progress.at(logins);
    let naive = play(ctx, logins, true).await?;
    progress.at(2 * logins);
    Ok(Verdict {
        scene: SCENE,
        ours: format!(
            "{} lost of {}, {} kills",
            ours.lost, ours.acknowledged, ours.kills
        ),
        control: format!("written behind {} lost", naive.lost),
        holds: ours.lost == 0 && ours.acknowledged >= logins && ours.kills > 0,
        control_failed: naive.lost > 0,
    })
}

/// The process that logs in until it is killed.
///
/// # Errors
///
/// The database cannot be opened, or takes no session; the pipe is closed.
pub(super) async fn run(victim: Victim) -> Result<(), Failure> {
    let ctx = Context::background();
    let database = SqliteSessions::open(&ctx, &victim.data).await?;
    let database: Arc<dyn SessionDatabase> = match victim.behind {
        false => Arc::new(database),
        true => Arc::new(Behind(database)),
    };
    let cache = Arc::new(MemoryCache::new(Duration::from_secs(60), 1000));
    let sessions = Sessions::open(&ctx, database, cache, LIFETIME).await?;
    let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..TASKS {
        let (sessions, ctx) = (Arc::clone(&sessions), ctx.clone());
        tasks.spawn(async move {
            loop {
                let (id, _) = sessions.begin(&ctx, user(), None).await?;
                acknowledge(&id)?;
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn acknowledge(id: &SessionId) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", id.expose())?;
    out.flush()
}

async fn play(ctx: &Context, logins: usize, behind: bool) -> Result<Counted, Failure> {
    let scratch = Scratch::new()?;
    let folder = scratch.path().to_path_buf();
    let killing = tokio::task::spawn_blocking(move || kill_until(&folder, logins, behind));
    let (acknowledged, kills) = killing.await??;
    let database = scratch.database(ctx).await?;
    let mut lost = 0;
    for id in &acknowledged {
        lost += usize::from(database.find(ctx, id.hash()).await?.is_none());
    }
    database.close(ctx).await?;
    Ok(Counted {
        acknowledged: acknowledged.len(),
        kills,
        lost,
    })
}

/// Starts victims and kills them until so many logins are acknowledged: their ids, and how many were killed.
fn kill_until(folder: &Path, logins: usize, behind: bool) -> Result<(Vec<SessionId>, usize), Failure> {
    let (mut acknowledged, mut kills) = (Vec::new(), 0);
    while acknowledged.len() < logins {
        let mut victim = start(folder, behind)?;
        let lines = BufReader::new(victim.0.stdout.take().ok_or("no pipe")?).lines();
        let kill_at = acknowledged.len() + BETWEEN + (kills * 31) % BETWEEN;
        // What was in the pipe when the kill came was acknowledged too.
        for line in lines {
            // A line that the kill cut off was not.
            let Some(id) = SessionId::parse(&line?) else { break };
            acknowledged.push(id);
            if acknowledged.len() == kill_at {
                victim.0.kill()?;
                kills += 1;
            }
        }
        if acknowledged.len() < kill_at {
            return Err("the process ended by itself".into());
        }
    }
    Ok((acknowledged, kills))
}

/// Killed at the latest when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It is dead already, unless something failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, behind: bool) -> Result<Running, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["torture", "victim", "--data"]).arg(folder);
    if behind {
        command.arg("--behind");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    Ok(Running(child))
}

/// The naive database: a login is answered at once and written when there is time.
#[derive(Debug)]
struct Behind(SqliteSessions);

impl SessionDatabase for Behind {
    fn find<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Record>> {
        self.0.find(ctx, id)
    }

    fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        new: Record,
        old: Option<SessionHash>,
    ) -> Answer<'a, Option<Ended>> {
        let (database, ctx) = (self.0.clone(), ctx.without_cancel());
        tokio::spawn(async move { database.begin(&ctx, new, old).await });
        Box::pin(std::future::ready(Ok(None)))
    }

    fn revoke<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Ended>> {
        self.0.revoke(ctx, id)
    }

    fn revoke_all<'a>(&'a self, ctx: &'a Context, user: &'a str) -> Answer<'a, Vec<Ended>> {
        self.0.revoke_all(ctx, user)
    }

    fn list<'a>(&'a self, ctx: &'a Context, user: &'a str, most: u32) -> Answer<'a, Vec<Record>> {
        self.0.list(ctx, user, most)
    }

    fn touch<'a>(
        &'a self,
        ctx: &'a Context,
        id: SessionHash,
        now: SystemTime,
        rest: Duration,
    ) -> Answer<'a, bool> {
        self.0.touch(ctx, id, now, rest)
    }

    fn claim<'a>(&'a self, ctx: &'a Context, how: Claim) -> Answer<'a, Box<dyn Claimed>> {
        self.0.claim(ctx, how)
    }
}
