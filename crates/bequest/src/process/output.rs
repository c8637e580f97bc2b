//! What a child says until it exits.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::error::ProcessError;
use super::{Ending, spawn};
use crate::Context;

/// What a child has said, and how it exited.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it exited.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Whether a pipe was still held open, by somebody whom the child has left behind, when waiting for it was given up
    /// ([`Ending::pipes`]).
    pub is_held_open: bool,
}

/// Runs a child for `ctx` and answers all that it says. Its output is piped, and its input is as `command` has it; if that is
/// piped too, it is closed at once.
///
/// # Cancel safety
///
/// Dropping the future ends the child as the end of `ctx` does, in the background.
///
/// # Errors
///
/// As [`spawn`] and [`Child::wait`](super::Child::wait); and the end of the context, with the child's status, if it comes while
/// output is waited for that somebody else holds open. What the child had said by then is dropped.
///
/// # Panics
///
/// As [`spawn`].
///
/// ```
/// use bequest::{Context, process::{self, Ending}};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut command = std::process::Command::new("sh");
/// command.args(["-c", "echo said; exit 3"]);
/// let output = process::output(&Context::background(), command, Ending::default()).await.unwrap();
/// assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"said\n"[..], Some(3)));
/// # });
/// ```
pub async fn output(
    ctx: &Context,
    command: impl Into<Command>,
    ending: Ending,
) -> Result<Output, ProcessError> {
    let mut command = command.into();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(ctx, command, ending)?;
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (status, is_held_open) = {
        let mut said =
            pin!(async { tokio::try_join!(read(out, &mut stdout), read(errors, &mut stderr)).map(drop) });
        tokio::select! {
            biased;
            read = said.as_mut() => {
                read.map_err(unread)?;
                (child.wait().await?, false)
            }
            exited = child.wait() => {
                let status = exited?;
                match ctx.timeout(ending.pipes, said).await {
                    Ok(read) => {
                        read.map_err(unread)?;
                        (status, false)
                    }
                    Err(_) => match ctx.err() {
                        // Not the limit on the pipes: nobody wants the answer any more, and least of all half of it.
                        Some(end) => return Err(ProcessError::ended(end, Some(status))),
                        None => (status, true),
                    },
                }
            }
        }
    };
    Ok(Output {
        status,
        stdout,
        stderr,
        is_held_open,
    })
}

fn unread(error: io::Error) -> ProcessError {
    ProcessError::system("reading what a process says", error)
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, all: &mut Vec<u8>) -> io::Result<()> {
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(all).await?;
    }
    Ok(())
}
