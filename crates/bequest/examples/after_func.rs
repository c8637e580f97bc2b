//! Callbacks for the end: to wake what cannot wait on a context, and what to do instead of merging contexts with them.
//!
//! Run it with `cargo run -p bequest --example after_func`; it says nothing if every assertion holds.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

use bequest::{Canceled, Context, Kind, Reason};

#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<u32>>,
    changed: Condvar,
}

impl Queue {
    fn push(&self, item: u32) {
        self.items.lock().unwrap().push_back(item);
        self.changed.notify_one();
    }

    /// Waits for an item, and no longer than the context lives.
    fn pop(self: &Arc<Queue>, ctx: &Context) -> Result<u32, Canceled> {
        let queue = Arc::clone(self);
        let _guard = ctx.after_func(move |_| {
            // With the lock in hand: else the news could fall between a waiter's look and its wait.
            drop(queue.items.lock().unwrap());
            queue.changed.notify_all();
        });
        let mut items = self.items.lock().unwrap();
        loop {
            if let Some(item) = items.pop_front() {
                return Ok(item);
            }
            ctx.check()?;
            items = self.changed.wait(items).unwrap();
        }
    }
}

pub(crate) fn main() {
    let queue = Arc::new(Queue::default());
    let scope = Context::background().with_cancel();
    queue.push(7);
    assert_eq!(queue.pop(&scope).unwrap(), 7);
    let waiter = thread::spawn({
        let (queue, ctx) = (Arc::clone(&queue), scope.context());
        move || queue.pop(&ctx)
    });
    scope.cancel_for(Reason::Shutdown);
    assert_eq!(waiter.join().unwrap().unwrap_err().reason(), Reason::Shutdown);

    // It runs on the thread that cancels, before `cancel()` returns.
    let scope = Context::background().with_cancel();
    let (tell, told) = mpsc::channel();
    let guard = scope.after_func(move |end| tell.send((end.reason(), thread::current().id())).unwrap());
    scope.cancel();
    assert_eq!(
        told.try_recv().unwrap(),
        (Reason::Explicit, thread::current().id())
    );
    assert!(!guard.stop(), "too late: it has run");

    // A guard that is stopped, or only dropped, prevents the call.
    let scope = Context::background().with_cancel();
    let guard = scope.after_func(|_| unreachable!("stopped in time"));
    assert!(guard.stop());
    drop(scope.after_func(|_| unreachable!("its guard is gone")));
    scope.cancel();

    // Two contexts in one: no callback needed, and nothing lost, neither the kind nor the reason nor the origin.
    let request = Context::background().with_cancel();
    let server = Context::background().with_cancel();
    let both = Context::any([&request, &server]);
    server.cancel_for(Reason::Shutdown);
    let end = both.err().unwrap();
    assert_eq!((end.kind(), end.reason()), (Kind::Canceled, Reason::Shutdown));
    assert!(end.is_from(&server) && !request.is_done());
}
