//! Where a call waits: numbers, source lines, and the wrapper that makes a place of an await that is ready.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::thread::{self, ThreadId};

use bequest::{Context, Key, ScopeId};

use crate::Left;

/// A place at which a call waited.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Place {
    /// Its number in the run: it was the so-many-th poll that returned pending.
    pub number: usize,
    /// The [`point`]s that waited.
    pub points: Vec<&'static Location<'static>>,
    /// The contexts derived from the call's own that were alive.
    pub inside: Vec<Inside>,
    /// How many futures and callbacks waited on the call's context, or on one derived from it.
    pub waiting: usize,
}

/// A context that was alive at a place: which piece of work the call was in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inside {
    /// The name it was given.
    pub name: Option<&'static str>,
    /// The source line that made it.
    pub made_at: &'static Location<'static>,
    /// Whether it had ended, so that what waits here knows already.
    pub has_ended: bool,
}

impl Place {
    pub(super) fn see(number: usize, call: ScopeId, left: &Left, recorder: &Recorder) -> Place {
        let waiting = left.contexts.iter().map(|row| row.waiting).sum::<usize>() + left.waiting;
        let inside = left
            .contexts
            .iter()
            .filter(|row| row.id != call)
            .map(|row| Inside {
                name: row.name,
                made_at: row.made_at,
                has_ended: row.end.is_some(),
            });
        Place {
            number,
            points: recorder.lock().points.clone(),
            inside: inside.collect(),
            waiting,
        }
    }

    /// Whether anything waited on the call's context: if not, the call cannot have been told of a cancel here.
    ///
    /// It is a lower bar than it looks: a callback that stands for all of the call counts, wherever the call waits.
    pub fn hears(&self) -> bool {
        self.waiting > 0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "place {}", self.number)?;
        for (index, at) in self.points.iter().enumerate() {
            write!(f, "{}{at}", if index == 0 { " at " } else { " and " })?;
        }
        for work in &self.inside {
            write!(
                f,
                ", inside {} made at {}",
                work.name.unwrap_or("a context"),
                work.made_at
            )?;
        }
        if !self.hears() {
            f.write_str(", where nothing waits on the context")?;
        }
        Ok(())
    }
}

/// Makes `work` a place of its own with its source line: its first poll is put off by one, so that even an await that
/// is ready at once is a place where the call can end.
///
/// It finds out by the values of `ctx` whether it is in a run of [`every`](super::every); anywhere else, and in tasks
/// that the call spawns, it does nothing but poll `work`.
///
/// # Cancel safety
///
/// As that of `work`.
///
/// # Example: outside a run it is not there
///
/// ```
/// use bequest::Context;
/// use bequest_test::{cancel_at::point, task};
///
/// let mut seven = task(point(&Context::background(), async { 7 }));
/// assert_eq!(seven.assert_ready(), 7);
/// ```
#[track_caller]
pub fn point<F: Future>(ctx: &Context, work: F) -> Point<F> {
    Point {
        work: Box::pin(work),
        recorder: ctx.value(&RECORDER).map(Arc::clone),
        here: Location::caller(),
        begun: false,
    }
}

/// The future of [`point`].
#[must_use = "futures do nothing unless awaited"]
pub struct Point<F> {
    work: Pin<Box<F>>,
    recorder: Option<Arc<Recorder>>,
    here: &'static Location<'static>,
    begun: bool,
}

impl<F: Future> Future for Point<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let put_off = !std::mem::replace(&mut this.begun, true);
        if put_off && this.is_recorded() {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = this.work.as_mut().poll(task);
        if polled.is_pending() {
            this.is_recorded();
        }
        polled
    }
}

impl<F> Point<F> {
    /// Tells the run, if this is one, that the call waits here.
    fn is_recorded(&self) -> bool {
        self.recorder
            .as_ref()
            .is_some_and(|recorder| recorder.wait_at(self.here))
    }
}

impl<F> fmt::Debug for Point<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point")
            .field("here", &format_args!("{}", self.here))
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

/// By which the points of a call find their run.
pub(super) static RECORDER: Key<Arc<Recorder>> = Key::new("cancel_at run");

/// The points that wait, as of the last poll of the call.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Recorded>);

/// What the recorder's lock guards.
#[derive(Default)]
struct Recorded {
    /// The thread that is polling the call, as long as it does. A point that is polled at another time or elsewhere
    /// belongs to a task that the call has spawned.
    polling: Option<ThreadId>,
    points: Vec<&'static Location<'static>>,
}

impl Recorder {
    /// A poll of the call, during which points are recorded.
    pub(super) fn during<T>(&self, poll: impl FnOnce() -> T) -> T {
        let mut recorded = self.lock();
        recorded.polling = Some(thread::current().id());
        recorded.points.clear();
        drop(recorded);
        let polled = poll();
        self.lock().polling = None;
        polled
    }

    fn wait_at(&self, here: &'static Location<'static>) -> bool {
        let mut recorded = self.lock();
        let is_ours = recorded.polling == Some(thread::current().id());
        if is_ours {
            recorded.points.push(here);
        }
        is_ours
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Nothing foreign runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
