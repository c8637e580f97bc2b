//! The obvious tree, with the obvious mistakes: it looks first and links or registers afterwards.
//!
//! `between` is called in the gap, where another thread may come at any time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

#[derive(Default)]
pub(crate) struct Naive {
    done: AtomicBool,
    children: Mutex<Vec<Arc<Naive>>>,
    waker: Mutex<Option<Waker>>,
}

impl Naive {
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) fn derive(&self, between: impl FnOnce()) -> Arc<Naive> {
        let child = Arc::new(Naive::default());
        child.done.store(self.is_done(), Ordering::SeqCst);
        between();
        self.children.lock().unwrap().push(Arc::clone(&child));
        child
    }

    /// Whether it is done; if not, the waker is left to be woken.
    pub(crate) fn poll(&self, waker: &Waker, between: impl FnOnce()) -> bool {
        if self.is_done() {
            return true;
        }
        between();
        *self.waker.lock().unwrap() = Some(waker.clone());
        false
    }

    pub(crate) fn cancel(&self) {
        self.done.store(true, Ordering::SeqCst);
        for child in self.children.lock().unwrap().drain(..) {
            child.cancel();
        }
        let waker = self.waker.lock().unwrap().take();
        waker.into_iter().for_each(Waker::wake);
    }
}
