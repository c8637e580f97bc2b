//! Two or three threads at the same node, over and over, with memory that is freed the moment it may be.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context};

use crate::poll::{Wakes, poll_with};

const HOUR: Duration = Duration::from_secs(3600);
const TIMES: usize = 2_000;

/// Runs both at once.
fn at_once<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    let start = Barrier::new(2);
    thread::scope(|threads| {
        let beside = threads.spawn(|| {
            start.wait();
            other()
        });
        start.wait();
        let mine = one();
        (mine, beside.join().unwrap())
    })
}

#[test]
fn a_waiter_is_freed_while_it_is_told() {
    for _ in 0..TIMES {
        let scope = Context::background().with_cancel();
        let ctx = scope.context();
        let wakes = Wakes::new();
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(ctx.clone().done_owned())).collect();
        for wait in &mut waits {
            assert!(poll_with(&wakes, wait).is_pending());
        }
        at_once(
            || scope.cancel(),
            || {
                // The middle one first, so that its neighbours are touched.
                drop(waits.remove(1));
                drop(waits);
            },
        );
        assert!(wakes.count() <= 3);
        assert_eq!(Arc::strong_count(&wakes), 1, "no waker is left behind");
    }
}

#[test]
fn a_waiter_moves_to_another_task_while_it_is_told() {
    for _ in 0..TIMES {
        let scope = Context::background().with_cancel();
        let (first, second) = (Wakes::new(), Wakes::new());
        let mut wait = Box::pin(scope.context().done_owned());
        assert!(poll_with(&first, &mut wait).is_pending());
        let ((), was_ready) = at_once(|| scope.cancel(), || poll_with(&second, &mut wait).is_ready());
        assert!(was_ready || second.count() == 1, "the last task to ask is told");
        drop(wait);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1));
    }
}

#[test]
fn a_child_is_dropped_while_its_parent_is_cancelled() {
    for _ in 0..TIMES {
        let parent = Context::background().with_cancel();
        let mut children: Vec<CancelScope> = (0..4).map(|_| parent.with_cancel()).collect();
        let grandchild = children[2].with_timeout(HOUR);
        assert!(!grandchild.is_done());
        at_once(
            || parent.cancel(),
            || {
                drop(children.remove(1));
                drop(children);
            },
        );
        assert!(
            grandchild.is_done(),
            "it kept its parent, and was reached through it"
        );
    }
}

#[test]
fn a_child_is_dropped_and_cancelled_at_once() {
    for _ in 0..TIMES {
        let parent = Context::background().with_cancel();
        let child = parent.with_timeout(HOUR);
        assert!(!child.is_done());
        let (canceller, seen) = (child.canceller(), child.context());
        at_once(|| canceller.cancel(), move || drop(child));
        assert!(seen.is_done() && !parent.is_done());
        at_once(move || drop(seen), move || drop(parent));
    }
}

#[test]
fn parent_and_child_are_dropped_at_once() {
    for _ in 0..TIMES {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        let leaf = child.with_cancel();
        let seen = leaf.context();
        at_once(move || drop(parent), move || drop((child, leaf)));
        assert!(seen.is_done());
    }
}

#[test]
fn relays_are_freed_from_below_while_they_are_cancelled_from_above() {
    for _ in 0..TIMES {
        let root = Context::background().with_cancel();
        let mut ctx = root.context();
        for _ in 0..8 {
            let scope = ctx.with_cancel();
            drop(scope.canceller());
            ctx = scope.into_context();
        }
        // Nothing but this holds the eight.
        let leaf = ctx.with_cancel();
        drop(ctx);
        at_once(|| root.cancel(), move || drop(leaf));
        assert!(root.is_done());
    }
}

#[test]
fn a_guard_is_stopped_while_its_callback_is_called() {
    for _ in 0..TIMES {
        let scope = Context::background().with_cancel();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let guard = scope.after_func(move |_| _ = counted.fetch_add(1, Ordering::SeqCst));
        let ((), prevented) = at_once(|| scope.cancel(), move || guard.stop());
        assert_eq!(calls.load(Ordering::SeqCst), usize::from(!prevented));
        assert_eq!(Arc::strong_count(&calls), 1, "what it captured is gone");
    }
}

#[test]
fn a_deadline_comes_while_its_scope_is_dropped_and_cancelled() {
    for number in 0..TIMES as u64 / 4 {
        let parent = Context::background().with_cancel();
        let scope = parent.with_timeout(Duration::from_micros(50 + number % 100));
        let wakes = Wakes::new();
        let mut wait = Box::pin(scope.context().done_owned());
        let _ = poll_with(&wakes, &mut wait);
        let canceller = scope.canceller();
        at_once(
            move || {
                thread::sleep(Duration::from_micros(60));
                canceller.cancel();
            },
            move || {
                thread::sleep(Duration::from_micros(60));
                drop(scope);
            },
        );
        assert!(poll_with(&wakes, &mut wait).is_ready());
    }
}

#[test]
fn a_limit_comes_while_its_future_is_dropped() {
    for number in 0..TIMES as u64 / 4 {
        let ctx = Context::background().with_cancel();
        let wakes = Wakes::new();
        let limit = Duration::from_micros(20 + number % 80);
        let mut work = Box::pin(ctx.timeout(limit, std::future::pending::<()>()));
        let _ = poll_with(&wakes, &mut work);
        thread::sleep(Duration::from_micros(40));
        drop(work);
        // The timers' thread may be in the middle of it; what it holds, it lets go.
        while Arc::strong_count(&wakes) > 1 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_merge_is_dropped_while_both_sides_end() {
    for _ in 0..TIMES {
        let (one, two) = (
            Context::background().with_cancel(),
            Context::background().with_cancel(),
        );
        let both = Context::any([&one, &two]);
        let leaf = both.with_cancel();
        thread::scope(|threads| {
            threads.spawn(|| one.cancel());
            threads.spawn(|| two.cancel());
            drop(both);
        });
        assert!(leaf.is_done());
    }
}

/// A parent that many threads derive from at once may split its list of children; nothing may be lost by that.
#[test]
fn a_hot_parent_loses_no_child_as_its_lists_are_split() {
    const THREADS: usize = 8;
    for _ in 0..30 {
        let root = Context::background().with_cancel();
        let (start, over) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
        let kept: Vec<Vec<CancelScope>> = thread::scope(|threads| {
            let deriving: Vec<_> = (0..THREADS)
                .map(|_| {
                    threads.spawn(|| {
                        let mut kept = Vec::new();
                        start.wait();
                        while !over.load(Ordering::Relaxed) && kept.len() < 2_000 {
                            drop(root.with_cancel());
                            kept.push(root.with_cancel());
                            if kept.len() % 3 == 0 {
                                drop(kept.swap_remove(kept.len() / 2));
                            }
                        }
                        kept
                    })
                })
                .collect();
            start.wait();
            thread::sleep(Duration::from_millis(2));
            root.cancel();
            over.store(true, Ordering::Relaxed);
            deriving
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(kept.iter().flatten().all(|scope| scope.is_done()));
        // Taken apart by other threads than made them.
        thread::scope(|threads| {
            for mine in kept {
                threads.spawn(move || drop(mine));
            }
        });
    }
}
