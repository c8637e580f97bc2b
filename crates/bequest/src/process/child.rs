//! One child, and the task that sees to it.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal as Number, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::Ending;
use super::error::ProcessError;
use crate::{CancelScope, Context};

/// A running child. Dropping it ends the child as the end of its context does, in the background.
pub struct Child {
    /// The way in, if it is piped.
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
/// group; `ctx` is to end then.
///
/// # Errors
///
/// If `ctx` has ended, before any process is started (E1), or if the system cannot start it.
///
/// # Panics
///
/// Outside a tokio runtime with its I/O driver.
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
    let mut command = command.into();
    // The net, should the runtime be dropped with its tasks; it catches the leader alone, `Group` the others.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(ProcessError::system)?;
    let scope = ctx.with_cancel().named("process");
    let (tell, outcome) = oneshot::channel();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let id = child.id().expect("nobody has waited for it");
    let group = Group { child };
    let under = scope.context();
    // Not joined: it ends when the child is reaped.
    drop(tokio::spawn(async move {
        // Nobody may wait for the outcome.
        let _ = tell.send(group.see_to(&under, ending).await);
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
    /// The process's number, which is its group's too.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the child has exited and is reaped. An exit before the end of the context wins over it.
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
        (&mut self.outcome).await.unwrap_or_else(|_| {
            let gone = io::Error::other("the runtime that saw to the process is gone");
            Err(ProcessError::system(gone))
        })
    }
}

/// The leader of a process group, unreaped until `see_to` answers. Its drop kills the group.
struct Group {
    child: tokio::process::Child,
}

impl Group {
    async fn see_to(mut self, ctx: &Context, ending: Ending) -> Result<ExitStatus, ProcessError> {
        let end = match ctx.run(self.child.wait()).await {
            Ok(exited) => return exited.map_err(ProcessError::system),
            Err(end) => end,
        };
        // The context's end does not shorten the grace; its clock measures it.
        let clock = ctx.without_cancel();
        if !ending.grace.is_zero() {
            self.send(Number::from_named_raw(ending.signal.as_raw()));
            // Whether it has exited or its time is over: what is left of the group is killed.
            let _ = clock.timeout(ending.grace, self.exited()).await;
        }
        self.send(Some(Number::KILL));
        // What is killed exits, unless it stands in the kernel, or is not ours to signal.
        let limit = ending.grace.max(Ending::default().grace);
        let status = clock.timeout(limit, self.child.wait()).await;
        Err(ProcessError::ended(end, status.ok().and_then(Result::ok)))
    }

    /// Waits until the leader has exited, and leaves it unreaped.
    async fn exited(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        while !self.has_exited()? {
            children.recv().await;
        }
        Ok(())
    }

    fn has_exited(&self) -> io::Result<bool> {
        let Some(leader) = self.leader() else {
            return Ok(true);
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(leader), options)?.is_some())
    }

    /// Signals the group, if its leader is unreaped (invariant 1: nobody else reaps it, and tokio forgets its number when
    /// it has done so).
    fn send(&self, number: Option<Number>) {
        if let (Some(leader), Some(number)) = (self.leader(), number) {
            // A group that is gone needs none, and one that is not ours to signal is waited for no longer than the limit.
            let _ = kill_process_group(leader, number);
        }
    }

    fn leader(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id()?.try_into().ok()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `see_to` the leader is reaped, and this does nothing.
        self.send(Some(Number::KILL));
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
