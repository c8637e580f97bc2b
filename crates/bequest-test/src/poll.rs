//! Polling by hand, with counted wakes: what an executor would do, one step at a time, and what it would be told.
//!
//! What lives here: one future with its waker. What does not: deciding when to poll, which is the test's, or
//! [`Bubble`](crate::Bubble)'s.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future to be polled by hand.
///
/// ```
/// use bequest_test::task;
///
/// let mut ready = task(async { 7 });
/// assert_eq!(ready.assert_ready(), 7);
/// ```
pub fn task<F: Future>(future: F) -> Task<F> {
    Task {
        future: Box::pin(future),
        wakes: WakeCounter::new(),
        fresh: true,
    }
}

/// A future and the waker with which it is polled, made by [`task`]. Dropping it drops the future.
///
/// # Example: woken once, and no sooner
///
/// ```
/// use bequest::Context;
/// use bequest_test::task;
///
/// let scope = Context::background().with_cancel();
/// let mut waiting = task(scope.done());
/// assert!(waiting.poll().is_pending());
/// assert!(!waiting.is_woken());
///
/// scope.cancel();
/// assert!(waiting.is_woken());
/// assert_eq!(waiting.wakes(), 1);
/// assert!(waiting.poll().is_ready());
/// ```
///
/// # Example: a dropped future lets go of its waker
///
/// ```
/// use bequest::Context;
/// use bequest_test::task;
///
/// let scope = Context::background().with_cancel();
/// let mut waiting = task(scope.done());
/// waiting.assert_pending();
/// let waker = waiting.waker().clone();
/// drop(waiting);
/// assert!(!waker.is_held());
/// ```
#[must_use = "a task does nothing unless it is polled"]
pub struct Task<F> {
    future: Pin<Box<F>>,
    wakes: WakeCounter,
    /// Whether it has never been polled.
    fresh: bool,
}

impl<F: Future> Task<F> {
    /// Polls the future once. Wakes from before are answered by it: [`is_woken`](Task::is_woken) is false again.
    ///
    /// What a future does that is polled after it was ready is its own affair.
    pub fn poll(&mut self) -> Poll<F::Output> {
        self.fresh = false;
        self.wakes.take_woken();
        let waker = self.wakes.waker();
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls once and fails the test if the future is ready.
    ///
    /// ```should_panic
    /// bequest_test::task(async {}).assert_pending();
    /// ```
    ///
    /// # Panics
    ///
    /// If the future is ready.
    #[track_caller]
    pub fn assert_pending(&mut self) {
        assert!(self.poll().is_pending(), "the future is ready");
    }

    /// Polls once and fails the test if the future is not ready.
    ///
    /// ```should_panic
    /// bequest_test::task(std::future::pending::<()>()).assert_ready();
    /// ```
    ///
    /// # Panics
    ///
    /// If the future is pending.
    #[track_caller]
    pub fn assert_ready(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future is pending, woken {} times", self.wakes()),
        }
    }

    /// Whether it was woken since the last poll began.
    pub fn is_woken(&self) -> bool {
        self.wakes.is_woken()
    }

    /// How often it was woken in all.
    pub fn wakes(&self) -> usize {
        self.wakes.wakes()
    }

    /// The waker with which the future is polled.
    pub fn waker(&self) -> &WakeCounter {
        &self.wakes
    }

    /// Whether an executor would poll it now.
    pub(crate) fn is_runnable(&self) -> bool {
        self.fresh || self.is_woken()
    }
}

impl<F> fmt::Debug for Task<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("wakes", &self.wakes)
            .finish_non_exhaustive()
    }
}

/// A waker that counts. A clone counts along.
///
/// ```
/// use bequest_test::WakeCounter;
///
/// let counter = WakeCounter::new();
/// let waker = counter.waker();
/// assert!(counter.is_held() && !counter.is_woken());
/// waker.wake_by_ref();
/// waker.wake();
/// assert_eq!(counter.wakes(), 2);
/// assert!(counter.is_woken());
/// assert!(!counter.is_held(), "waking by value gave it back");
/// ```
#[derive(Clone, Default)]
pub struct WakeCounter(Arc<Shared>);

/// What the clones of a counter share.
#[derive(Default)]
struct Shared {
    /// Held by the wakers besides, so that its count tells how many there are.
    counter: Arc<Counter>,
}

/// What the wakers point to.
#[derive(Default)]
struct Counter {
    wakes: AtomicUsize,
    woken: AtomicBool,
}

impl WakeCounter {
    /// A counter that has counted nothing.
    pub fn new() -> WakeCounter {
        WakeCounter::default()
    }

    /// A waker that is counted here.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0.counter))
    }

    /// How often its wakers were woken.
    pub fn wakes(&self) -> usize {
        // Acquire: pairs with the Release addition in `wake_by_ref`; what happened before the wake is seen.
        self.0.counter.wakes.load(Ordering::Acquire)
    }

    /// Whether one was woken since the last [`take_woken`](WakeCounter::take_woken).
    pub fn is_woken(&self) -> bool {
        // Acquire: as in `wakes`.
        self.0.counter.woken.load(Ordering::Acquire)
    }

    /// As [`is_woken`](WakeCounter::is_woken), and forgets it.
    ///
    /// ```
    /// # use bequest_test::WakeCounter;
    /// let counter = WakeCounter::new();
    /// counter.waker().wake();
    /// assert!(counter.take_woken());
    /// assert!(!counter.take_woken());
    /// assert_eq!(counter.wakes(), 1);
    /// ```
    pub fn take_woken(&self) -> bool {
        // Acquire: as in `wakes`.
        self.0.counter.woken.swap(false, Ordering::Acquire)
    }

    /// Whether anybody still holds one of its wakers: after a future was dropped, somebody forgot to let go.
    pub fn is_held(&self) -> bool {
        Arc::strong_count(&self.0.counter) > 1
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: pairs with the loads in `WakeCounter`.
        self.wakes.fetch_add(1, Ordering::Release);
        self.woken.store(true, Ordering::Release);
    }
}

impl fmt::Debug for WakeCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeCounter")
            .field("wakes", &self.wakes())
            .field("woken", &self.is_woken())
            .field("held", &self.is_held())
            .finish()
    }
}
