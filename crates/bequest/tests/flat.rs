//! Memory stays flat when contexts go from thread to thread: made on one and dropped on another, by threads that come
//! and go, under a parent that many fight for. What one thread alone does is counted in `budget.rs`.
//!
//! Bytes are the whole process's, so this is one test, beside which nothing else runs.

#![allow(unsafe_code)] // An allocator is `unsafe` by its trait; this one only counts and passes on.

#[path = "support/clock.rs"]
mod clock;
#[path = "support/poll.rs"]
mod poll;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context};

use clock::Manual;
use poll::poll_once;

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
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
const MANY: usize = 200_000;
const BATCH: usize = 1_000;
/// What lists of a thread and the standard library may keep; a hundredth of what a leak of these sizes would be.
const FLAT: isize = 64 << 10;

/// By how much the heap has grown after `work`, done once before.
fn growth(work: impl Fn()) -> isize {
    work();
    let before = BYTES.load(Ordering::Relaxed);
    work();
    BYTES.load(Ordering::Relaxed) - before
}

#[test]
fn memory_is_flat_across_threads() {
    let rows: [(&str, &dyn Fn()); 6] = [
        ("made here, dropped there", &made_here_dropped_there),
        ("threads that come and go", &threads_that_come_and_go),
        ("a parent that many fight for", &a_hot_parent),
        ("timers that expire elsewhere", &timers_that_expire_elsewhere),
        ("waits that end elsewhere", &waits_that_end_elsewhere),
        ("parents that go first", &parents_that_go_first),
    ];
    for (what, work) in rows {
        let grown = growth(work);
        assert!(grown < FLAT, "{what}: {grown} bytes");
    }
    control_what_is_kept_is_seen();
}

fn made_here_dropped_there() {
    let immortal = Context::background().with_cancel();
    let (send, receive) = mpsc::sync_channel::<Vec<CancelScope>>(2);
    let dropping = thread::spawn(move || receive.into_iter().for_each(drop));
    for _ in 0..MANY / BATCH {
        let batch = (0..BATCH).map(|number| match number % 2 {
            0 => immortal.with_cancel(),
            _ => immortal.with_timeout(HOUR),
        });
        send.send(batch.collect()).unwrap();
    }
    drop(send);
    dropping.join().unwrap();
}

fn threads_that_come_and_go() {
    let immortal = Context::background().with_cancel();
    for _ in 0..300 {
        let parent = immortal.context();
        let working = thread::spawn(move || {
            let scopes: Vec<_> = (0..200).map(|_| parent.with_timeout(HOUR)).collect();
            assert!(scopes.iter().all(|scope| !scope.is_done()));
        });
        working.join().unwrap();
    }
}

fn a_hot_parent() {
    let parent = Context::background().with_cancel();
    let start = Barrier::new(4);
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                start.wait();
                let mut kept = Vec::new();
                for number in 0..MANY / 8 {
                    let child = parent.with_cancel();
                    if number % 50 == 0 {
                        kept.push(child);
                    }
                }
            });
        }
    });
}

fn timers_that_expire_elsewhere() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let scopes: Vec<_> = (0..20_000)
        .map(|number| root.with_timeout(Duration::from_millis(number)))
        .collect();
    assert!(scopes.iter().skip(1).all(|scope| !scope.is_done()), "armed");
    thread::spawn(move || clock.advance(HOUR)).join().unwrap();
    assert!(scopes.iter().all(|scope| scope.is_done()));
}

fn waits_that_end_elsewhere() {
    let root = Context::background().with_cancel();
    let mut waits: Vec<_> = (0..20_000)
        .map(|_| Box::pin(root.context().done_owned()))
        .collect();
    for wait in &mut waits {
        assert!(poll_once(wait).is_pending());
    }
    let guards: Vec<_> = (0..20_000)
        .map(|number| root.after_func(move |_| _ = number))
        .collect();
    let canceller = root.canceller();
    thread::spawn(move || canceller.cancel()).join().unwrap();
    thread::spawn(move || drop(waits)).join().unwrap();
    drop(guards);
}

fn parents_that_go_first() {
    for _ in 0..MANY / BATCH {
        let parent = Context::background().with_cancel();
        let children: Vec<_> = (0..BATCH / 10).map(|_| parent.with_cancel()).collect();
        let leaves: Vec<_> = children.iter().map(|child| child.with_cancel()).collect();
        drop((parent, children));
        thread::scope(|threads| drop(threads.spawn(move || drop(leaves))));
    }
}

/// What a naive parent would do, and what the same check says of it.
fn control_what_is_kept_is_seen() {
    let kept = std::sync::Mutex::new(Vec::new());
    let immortal = Context::background().with_cancel();
    let grown = growth(|| {
        let more: Vec<_> = (0..5_000).map(|_| immortal.with_cancel()).collect();
        kept.lock().unwrap().extend(more);
    });
    assert!(grown > FLAT, "{grown} bytes");
}
