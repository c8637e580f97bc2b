//! The futures: waiting for an end, and running work until one.
//!
//! Each holds a handle and, once polled, a place in the node's list of waiters, which it leaves when it is dropped.
//! None of them needs a runtime. What lives here besides is the blocking form, which parks the thread.
//!
//! # Invariants
//!
//! 1. A future that says the context has ended has read its end: it stays readable, so the future stays ready.
//! 2. Work is never polled if the context had ended before the first poll; later it is polled before the context is
//!    asked, so that finished work wins.
//! 3. `work` is pinned with its future: it is never moved, and dropped in place.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::canceled::{Canceled, End, Kind, LazyId};
use crate::tree::{Armed, Place};
use crate::{Context, Reason};

/// The future of [`Context::done`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Done<'a>(Waiting<&'a Context>);

/// The future of [`Context::done_owned`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct DoneOwned(Waiting<Context>);

/// The future of [`Context::run`].
#[must_use = "futures do nothing unless awaited"]
pub struct Run<'a, F>(Race<Waiting<&'a Context>, F>);

/// The future of [`Context::run_owned`].
#[must_use = "futures do nothing unless awaited"]
pub struct RunOwned<F>(Race<Waiting<Context>, F>);

/// The future of [`Context::timeout`].
#[must_use = "futures do nothing unless awaited"]
pub struct Timeout<'a, F>(Race<Limited<'a>, F>);

/// The future of [`Context::sleep`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Sleep<'a>(Limited<'a>);

impl<'a> Done<'a> {
    pub(crate) fn new(context: &'a Context) -> Done<'a> {
        Done(Waiting::on(context))
    }
}

impl DoneOwned {
    pub(crate) fn new(context: Context) -> DoneOwned {
        DoneOwned(Waiting::on(context))
    }
}

impl<'a, F: Future> Run<'a, F> {
    pub(crate) fn new(context: &'a Context, work: F) -> Run<'a, F> {
        Run(Race::new(Waiting::on(context), work))
    }
}

impl<F: Future> RunOwned<F> {
    pub(crate) fn new(context: Context, work: F) -> RunOwned<F> {
        RunOwned(Race::new(Waiting::on(context), work))
    }
}

impl<'a, F: Future> Timeout<'a, F> {
    #[track_caller]
    pub(crate) fn new(context: &'a Context, limit: Duration, work: F) -> Timeout<'a, F> {
        Timeout(Race::new(Limited::by(context, limit), work))
    }
}

impl<'a> Sleep<'a> {
    #[track_caller]
    pub(crate) fn new(context: &'a Context, duration: Duration) -> Sleep<'a> {
        Sleep(Limited::by(context, duration))
    }
}

impl Future for Done<'_> {
    type Output = Canceled;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Canceled> {
        self.0.poll_end(task)
    }
}

impl Future for DoneOwned {
    type Output = Canceled;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Canceled> {
        self.0.poll_end(task)
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output, Canceled>;

    // Into whoever polls it, always: across a call the result goes through memory in pieces, and reading it back whole
    // waits for them, 5 ns of the 7 that work which is ready took.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        pinned::run(self).poll_race(task)
    }
}

impl<F: Future> Future for RunOwned<F> {
    type Output = Result<F::Output, Canceled>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        pinned::run_owned(self).poll_race(task)
    }
}

impl<F: Future> Future for Timeout<'_, F> {
    type Output = Result<F::Output, Canceled>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        pinned::timeout(self).poll_race(task)
    }
}

impl Future for Sleep<'_> {
    type Output = Result<(), Canceled>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let limited = &mut self.0;
        if limited.is_over() {
            return Poll::Ready(limited.end_before_limit().map_or(Ok(()), Err));
        }
        limited.poll_stop(task).map(|stop| match stop {
            Stop::Outer(end) => Err(end),
            Stop::Own => Ok(()),
        })
    }
}

/// Blocks the thread until `future` is ready.
pub(crate) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = TaskContext::from_waker(&waker);
    loop {
        match Pin::new(&mut future).poll(&mut task) {
            Poll::Ready(output) => return output,
            // A token that somebody else left makes this return early; the loop asks again.
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A handle with a place among the waiters of its node.
struct Waiting<C: AsRef<Context>> {
    context: C,
    place: Place,
}

impl<C: AsRef<Context>> Waiting<C> {
    fn on(context: C) -> Waiting<C> {
        Waiting {
            context,
            place: Place::default(),
        }
    }

    #[inline]
    fn poll_end(&mut self, task: &TaskContext<'_>) -> Poll<Canceled> {
        let Some(node) = &self.context.as_ref().node else {
            return Poll::Pending;
        };
        if node.poll_end(&mut self.place, task).is_pending() {
            return Poll::Pending;
        }
        match node.end() {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        }
    }
}

impl<C: AsRef<Context>> Drop for Waiting<C> {
    #[inline]
    fn drop(&mut self) {
        if let Some(node) = &self.context.as_ref().node {
            node.leave(&mut self.place);
        }
    }
}

impl<C: AsRef<Context>> fmt::Debug for Waiting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(self.context.as_ref()).finish()
    }
}

/// What can stop work: asked before its first poll, and polled after every one.
trait Stopper: Unpin {
    /// Whether it is over before anything was begun.
    fn before(&mut self) -> Option<Canceled>;
    fn poll_stop(&mut self, task: &TaskContext<'_>) -> Poll<Canceled>;
}

impl<C: AsRef<Context> + Unpin> Stopper for Waiting<C> {
    #[inline]
    fn before(&mut self) -> Option<Canceled> {
        self.context.as_ref().err()
    }

    #[inline]
    fn poll_stop(&mut self, task: &TaskContext<'_>) -> Poll<Canceled> {
        self.poll_end(task)
    }
}

impl Stopper for Limited<'_> {
    fn before(&mut self) -> Option<Canceled> {
        self.outer_end()
    }

    #[inline]
    fn poll_stop(&mut self, task: &TaskContext<'_>) -> Poll<Canceled> {
        if self.bell.as_ref().is_some_and(Armed::has_rung) {
            return Poll::Ready(self.first_end());
        }
        // A limit that is not armed yet is compared with the clock when it is.
        Limited::poll_stop(self, task).map(|stop| self.first_of(stop))
    }
}

/// Work beside what can stop it.
struct Race<S, F> {
    stopper: S,
    stage: Stage,
    work: F,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Fresh,
    Begun,
    Finished,
}

impl<S: Stopper, F: Future> Race<S, F> {
    fn new(stopper: S, work: F) -> Race<S, F> {
        Race {
            stopper,
            stage: Stage::Fresh,
            work,
        }
    }

    #[inline(always)]
    fn poll_race(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Result<F::Output, Canceled>> {
        let (stopper, stage, work) = pinned::race(self);
        match stage {
            Stage::Fresh => {
                if let Some(end) = stopper.before() {
                    return Poll::Ready(Err(end));
                }
                *stage = Stage::Begun;
            }
            Stage::Begun => {}
            Stage::Finished => panic!("polled after it had returned the finished work"),
        }
        if let Poll::Ready(output) = work.poll(task) {
            *stage = Stage::Finished;
            return Poll::Ready(Ok(output));
        }
        stopper.poll_stop(task).map(Err)
    }
}

/// A context and a limit of one await.
struct Limited<'a> {
    waiting: Waiting<&'a Context>,
    /// `None` for a limit that never comes before the context's own deadline.
    at: Option<Instant>,
    made_at: &'static Location<'static>,
    /// Armed by the first poll that finds the work pending.
    bell: Option<Armed>,
}

enum Stop {
    /// The context ended.
    Outer(Canceled),
    /// The limit passed.
    Own,
}

impl<'a> Limited<'a> {
    #[track_caller]
    fn by(context: &'a Context, limit: Duration) -> Limited<'a> {
        // The context's deadline, if it is not later, will end the wait by itself.
        let at = context
            .instant_after(limit)
            .filter(|at| context.deadline().is_none_or(|outer| *at < outer));
        Limited {
            waiting: Waiting::on(context),
            at,
            made_at: Location::caller(),
            bell: None,
        }
    }

    fn outer_end(&self) -> Option<Canceled> {
        self.waiting.context.err()
    }

    /// Whether the limit has passed. Reads the clock only until the bell is armed.
    fn is_over(&self) -> bool {
        match (&self.bell, self.at) {
            (Some(bell), _) => bell.has_rung(),
            (None, Some(at)) => self.waiting.context.has_come(at),
            (None, None) => false,
        }
    }

    fn poll_stop(&mut self, task: &TaskContext<'_>) -> Poll<Stop> {
        if let Poll::Ready(end) = self.waiting.poll_end(task) {
            return Poll::Ready(Stop::Outer(end));
        }
        let Some(at) = self.at else { return Poll::Pending };
        let has_come = match &mut self.bell {
            Some(bell) => bell.listen(task.waker()),
            None => {
                self.bell = Armed::at(at, self.waiting.context.node.as_ref(), task.waker());
                self.bell.as_ref().is_none_or(Armed::has_rung)
            }
        };
        if has_come {
            Poll::Ready(Stop::Own)
        } else {
            Poll::Pending
        }
    }

    /// The wait has been stopped: whose end it was.
    #[cold]
    fn first_of(&self, stop: Stop) -> Canceled {
        match stop {
            Stop::Own => self.own_end(),
            Stop::Outer(_) if self.is_over() => self.first_end(),
            Stop::Outer(end) => end,
        }
    }

    /// The limit has passed: whose end it was.
    #[cold]
    fn first_end(&self) -> Canceled {
        self.end_before_limit().unwrap_or_else(|| self.own_end())
    }

    /// The context's end, if that came before the limit or with it. The first event wins.
    fn end_before_limit(&self) -> Option<Canceled> {
        let came_before = |end: &Canceled| self.at.is_none_or(|limit| end.at().is_some_and(|at| at <= limit));
        self.outer_end().filter(came_before)
    }

    #[cold]
    fn own_end(&self) -> Canceled {
        Canceled::new(End {
            kind: Kind::DeadlineExceeded,
            reason: Reason::Deadline,
            cause: None,
            origin: self.made_at,
            was_called: false,
            scope: LazyId::of(0),
            name: None,
            at: Some(self.waiting.context.now()),
        })
    }
}

impl fmt::Debug for Limited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited")
            .field("context", self.waiting.context)
            .field("at", &self.at)
            .finish()
    }
}

/// The module's only `unsafe`: from a pinned future to the pinned work inside it.
///
/// The alternative is a box around the work of every `run` and `timeout`; it costs an allocation and a free per await,
/// measured at 21 ns here against 3 ns for the whole of an await that is ready at once.
#[allow(unsafe_code)]
mod pinned {
    use super::{Pin, Race, Run, RunOwned, Stage, Timeout, Waiting};
    use crate::Context;

    pub(super) fn run<'p, 'a, F>(
        future: Pin<&'p mut Run<'a, F>>,
    ) -> Pin<&'p mut Race<Waiting<&'a Context>, F>> {
        // SAFETY: field 0 is pinned whenever `Run` is: nothing moves it out, `Run` has no `Drop` of its own, and it is
        // `Unpin` only if the field is, since that is its only field.
        unsafe { future.map_unchecked_mut(|run| &mut run.0) }
    }

    pub(super) fn run_owned<F>(future: Pin<&mut RunOwned<F>>) -> Pin<&mut Race<Waiting<Context>, F>> {
        // SAFETY: as in `run`.
        unsafe { future.map_unchecked_mut(|run| &mut run.0) }
    }

    pub(super) fn timeout<'p, 'a, F>(
        future: Pin<&'p mut Timeout<'a, F>>,
    ) -> Pin<&'p mut Race<super::Limited<'a>, F>> {
        // SAFETY: as in `run`.
        unsafe { future.map_unchecked_mut(|timeout| &mut timeout.0) }
    }

    pub(super) fn race<S: Unpin, F>(race: Pin<&mut Race<S, F>>) -> (&mut S, &mut Stage, Pin<&mut F>) {
        // SAFETY: `work` is handed on pinned and never moved out of `Race`, which has no `Drop` of its own and is
        // `Unpin` only if `F` is. `stopper` and `stage` are `Unpin`, so plain references to them are harmless.
        let race = unsafe { race.get_unchecked_mut() };
        // SAFETY: as above.
        (&mut race.stopper, &mut race.stage, unsafe {
            Pin::new_unchecked(&mut race.work)
        })
    }
}

impl<F> fmt::Debug for Run<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(&self.0.stopper).finish()
    }
}

impl<F> fmt::Debug for RunOwned<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunOwned").field(&self.0.stopper).finish()
    }
}

impl<F> fmt::Debug for Timeout<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timeout").field(&self.0.stopper).finish()
    }
}
