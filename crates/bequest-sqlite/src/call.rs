//! One call: from the caller's future to the thread and back.
//!
//! The caller holds a scope of its own, derived from the context it was given. It is what the thread reads. So the
//! work ends when the given context does, and also when the future is dropped, since that drops the scope.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bequest::{CancelScope, Canceller, Context, DoneOwned};
use tokio::sync::oneshot;

use crate::connection::{Engine, Report};
use crate::error::{Error, Step};
use crate::pool::{Job, Queue};

type Admit = fn(&Queue, Context, Canceller, Box<dyn Job>) -> Result<u64, Error>;

/// Queues `work` and waits for its answer.
pub(crate) async fn call<T, W>(
    queue: &Arc<Queue>,
    ctx: &Context,
    name: &'static str,
    work: W,
) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce(&mut Engine, &Context) -> (Result<T, Error>, Report) + Send + 'static,
{
    submit(queue, ctx, name, Queue::push, work)?.await
}

/// As [`call`], as the last job of a sealed queue.
pub(crate) async fn last_call<T, W>(
    queue: &Arc<Queue>,
    ctx: &Context,
    name: &'static str,
    work: W,
) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce(&mut Engine, &Context) -> (Result<T, Error>, Report) + Send + 'static,
{
    submit(queue, ctx, name, Queue::push_last, work)?.await
}

fn submit<T, W>(
    queue: &Arc<Queue>,
    ctx: &Context,
    name: &'static str,
    admit: Admit,
    work: W,
) -> Result<Answer<T>, Error>
where
    T: Send + 'static,
    W: FnOnce(&mut Engine, &Context) -> (Result<T, Error>, Report) + Send + 'static,
{
    ctx.check()
        .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
    let scope = ctx.with_cancel().named(name);
    let (sender, receiver) = oneshot::channel();
    let job = Box::new(Call {
        work: Some(work),
        answer: None,
        sender,
    });
    let number = admit(queue, scope.context(), scope.canceller(), job)?;
    Ok(Answer {
        queue: Arc::clone(queue),
        number,
        done: Some(ctx.clone().done_owned()),
        receiver,
        scope,
    })
}

/// The thread's half.
struct Call<T, W> {
    work: Option<W>,
    answer: Option<Result<T, Error>>,
    sender: oneshot::Sender<Result<T, Error>>,
}

impl<T, W> Job for Call<T, W>
where
    T: Send,
    W: FnOnce(&mut Engine, &Context) -> (Result<T, Error>, Report) + Send,
{
    fn run(&mut self, engine: &mut Engine, ctx: &Context) -> Report {
        let Some(work) = self.work.take() else {
            return Report::default();
        };
        let (answer, report) = work(engine, ctx);
        self.answer = Some(answer);
        report
    }

    fn answer(self: Box<Self>) {
        let Call { answer, sender, .. } = *self;
        if let Some(answer) = answer {
            // It comes back if the caller has left; then nobody wants it.
            let _ = sender.send(answer);
        }
    }
}

/// The caller's half.
///
/// While the job waits, the end of the context takes it out of the queue and answers at once. Once it has begun, the
/// answer is the thread's: when this future is ready, nothing runs any more.
struct Answer<T> {
    queue: Arc<Queue>,
    number: u64,
    /// The end of the caller's context; `None` once it has been acted upon.
    done: Option<DoneOwned>,
    receiver: oneshot::Receiver<Result<T, Error>>,
    /// Dropped after `drop` below has taken the job out of the queue; if it is running, this is what ends it.
    scope: CancelScope,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(answer) = Pin::new(&mut this.receiver).poll(task) {
            return Poll::Ready(match answer {
                Ok(answer) => answer,
                Err(_) => Err(this.unanswered()),
            });
        }
        let Some(done) = &mut this.done else {
            return Poll::Pending;
        };
        let Poll::Ready(end) = Pin::new(done).poll(task) else {
            return Poll::Pending;
        };
        this.done = None;
        match this.queue.leave(this.number) {
            Some(_left) => Poll::Ready(Err(Error::canceled_at(Step::Waiting, end))),
            None => Poll::Pending,
        }
    }
}

impl<T> Answer<T> {
    /// The thread dropped the job instead of doing it: its context had ended before its turn, or the database closed.
    fn unanswered(&self) -> Error {
        match self.scope.err() {
            Some(end) => Error::canceled_at(Step::Waiting, end),
            None => Error::closed(),
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        drop(self.queue.leave(self.number));
    }
}
