//! One child, and the task that sees to it.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal as Number, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{Signal as Occurrences, SignalKind, signal};
use tokio::sync::oneshot;

use super::Ending;
use super::error::ProcessError;
use crate::{CancelScope, Context};

/// A running child. Dropping it ends the child as the end of its context does, in the background.
#[must_use = "dropping it ends the child"]
pub struct Child {
    /// The way in, if it is piped. [`wait`](Child::wait) closes it, unless it was taken.
    pub stdin: Option<ChildStdin>,
    /// The way out, if it is piped.
    pub stdout: Option<ChildStdout>,
    /// The way out for errors, if it is piped.
    pub stderr: Option<ChildStderr>,
    id: u32,
    outcome: oneshot::Receiver<Result<ExitStatus, ProcessError>>,
    _scope: CancelScope,
}

/// Starts a child for `ctx`, in a process group of its own, to be ended with it as `ending` says.
///
/// Everything else is as `command` has it: arguments, environment, what is piped. A terminal's Ctrl-C does not reach the
/// group; `ctx` is to end then. Nor may the group read from that terminal: a child that might is to be given another input.
///
/// # Errors
///
/// If `ctx` has ended, before any process is started (E1), or if the system cannot start it. `InvalidInput` if
/// [`Ending::signal`] is no signal with a name: a group is not told by those of real time.
///
/// # Panics
///
/// Outside a tokio runtime with its I/O driver, before any process is started.
///
/// ```
/// use bequest::{Context, Reason, process::{self, Ending}};
/// use std::os::unix::process::ExitStatusExt;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let ctx = Context::background().with_cancel();
/// let mut command = std::process::Command::new("sleep");
/// command.arg("1000");
/// let mut child = process::spawn(&ctx, command, Ending::default()).unwrap();
/// ctx.cancel_for(Reason::Shutdown);
/// let error = child.wait().await.unwrap_err();
/// assert_eq!(error.canceled().unwrap().reason(), Reason::Shutdown);
/// assert_eq!(error.status().unwrap().signal(), Some(15), "and it is reaped");
/// # });
/// ```
#[track_caller]
pub fn spawn(ctx: &Context, command: impl Into<Command>, ending: Ending) -> Result<Child, ProcessError> {
    if let Some(end) = ctx.err() {
        return Err(ProcessError::ended(end, None));
    }
    let told_by = Number::from_named_raw(ending.signal.as_raw()).ok_or_else(|| {
        let why = format!("a process group cannot be told by {}", ending.signal);
        let error = io::Error::new(io::ErrorKind::InvalidInput, why);
        ProcessError::system("no process was started", error)
    })?;
    // First, since it panics where nobody could see to a process. And a process may have been started with this signal
    // ignored; its children would be gone, with their status, before they are waited for.
    let exits = signal(SignalKind::child())
        .map_err(|error| ProcessError::system("listening for the exits of processes", error))?;
    let mut command = command.into();
    // The net, should the runtime be dropped with its tasks; it catches the leader alone, `Group` the others.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        let program = command.as_std().get_program();
        ProcessError::system(format!("starting {}", program.to_string_lossy()), error)
    })?;
    let scope = ctx.with_cancel().named("process");
    let (tell, outcome) = oneshot::channel();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let id = child.id().expect("nobody has waited for it");
    let group = Group {
        child,
        exits,
        told_by,
    };
    let under = scope.context();
    // Not joined: it ends when the child is reaped.
    drop(tokio::spawn(async move {
        // Nobody may wait for the outcome.
        let _ = tell.send(group.see_to(&under, ending.grace).await);
    }));
    Ok(Child {
        stdin,
        stdout,
        stderr,
        id,
        outcome,
        _scope: scope,
    })
}

impl Child {
    /// The process's number, which is its group's too. Once [`wait`](Child::wait) has answered it may be somebody else's.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the child has exited and is reaped. An exit before it was told of the end of the context wins over that.
    ///
    /// First its input is closed, unless [`stdin`](Child::stdin) was taken: a child that reads it to the end would otherwise
    /// wait for us as we wait for it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped: waiting again answers the same. It answers once.
    ///
    /// # Errors
    ///
    /// The end of the context, once the group was told, had its grace and was killed; and the system's, if the child cannot
    /// be waited for.
    ///
    /// # Panics
    ///
    /// If it has answered already.
    pub async fn wait(&mut self) -> Result<ExitStatus, ProcessError> {
        drop(self.stdin.take());
        (&mut self.outcome).await.unwrap_or_else(|_| {
            let gone = io::Error::other("the runtime that saw to the process is gone");
            Err(ProcessError::system("waiting for a process", gone))
        })
    }
}

/// The leader of a process group, unreaped until `see_to` answers. Its drop kills the group.
struct Group {
    child: tokio::process::Child,
    /// Comes after each exit of any child of this process.
    exits: Occurrences,
    told_by: Number,
}

impl Group {
    async fn see_to(mut self, ctx: &Context, grace: Duration) -> Result<ExitStatus, ProcessError> {
        let end = match ctx.run(self.child.wait()).await {
            Ok(exited) => {
                return exited.map_err(|error| ProcessError::system("waiting for a process", error));
            }
            Err(end) => end,
        };
        // It may have exited by itself a moment ago: then there is nobody to tell.
        if let Ok(Some(exited)) = self.child.try_wait() {
            return Ok(exited);
        }
        // The context's end does not shorten the grace; its clock measures it.
        let clock = ctx.without_cancel();
        if !grace.is_zero() {
            self.send(self.told_by);
            // What was stopped hears nothing until it goes on.
            self.send(Number::CONT);
            // Whether it has exited or its time is over: what is left of the group is killed.
            let _ = clock.timeout(grace, self.exited()).await;
        }
        self.send(Number::KILL);
        // What is killed exits, unless it stands in the kernel, or is not ours to signal.
        let limit = grace.max(Ending::default().grace);
        let status = clock.timeout(limit, self.child.wait()).await;
        Err(ProcessError::ended(end, status.ok().and_then(Result::ok)))
    }

    /// Waits until the leader has exited, and leaves it unreaped.
    async fn exited(&mut self) {
        while let Some((_, false)) = self.leader() {
            self.exits.recv().await;
        }
    }

    /// Signals the group, if its leader is unreaped (invariant 1).
    fn send(&self, number: Number) {
        if let Some((leader, _)) = self.leader() {
            // A group that is gone needs none, and one that is not ours to signal is waited for no longer than the limit.
            let _ = kill_process_group(leader, number);
        }
    }

    /// The leader, and whether it has exited; none if it was reaped. By us: then tokio has forgotten its number. Or by
    /// somebody in this process who waits for any child there is: then the system does not know it as a child of ours.
    fn leader(&self) -> Option<(Pid, bool)> {
        let leader = Pid::from_raw(self.child.id()?.try_into().ok()?)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let exited = waitid(WaitId::Pid(leader), options).ok()?;
        Some((leader, exited.is_some()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `see_to` the leader is reaped, and this does nothing.
        self.send(Number::KILL);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leader_that_somebody_else_reaped_is_not_signalled() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 0"]).process_group(0);
        let mut group = Group {
            child: command.spawn().expect("a shell"),
            exits: signal(SignalKind::child()).expect("a handler"),
            told_by: Number::TERM,
        };
        group.exited().await;
        let (leader, exited) = group.leader().expect("control: it is ours until it is reaped");
        assert!(exited);
        waitid(WaitId::Pid(leader), WaitIdOptions::EXITED).expect("somebody who waits for any child");
        assert!(
            group.child.id().is_some(),
            "the number is still known, and may be anybody's"
        );
        assert_eq!(group.leader(), None);
        let ended = Context::background().with_timeout(Duration::ZERO);
        let error = group.see_to(&ended, Duration::MAX).await.unwrap_err();
        assert_eq!(error.status(), None, "nor is it waited for");
    }
}
