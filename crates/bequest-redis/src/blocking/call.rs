//! The course of one blocking command; the [module](super) tells it in words.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::runtime;
use tokio::sync::oneshot;

use super::orphan::{self, Lost};
use super::pool::{Lease, Patience, Pool};
use crate::command::Blocking;
use crate::error::{Error, Step, is_of_connection};
use crate::handle::Handle;
use crate::shared::Request;

/// What is to be run.
#[derive(Clone)]
pub(crate) enum Work {
    Command(Cmd, Blocking),
    Pipeline(Pipeline),
}

/// What became of it.
enum Outcome {
    Answer(Value),
    Failed(RedisError),
    /// Ended on the server; nothing was taken.
    Stopped,
    /// The connection was closed, and nobody knows.
    Unknown,
    /// The server is lost for good, and nobody knows.
    Lost,
}

/// Runs `work` on a connection of its own.
pub(crate) async fn call(
    pool: &Arc<Pool>,
    ctx: &Context,
    work: Work,
    patience: Patience,
) -> Result<Value, Error> {
    ctx.check()
        .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
    let lease = pool.take(ctx, patience).await?;
    let (tell, told) = oneshot::channel();
    let task = Task {
        pool: Arc::clone(pool),
        ctx: ctx.clone(),
        work: work.clone(),
    };
    tokio::spawn(task.run(lease, tell));
    let mut answer = Answer { told, pool, work };
    let outcome = match ctx.run(&mut answer.told).await {
        Ok(outcome) => outcome,
        Err(end) => match tokio::time::timeout(pool.settings.grace, &mut answer.told).await {
            Ok(outcome) => outcome,
            Err(_) => return Err(Error::canceled_in_doubt(end)),
        },
    };
    match outcome {
        Ok(Outcome::Answer(value)) => Ok(value),
        Ok(Outcome::Failed(error)) => Err(Error::running(error)),
        Ok(Outcome::Stopped) => Err(answer.work.stopped(end_of(ctx).await)),
        Ok(Outcome::Unknown) => Err(Error::canceled_in_doubt(end_of(ctx).await)),
        Ok(Outcome::Lost) => Err(Error::running(lost())),
        Err(_) => Err(Error::abandoned()),
    }
}

/// The task stops a command only after the context has ended, so this does not wait.
async fn end_of(ctx: &Context) -> Canceled {
    ctx.done().await
}

fn lost() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the node is gone").into()
}

/// The caller's side. Dropped with an answer in it that nobody took, it has it put back.
struct Answer<'a> {
    told: oneshot::Receiver<Outcome>,
    pool: &'a Arc<Pool>,
    work: Work,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // Closed first: from here on the task learns that it can tell nobody.
        self.told.close();
        let Ok(Outcome::Answer(value)) = self.told.try_recv() else {
            return;
        };
        let (pool, work) = (Arc::clone(self.pool), self.work.clone());
        match runtime::Handle::try_current() {
            Ok(runtime) => {
                let running = pool.begin();
                runtime.spawn(async move {
                    let _running = running;
                    orphan::settle(&pool, work, value).await;
                });
            }
            Err(_) => pool.counters.lost.add(),
        }
    }
}

/// The server's side.
struct Task {
    pool: Arc<Pool>,
    ctx: Context,
    work: Work,
}

impl Task {
    async fn run(self, lease: Lease, mut tell: oneshot::Sender<Outcome>) {
        let _running = self.pool.begin();
        let outcome = self.drive(&lease, &mut tell).await;
        if matches!(outcome, Outcome::Unknown | Outcome::Lost) {
            lease.seat.connection.close();
            self.pool.counters.closed.add();
        }
        if matches!(outcome, Outcome::Stopped) {
            self.pool.counters.unblocked.add();
        }
        let outcome = if tell.is_closed() {
            outcome
        } else {
            self.pool.put(lease);
            match tell.send(outcome) {
                Ok(()) => return,
                Err(outcome) => return self.undo(outcome).await,
            }
        };
        // The caller is gone; its place in the pool is kept until what it left is in order.
        self.undo(outcome).await;
        self.pool.put(lease);
    }

    async fn undo(&self, outcome: Outcome) {
        if let Outcome::Answer(value) = outcome {
            orphan::settle(&self.pool, self.work.clone(), value).await;
        }
    }

    /// Sends the command, and ends it when the context or the caller does.
    async fn drive(&self, lease: &Lease, tell: &mut oneshot::Sender<Outcome>) -> Outcome {
        let began = Instant::now();
        loop {
            let (work, is_shortened) = self.work.fit(&self.ctx, began.elapsed());
            let mut reply = pin!(work.send(lease));
            let end = tokio::select! {
                biased;
                reply = &mut reply => Some(reply),
                _ = self.ctx.done() => None,
                () = tell.closed() => None,
                () = self.pool.gone() => return Outcome::Lost,
            };
            let outcome = match end {
                Some(reply) => Outcome::of(reply),
                None => return self.end(lease, reply).await,
            };
            match outcome {
                // The server's clock was first; if ours has time left, so has the command.
                Outcome::Answer(Value::Nil) if is_shortened && self.ctx.is_done() => return Outcome::Stopped,
                Outcome::Answer(Value::Nil) if is_shortened => {}
                outcome => return outcome,
            }
        }
    }

    async fn end<R>(&self, lease: &Lease, reply: R) -> Outcome
    where
        R: Future<Output = RedisResult<Value>> + Unpin,
    {
        let ended = lease.seat.unblock(reply);
        match tokio::time::timeout(self.pool.settings.unblock_limit, ended).await {
            Ok(Ok(Ok(Value::Nil))) => Outcome::Stopped,
            Ok(Ok(Err(error))) if error.code() == Some("UNBLOCKED") => Outcome::Stopped,
            Ok(Ok(Err(error))) if is_of_connection(&error) => Outcome::Unknown,
            // The error is that of one of its commands, in words of the driver's.
            Ok(Ok(Err(_))) if matches!(self.work, Work::Pipeline(_)) => Outcome::Stopped,
            Ok(Ok(reply)) => Outcome::of(reply),
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }
}

impl Outcome {
    fn of(reply: RedisResult<Value>) -> Outcome {
        match reply {
            Ok(value) => Outcome::Answer(value),
            Err(error) => Outcome::Failed(error),
        }
    }
}

impl Work {
    /// The work with no more time than the context has left, and whether that is less than it asked for.
    fn fit(&self, ctx: &Context, spent: Duration) -> (Work, bool) {
        let (Work::Command(cmd, blocking), Some(left)) = (self, ctx.remaining()) else {
            return (self.clone(), false);
        };
        let Some(timeout) = blocking.timeout else {
            return (self.clone(), false);
        };
        // What is no timeout is left as it is: the server will say so.
        let Some(own) = timeout.of(cmd).map(|own| own.saturating_sub(spent)) else {
            return (self.clone(), false);
        };
        let cmd = timeout.set(cmd, own.min(left));
        (Work::Command(cmd, *blocking), left < own)
    }

    async fn send(&self, lease: &Lease) -> RedisResult<Value> {
        let mut handle = Handle::to(lease.seat.connection.clone());
        match self {
            Work::Command(cmd, blocking) if blocking.is_asked => handle.send(&Request::Asked(cmd)).await,
            Work::Command(cmd, _) => handle.send(&Request::Command(cmd)).await,
            Work::Pipeline(pipeline) => handle.send(&Request::Pipeline(pipeline)).await,
        }
    }

    /// A blocking command that was ended did nothing; of a pipeline the writes before it have been done.
    fn stopped(&self, end: Canceled) -> Error {
        match self {
            Work::Command(..) => Error::canceled_at(Step::Running, end),
            Work::Pipeline(_) => Error::canceled_in_doubt(end),
        }
    }

    /// The same for a node of a cluster that is to run it although it does not have the slot yet.
    pub(crate) fn asked(mut self, is_asked: bool) -> Work {
        if let Work::Command(_, blocking) = &mut self {
            blocking.is_asked = is_asked;
        }
        self
    }

    /// Splits off what an orphaned answer needs.
    pub(super) fn into_command(self) -> Result<(Cmd, Blocking), Lost> {
        match self {
            Work::Command(cmd, blocking) => Ok((cmd, blocking)),
            Work::Pipeline(_) => Err(Lost),
        }
    }
}
