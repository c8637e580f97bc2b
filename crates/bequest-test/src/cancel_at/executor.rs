//! Polling only what was woken, and catching what panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// The waker of a call. It remembers that it was woken, and passes it on to whoever waits for that.
pub(super) struct Relay {
    woken: AtomicBool,
    /// Guarded by its lock; it is cloned, woken and dropped outside.
    outer: Mutex<Option<Waker>>,
}

impl Relay {
    /// A relay of a call that was never polled, which counts as woken.
    pub(super) fn new() -> Arc<Relay> {
        Arc::new(Relay {
            woken: AtomicBool::new(true),
            outer: Mutex::new(None),
        })
    }

    pub(super) fn is_woken(&self) -> bool {
        // Acquire: pairs with the Release store in `wake_by_ref`.
        self.woken.load(Ordering::Acquire)
    }

    /// Forgets the wakes from before a poll.
    pub(super) fn take_woken(&self) -> bool {
        // Acquire: as in `is_woken`.
        self.woken.swap(false, Ordering::Acquire)
    }

    /// Waits until the call is woken.
    pub(super) async fn woken(&self) {
        std::future::poll_fn(|task| {
            let mine = Some(task.waker().clone());
            let old = std::mem::replace(&mut *self.outer(), mine);
            drop(old);
            // After the waker was left: whoever wakes now finds it, whoever woke before is seen here.
            match self.is_woken() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    fn outer(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: pairs with `is_woken`. Before the waker is taken, so that who leaves one later sees it.
        self.woken.store(true, Ordering::Release);
        let outer = self.outer().take();
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

/// Runs `work` on this thread, which is parked while it waits.
pub(super) fn block_on<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = TaskContext::from_waker(&waker);
    loop {
        match work.as_mut().poll(&mut task) {
            Poll::Ready(output) => return output,
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

/// What `step` returns, or the text of its panic.
pub(super) fn caught<T>(step: impl FnOnce() -> T) -> Result<T, String> {
    // What it was working on is dropped and not looked at again.
    catch_unwind(AssertUnwindSafe(step)).map_err(|payload| message(&*payload))
}

/// As [`caught`], at each poll of `work`.
pub(super) async fn caught_in<F: Future>(work: F) -> Result<F::Output, String> {
    let mut work = Box::pin(work);
    std::future::poll_fn(|task| match caught(|| work.as_mut().poll(task)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        (None, None) => "a panic without a text".to_owned(),
    }
}
