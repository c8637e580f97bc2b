//! What was asked of contexts, kept beside them, so that it can be held against what they did.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bequest::{AfterFunc, Canceled, Context, DoneOwned};

use crate::poll::{Wakes, poll_with};

/// News of a deadline comes from another thread: it is waited for, but not for ever.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

/// Waits until `holds`, by asking again; fails if it does not within a span in which it surely must.
pub(crate) fn soon(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < within, "it did not come true: {what}");
        std::thread::yield_now();
    }
}

/// A callback on a context.
pub(crate) struct Call {
    pub(crate) ctx: Context,
    pub(crate) guard: Option<AfterFunc>,
    pub(crate) calls: Arc<AtomicUsize>,
    /// `stop` said so.
    prevented: bool,
    /// The guard was dropped: it may have been prevented or not.
    open: bool,
}

impl Call {
    pub(crate) fn on(ctx: &Context) -> Call {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let guard = ctx.after_func(move |end| {
            // Readable from within, and what `done` says.
            assert!(!end.to_string().is_empty());
            counted.fetch_add(1, Ordering::SeqCst);
        });
        Call {
            ctx: ctx.clone(),
            guard: Some(guard),
            calls,
            prevented: false,
            open: false,
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(guard) = self.guard.take() {
            let prevented = guard.stop();
            self.prevented = prevented;
            self.open = !prevented && !self.ctx.is_done();
        }
    }

    pub(crate) fn drop_guard(&mut self) {
        if self.guard.take().is_some() {
            self.open = true;
        }
    }

    pub(crate) fn detach(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.detach();
        }
    }

    /// Never twice, never after it was prevented, and called if its context has ended.
    pub(crate) fn check(&self, within: Duration) {
        let count = || self.calls.load(Ordering::SeqCst);
        if self.prevented {
            assert_eq!(count(), 0, "called although it was prevented");
        } else if self.ctx.is_done() && !self.open {
            soon("a callback of an ended context was called", within, || {
                count() > 0
            });
        }
        assert!(count() <= 1, "called {} times", count());
    }
}

/// A future that waits for the end of a context.
pub(crate) struct Wait {
    ctx: Context,
    future: Pin<Box<DoneOwned>>,
    pub(crate) wakes: Arc<Wakes>,
    was_pending: bool,
}

impl Wait {
    pub(crate) fn on(ctx: &Context) -> Wait {
        Wait {
            ctx: ctx.clone(),
            future: Box::pin(ctx.clone().done_owned()),
            wakes: Wakes::new(),
            was_pending: false,
        }
    }

    /// Whether it is over.
    pub(crate) fn poll(&mut self) -> bool {
        let knew = self.ctx.is_done();
        match poll_with(&self.wakes, &mut self.future) {
            Poll::Pending => {
                assert!(!knew, "what had ended must be ready");
                self.was_pending = true;
                false
            }
            Poll::Ready(end) => {
                same(&end, &self.ctx.err().expect("ready, so it has an error"));
                true
            }
        }
    }

    /// Lets go of the waker that counts, so that a wake is lost: for a control.
    pub(crate) fn forget_wakes(&mut self) {
        self.wakes = Wakes::new();
    }

    /// Woken, if its context has ended since.
    pub(crate) fn check(&self, within: Duration) {
        if self.was_pending && self.ctx.is_done() {
            soon("a waiter of an ended context was woken", within, || {
                self.wakes.count() > 0
            });
        }
    }
}

/// Two readings of one end.
pub(crate) fn same(one: &Canceled, other: &Canceled) {
    assert_eq!(one.kind(), other.kind());
    assert_eq!(one.reason(), other.reason());
    assert_eq!(one.scope().1, other.scope().1);
    assert_eq!(one.origin(), other.origin());
}
