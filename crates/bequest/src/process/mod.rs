//! Child processes that end with their context: the whole process group is told, has a grace, is killed, and is reaped.
//!
//! Unix only. A child that starts children of its own leaves them behind when it alone is killed; so each child here leads a
//! process group, and signals go to the group. A process that leaves the group (`setsid`) is out of reach, and only the pipes
//! that it holds are given up in time.
//!
//! ```text
//! the context ends ──► SIGTERM to the group ──► grace ──► SIGKILL to the group ──► the leader is reaped
//!                                            └► the leader exits ──┘
//! ```
//!
//! The grace is the leader's: when it has exited, what is left of its group is killed, so a child that is to let its own
//! children finish waits for them. A group that was stopped (`SIGSTOP`, or by a terminal that it may not read) is made to go
//! on, so that it hears what it is told. A child that exits by itself, untold, leaves in peace whatever it has left behind.
//!
//! # Giving it something to read
//!
//! A pipe holds 64 KiB. Who writes more than that, and reads only then, waits for a child that waits for its reader; so both
//! are done at once. A write that waits for a child which is killed ends with `BrokenPipe`; around it, `run` says why:
//!
//! ```
//! use bequest::{Context, process::{self, Ending}};
//! use std::process::{Command, Stdio};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ctx = Context::background().with_timeout(std::time::Duration::from_secs(60));
//! let mut command = Command::new("tr");
//! command.args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped());
//! let mut child = process::spawn(&ctx, command, Ending::default())?;
//! let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
//!
//! let (text, mut loud) = ("quiet ".repeat(50_000), String::new());
//! let feed = async move { input.write_all(text.as_bytes()).await }; // closes its end when all is written
//! ctx.run(async { tokio::try_join!(feed, output.read_to_string(&mut loud)) }).await??;
//! assert!(child.wait().await?.success());
//! assert!(loud.starts_with("QUIET QUIET ") && loud.len() == 300_000);
//! # Ok(()) }
//! ```
//!
//! # When the runtime ends first
//!
//! A runtime that is dropped takes the tasks along that see to children. Each group is then killed at once, without being
//! told; its leader is reaped by another runtime of tokio's in the process, if there is one.
//!
//! # Invariants
//!
//! 1. A signal goes to the group only while its leader is unreaped and ours, so that its number cannot be another's by then.
//! 2. Whoever waits, or nobody: a task of its own sees to the child until it is reaped. Dropping a [`Child`] ends its scope.
//! 3. The error of a child that its context ended is the context's, with its cause; how the child exited stands beside it.

mod child;
mod error;
mod output;

pub use child::{Child, spawn};
pub use error::ProcessError;
pub use output::{Output, output};

use std::time::Duration;

use crate::Signal;

/// How a child is ended. A parameter struct: name what differs and take the rest from [`Ending::default`].
///
/// ```
/// use bequest::{Signal, process::Ending};
/// use std::time::Duration;
///
/// let ending = Ending { signal: Signal::INTERRUPT, ..Ending::default() };
/// assert_eq!(ending.grace, Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the group is told by. Default SIGTERM.
    pub signal: Signal,
    /// How long its leader then has, by the context's clock, before the group is killed; zero: killed at once. Default 5 s.
    pub grace: Duration,
    /// How long [`output`], after the child has exited, waits for output if somebody else holds the pipe; no longer than the
    /// context lives. Default 1 s; [`Duration::MAX`] (what `WaitDelay: 0` means in Go): for as long as it is held.
    pub pipes: Duration,
}

impl Default for Ending {
    fn default() -> Ending {
        Ending {
            signal: Signal::TERMINATE,
            grace: Duration::from_secs(5),
            pipes: Duration::from_secs(1),
        }
    }
}
