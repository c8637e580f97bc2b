//! What contexts cost in memory, counted by the allocator: rows C48 and C49, and promise 3 at the size of millions.
//!
//! Allocations are counted for each thread, since the test runner allocates on its own; bytes for the whole process, so
//! this is one test, beside which nothing else runs. The ceilings may be lowered, not raised; freed nodes that a thread keeps
//! for the next ones count as the allocations that they save.

#![allow(unsafe_code)] // An allocator is `unsafe` by its trait; this one only counts and passes on.

#[path = "support/clock.rs"]
mod clock;
#[path = "support/poll.rs"]
mod poll;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use bequest::{CancelScope, Context, Key};

use poll::poll_once;

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no count any more, and nobody asks for it.
        CALLS.try_with(|calls| calls.set(calls.get() + 1)).ok();
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOUR: Duration = Duration::from_secs(3600);
const MILLION: usize = 1_000_000;
const MANY: usize = 100_000;

static NUMBER: Key<u64> = Key::new("number");

/// How often `work` allocates.
fn allocations<T>(work: impl FnOnce() -> T) -> usize {
    let before = CALLS.get();
    let kept = black_box(work());
    let calls = CALLS.get() - before;
    drop(kept);
    calls
}

/// By how much the heap has grown after `work`.
fn growth<T>(work: impl FnOnce() -> T) -> isize {
    let before = BYTES.load(Ordering::Relaxed);
    drop(work());
    BYTES.load(Ordering::Relaxed) - before
}

/// The heap that each of `count` things made by `make` takes while it lives.
fn bytes_each<T>(count: usize, make: impl Fn() -> T) -> usize {
    let mut kept = Vec::with_capacity(count);
    let before = BYTES.load(Ordering::Relaxed);
    kept.extend((0..count).map(|_| make()));
    let grown = BYTES.load(Ordering::Relaxed) - before;
    usize::try_from(grown).unwrap() / count
}

#[test]
fn memory() {
    // Once beforehand: what is made once per process, and the thread of the timers.
    let warm = Context::background().with_timeout(HOUR).with_value(&NUMBER, 0);
    assert!(poll_once(&mut warm.done()).is_pending());
    warm.cancel();

    c1_background_allocates_nothing();
    c14_done_allocates_nothing_until_it_waits();
    c48_allocation_ceilings();
    c49_heap_per_live_context();
    a_million_under_an_immortal_parent_leave_memory_flat();
    a_burst_of_children_is_given_back();
    control_what_is_kept_is_counted();
}

fn c1_background_allocates_nothing() {
    assert_eq!(allocations(Context::background), 0);
    assert_eq!(allocations(|| Context::background().clone().check()), 0);
    assert_eq!(allocations(|| Context::background().without_cancel()), 0);
}

fn c14_done_allocates_nothing_until_it_waits() {
    let scope = Context::background().with_cancel();
    assert_eq!(
        allocations(|| drop((scope.done(), scope.run(async {}), scope.sleep(HOUR)))),
        0
    );
    assert_eq!(allocations(|| scope.is_done() || scope.err().is_some()), 0);
    assert_eq!(allocations(|| scope.clone()), 0);
    assert_eq!(
        allocations(|| poll_once(&mut Box::pin(scope.run(std::future::ready(1))))),
        1,
        "the box"
    );
}

fn c48_allocation_ceilings() {
    let root = Context::background().with_cancel();
    // The first child makes the parent's list.
    let _first = root.with_cancel();
    let rows: [(&str, usize, &dyn Fn()); 8] = [
        ("with_value and look-up", 1, &|| {
            assert_eq!(root.context().with_value(&NUMBER, 1).value(&NUMBER), Some(&1));
        }),
        ("with_cancel under the background", 0, &|| {
            drop(Context::background().with_cancel())
        }),
        ("with_cancel and drop", 0, &|| drop(root.with_cancel())),
        ("with_cancel, cancel, wait", 2, &|| {
            let scope = root.with_cancel();
            scope.cancel();
            drop(scope.wait());
        }),
        ("with_timeout, never looked at", 0, &|| {
            drop(root.with_timeout(HOUR))
        }),
        ("with_timeout, looked at", 0, &|| {
            drop(root.with_timeout(HOUR).check())
        }),
        ("with_timeout, passed, wait", 2, &|| {
            drop(root.with_timeout(Duration::ZERO).wait())
        }),
        ("after_func and stop", 1, &|| {
            let held = root.id();
            assert!(root.after_func(move |_| _ = black_box(held)).stop());
        }),
    ];
    for (what, ceiling, work) in rows {
        work();
        let calls = allocations(work);
        assert!(
            calls <= ceiling,
            "{what}: {calls} allocations, at most {ceiling} are allowed"
        );
    }
}

fn c49_heap_per_live_context() {
    let count = 10_000;
    let parent = Context::background().with_cancel();
    let rows: [(&str, usize, usize); 5] = [
        (
            "with_cancel, no parent",
            56,
            bytes_each(count, || Context::background().with_cancel()),
        ),
        ("with_cancel", 56, bytes_each(count, || parent.with_cancel())),
        ("with_timeout, armed", 88, bytes_each(count, || armed(&parent))),
        (
            "with_value",
            40,
            bytes_each(count, || parent.context().with_value(&NUMBER, 1)),
        ),
        ("after_func", 48, bytes_each(count, || parent.after_func(|_| {}))),
    ];
    for (what, ceiling, each) in rows {
        assert!(
            each <= ceiling,
            "{what}: {each} bytes each, at most {ceiling} are allowed"
        );
        assert!(each > 0, "{what} is counted");
    }
}

fn armed(parent: &Context) -> CancelScope {
    let scope = parent.with_timeout(HOUR);
    assert!(!scope.is_done());
    scope
}

fn a_million_under_an_immortal_parent_leave_memory_flat() {
    let immortal = Context::background().with_cancel();
    let other = Context::background().with_cancel();
    let rows: [(&str, usize, &dyn Fn()); 7] = [
        ("children", MILLION, &|| drop(immortal.with_cancel())),
        ("cancelled children", MANY, &|| immortal.with_cancel().cancel()),
        ("timeouts", MANY, &|| drop(armed(&immortal))),
        ("merges", MILLION, &|| drop(Context::any([&immortal, &other]))),
        ("callbacks", MILLION, &|| drop(immortal.after_func(|_| {}))),
        ("waits", MANY, &|| {
            assert!(poll_once(&mut immortal.done()).is_pending())
        }),
        ("values", MANY, &|| {
            drop(immortal.context().with_value(&NUMBER, 1))
        }),
    ];
    for (what, count, work) in rows {
        work();
        let grown = growth(|| (0..count).for_each(|_| work()));
        assert!(grown < 4096, "{what}: {grown} bytes after {count}");
    }
    assert!(!immortal.is_done());
}

fn a_burst_of_children_is_given_back() {
    let immortal = Context::background().with_cancel();
    let grown = growth(|| (0..MILLION).map(|_| immortal.with_cancel()).collect::<Vec<_>>());
    assert!(grown < 4096, "{grown} bytes after a million at once");
    let deadlines = growth(|| (0..10_000).map(|_| armed(&immortal)).collect::<Vec<_>>());
    assert!(
        deadlines < 4096,
        "{deadlines} bytes after ten thousand timers at once"
    );
}

/// The naive parent keeps its children until it ends, as Go's does: the same check must see it.
fn control_what_is_kept_is_counted() {
    let immortal = Context::background().with_cancel();
    let mut kept = Vec::new();
    let grown = growth(|| (0..1000).for_each(|_| kept.push(immortal.with_cancel().canceller())));
    assert!(grown > 100 * 1000, "{grown} bytes");
}
