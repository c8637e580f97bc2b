//! Promise 1: cancel is complete, and the first event wins for ever.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bequest::{CancelScope, Context, Kind, Reason};

use crate::naive::Naive;

const WIDE: usize = 20_000;

/// A root with so many children that marking them takes a while.
fn wide() -> (CancelScope, Vec<CancelScope>) {
    let root = Context::background().with_cancel();
    let children = (0..WIDE).map(|_| root.with_cancel()).collect();
    (root, children)
}

/// Cancels `root` on one thread; on another, waits for the first sign of it and then calls `then`.
fn while_it_is_cancelled<T: Send>(root: &CancelScope, then: impl FnOnce() -> T + Send) -> T {
    thread::scope(|threads| {
        let other = threads.spawn(|| {
            while !root.is_done() {
                std::hint::spin_loop();
            }
            then()
        });
        root.cancel();
        other.join().unwrap()
    })
}

#[test]
fn the_second_caller_returns_when_all_descendants_are_done() {
    for _ in 0..20 {
        let (root, children) = wide();
        let undone = while_it_is_cancelled(&root, || {
            root.cancel();
            children.iter().filter(|child| !child.is_done()).count()
        });
        assert_eq!(undone, 0);
    }
}

#[test]
fn control_without_the_second_call_descendants_are_seen_undone() {
    let seen = (0..1000).any(|_| {
        let (root, children) = wide();
        while_it_is_cancelled(&root, || children.iter().any(|child| !child.is_done()))
    });
    assert!(seen, "the window that the second caller waits out is there");
}

#[test]
fn a_caller_further_down_returns_when_its_own_descendants_are_done() {
    for _ in 0..20 {
        let root = Context::background().with_cancel();
        let middle = root.with_cancel();
        let leaves: Vec<_> = (0..WIDE).map(|_| middle.with_cancel()).collect();
        let undone = while_it_is_cancelled(&root, || {
            middle.cancel();
            leaves.iter().filter(|leaf| !leaf.is_done()).count()
        });
        assert_eq!(undone, 0);
    }
}

#[test]
fn nothing_derived_at_that_instant_is_lost() {
    for _ in 0..300 {
        let root = Context::background().with_cancel();
        let (start, over) = (Barrier::new(3), AtomicBool::new(false));
        let derive = || {
            start.wait();
            let mut made = vec![root.with_cancel()];
            while !over.load(Ordering::SeqCst) && made.len() < 5000 {
                let parent = &made[made.len() / 2];
                let child = parent.with_cancel();
                made.push(child);
                made.push(root.with_cancel());
            }
            made
        };
        let made = thread::scope(|threads| {
            let derivers = [threads.spawn(derive), threads.spawn(derive)];
            start.wait();
            root.cancel_for(Reason::Shutdown);
            over.store(true, Ordering::SeqCst);
            derivers.map(|deriver| deriver.join().unwrap())
        });
        for scope in made.iter().flatten() {
            assert_eq!(scope.err().unwrap().reason(), Reason::Shutdown);
            assert!(scope.err().unwrap().is_from(&root));
        }
    }
}

#[test]
fn control_a_tree_that_looks_and_then_links_loses_a_child() {
    let root = Naive::default();
    let child = root.derive(|| root.cancel());
    assert!(root.is_done() && !child.is_done());
}

#[test]
fn all_observers_agree_on_the_first_event() {
    for _ in 0..300 {
        let scope = Context::background().with_cancel();
        let child = scope.with_cancel();
        let start = Barrier::new(3);
        let seen = thread::scope(|threads| {
            let observer = threads.spawn(|| {
                start.wait();
                child.wait().cause().unwrap().to_string()
            });
            for cause in ["one", "two"] {
                let (scope, start) = (&scope, &start);
                threads.spawn(move || {
                    start.wait();
                    scope.cancel_with(cause);
                });
            }
            observer.join().unwrap()
        });
        for context in [&scope, &child] {
            assert_eq!(context.err().unwrap().cause().unwrap().to_string(), seen);
        }
    }
}

#[test]
fn a_merge_that_both_sides_end_at_once_ends_once() {
    for _ in 0..300 {
        let sides = [
            Context::background().with_cancel(),
            Context::background().with_cancel(),
        ];
        let both = Context::any(&sides);
        let leaf = both.with_cancel();
        let start = Barrier::new(2);
        thread::scope(|threads| {
            for side in &sides {
                let start = &start;
                threads.spawn(move || {
                    start.wait();
                    side.cancel();
                });
            }
        });
        let end = leaf.err().unwrap();
        assert_eq!(end, Kind::Canceled);
        assert_eq!(end.scope(), both.err().unwrap().scope());
        assert!(sides.iter().any(|side| end.is_from(side)));
    }
}
