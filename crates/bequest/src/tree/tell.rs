//! Telling those who wait: wakers and callbacks, collected under locks and run outside all of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::thread;

use super::NodeRef;
use crate::Canceled;

/// A function to be called once with the end of the context that it was registered on.
pub(crate) type Callback = Box<dyn FnOnce(Canceled) + Send>;

/// What is to be told, gathered by one cancellation.
#[derive(Default)]
pub(super) struct Tell {
    wakers: Vec<Waker>,
    calls: Vec<Call>,
    keepers: Vec<NodeRef>,
}

/// A callback to be called.
struct Call {
    callback: Callback,
    end: Canceled,
    /// The node's own handle, for a detached callback: kept until it has run.
    keeper: Option<NodeRef>,
}

/// Where callbacks run.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// On this thread, before the caller goes on: for a cancel.
    Here,
    /// On the callbacks' own thread: for a deadline of the system's clock, so that a slow callback delays no other.
    Beside,
}

impl Tell {
    pub(super) fn wake(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    pub(super) fn call(&mut self, callback: Callback, end: Canceled, keeper: Option<NodeRef>) {
        self.calls.push(Call {
            callback,
            end,
            keeper,
        });
    }

    /// Keeps a handle until everybody has been told.
    #[cfg(not(bequest_plain))]
    pub(super) fn keep(&mut self, keeper: Option<NodeRef>) {
        self.keepers.extend(keeper);
    }

    #[cfg(not(bequest_plain))]
    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.calls.is_empty() && self.keepers.is_empty()
    }

    /// Runs everything. A panic in one is caught and skips no other.
    ///
    /// The nodes that were kept for it go last, and a panic in the destructor of a cause of theirs is the caller's to see.
    pub(super) fn run(self, callbacks: Run) {
        for waker in self.wakers {
            guarded(|| waker.wake());
        }
        match callbacks {
            Run::Here => drop(run_all(self.calls)),
            Run::Beside if self.calls.is_empty() => {}
            Run::Beside => hand_over(self.calls),
        }
        drop(self.keepers);
    }
}

/// Calls `callback` now, on this thread, with the same care as those that were registered.
pub(super) fn call_now(callback: Callback, end: Canceled) {
    guarded(|| callback(end));
}

/// Wakes with the same care.
pub(crate) fn wake(waker: Waker) {
    guarded(|| waker.wake());
}

/// How many callbacks and wakers have panicked in this process. Each was reported by the panic hook.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Calls all of them; what was kept for them comes back.
fn run_all(calls: Vec<Call>) -> Vec<NodeRef> {
    let mut keepers = Vec::new();
    for Call {
        callback,
        end,
        keeper,
    } in calls
    {
        guarded(|| callback(end));
        keepers.extend(keeper);
    }
    keepers
}

/// As [`run_all`], on a thread that nobody waits for and that must not end.
fn run_beside(calls: Vec<Call>) {
    for keeper in run_all(calls) {
        // It may be the last handle to a node and its cause, whose destructor is foreign.
        guarded(|| drop(keeper));
    }
}

/// The panic hook has reported a panic by the time it is caught here; what is left to do is to count it, and to see
/// that dropping its payload does no further harm.
pub(super) fn guarded(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        PANICS.fetch_add(1, Ordering::Relaxed);
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // A payload whose destructor panics with a payload of its own: leaking the last one ends the series.
            #[expect(clippy::mem_forget, reason = "its destructor is what must not run")]
            std::mem::forget(second);
        }
    }
}

/// Callbacks of deadlines, waiting for the one thread that runs them.
struct Queue {
    waiting: Mutex<VecDeque<Call>>,
    arrived: Condvar,
}

static QUEUE: Queue = Queue {
    waiting: Mutex::new(VecDeque::new()),
    arrived: Condvar::new(),
};
/// Whether the thread of the queue runs; decided by the first callback of a deadline.
static STARTED: OnceLock<bool> = OnceLock::new();

fn hand_over(calls: Vec<Call>) {
    let start = || {
        thread::Builder::new()
            .name("bequest-callback".into())
            .spawn(run_queue)
            .is_ok()
    };
    if !STARTED.get_or_init(start) {
        // A slow callback may now delay a deadline; a callback that never runs would be worse.
        return run_beside(calls);
    }
    QUEUE
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(calls);
    QUEUE.arrived.notify_one();
}

fn run_queue() {
    loop {
        let mut waiting = QUEUE.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.is_empty() {
            waiting = QUEUE
                .arrived
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let batch = std::mem::take(&mut *waiting);
        drop(waiting);
        run_beside(batch.into());
    }
}
