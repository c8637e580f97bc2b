//! Promise 4: nothing foreign runs under a lock, a panic skips nobody, and depth costs no stack.
//!
//! A lock that is held would be a deadlock here, so everything that re-enters runs on a thread that is waited for
//! with a limit.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context, Done, Key, Kind};

use crate::clock::Manual;
use crate::poll::{Wakes, poll_with};

const HANGS: Duration = Duration::from_secs(20);

/// Runs `work` on a thread of its own; fails if it hangs.
fn without_deadlock(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        tell.send(()).unwrap();
    });
    match told.recv_timeout(HANGS) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

/// All that a foreign piece of code may do to a context, but print it: a cause would print itself for ever.
fn meddle(scope: &CancelScope, kept: &Mutex<Vec<CancelScope>>) {
    let _ = (scope.is_done(), scope.err(), scope.remaining());
    let child = scope.with_timeout(Duration::from_secs(60));
    let _ = child.is_done();
    drop(child.after_func(|_| {}));
    drop(child);
    scope.after_func(|_| {}).detach();
    scope.cancel_with("meddling");
    let last = kept.lock().unwrap().pop();
    drop(last);
}

struct Meddler {
    scope: CancelScope,
    kept: Mutex<Vec<CancelScope>>,
    count: AtomicUsize,
}

impl Meddler {
    fn on(parent: &CancelScope) -> Arc<Meddler> {
        let scope = parent.with_cancel();
        let kept = Mutex::new((0..4).map(|_| scope.with_cancel()).collect());
        let count = AtomicUsize::new(0);
        Arc::new(Meddler { scope, kept, count })
    }

    fn meddle(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        meddle(&self.scope, &self.kept);
    }
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.meddle();
    }
}

#[test]
fn a_waker_may_check_derive_cancel_and_drop_the_last_child() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let meddler = Meddler::on(&root);
        let waker = Waker::from(Arc::clone(&meddler));
        let mut waits: Vec<Done<'_>> = vec![root.done(), root.done(), meddler.scope.done()];
        for wait in &mut waits {
            assert!(poll_on(&waker, wait).is_pending());
        }
        root.cancel();
        assert_eq!(meddler.count.load(Ordering::SeqCst), 3);
        assert!(meddler.scope.is_done());
    });
}

#[test]
fn a_waker_may_meddle_as_it_is_replaced_withdrawn_and_dropped() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let (quiet, loud) = (Wakes::new(), Meddler::on(&Context::background().with_cancel()));
        let mut wait = root.done();
        assert!(poll_on(&Waker::from(loud), &mut wait).is_pending());
        // The place now holds the last handle to the loud one; replacing it runs its destructor.
        assert!(poll_with(&quiet, &mut wait).is_pending());
        let loud = Meddler::on(&root);
        assert!(poll_on(&Waker::from(loud), &mut wait).is_pending());
        drop(wait);
        assert!(root.err().is_none() || root.err().unwrap() == Kind::Canceled);
    });
}

fn poll_on(waker: &Waker, wait: &mut Done<'_>) -> Poll<bequest::Canceled> {
    std::pin::Pin::new(wait).poll(&mut TaskContext::from_waker(waker))
}

#[test]
fn a_callback_may_meddle_as_it_runs_and_as_it_is_dropped() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let (runs, stops) = (Meddler::on(&root), Meddler::on(&root));
        let _guard = root.after_func({
            let runs = Arc::clone(&runs);
            move |_| runs.meddle()
        });
        let stopped = root.after_func(move |_| stops.meddle());
        assert!(stopped.stop(), "its destructor meddles");
        root.cancel();
        assert_eq!(runs.count.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_value_may_meddle_as_it_is_dropped() {
    static HELD: Key<Arc<Meddler>> = Key::new("held");
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let meddler = Meddler::on(&root);
        let ctx = root.context().with_value(&HELD, meddler);
        let child = ctx.with_cancel();
        drop(ctx);
        drop(child);
        assert!(!root.is_done(), "a meddler cancels its own scope alone");
        root.cancel();
    });
}

/// A cause that meddles as it is printed and as it is dropped.
struct MeddlingCause(Arc<Meddler>);

impl fmt::Display for MeddlingCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.meddle();
        f.write_str("meddling")
    }
}

impl fmt::Debug for MeddlingCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for MeddlingCause {}

#[test]
fn a_cause_may_meddle_as_it_is_printed_and_dropped() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let scope = root
            .with_timeout(HANGS)
            .caused_by(MeddlingCause(Meddler::on(&root)));
        let scope = scope.caused_by(MeddlingCause(Meddler::on(&root)));
        let leaf = scope.with_cancel();
        scope.cancel_with(MeddlingCause(Meddler::on(&root)));
        assert!(format!("{leaf:?} {:?} {}", leaf.err(), leaf.err().unwrap()).contains("meddling"));
        drop((leaf, scope));
        root.cancel();
    });
}

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics, on purpose");
    }
}

#[test]
fn a_panic_in_a_waker_or_callback_skips_nobody() {
    let root = Context::background().with_cancel();
    let leaf = root.with_cancel();
    let (panicking, wakes) = (Waker::from(Arc::new(Panicking)), Wakes::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let mut guards = Vec::new();
    let mut waits = Vec::new();
    for scope in [&root, &leaf, &root, &leaf] {
        let (mut bad, mut good) = (scope.done(), scope.done());
        assert!(poll_on(&panicking, &mut bad).is_pending());
        assert!(poll_with(&wakes, &mut good).is_pending());
        waits.extend([bad, good]);
        guards.push(scope.after_func(|_| panic!("a callback that panics, on purpose")));
        let calls = Arc::clone(&calls);
        guards.push(scope.after_func(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
        }));
    }
    root.cancel();
    assert_eq!((wakes.count(), calls.load(Ordering::SeqCst)), (4, 4));
    for wait in &mut waits {
        assert!(poll_with(&wakes, wait).is_ready());
    }
}

/// An error whose destructor panics.
#[derive(Debug)]
struct Touchy;

impl fmt::Display for Touchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("touchy")
    }
}

impl Error for Touchy {}

impl Drop for Touchy {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a destructor that panics, on purpose");
        }
    }
}

#[test]
fn a_panic_in_a_causes_destructor_skips_nobody() {
    let root = Context::background().with_cancel();
    // Nothing but its detached callback keeps the touchy one, so the walk that ends it frees it.
    let touchy = root.with_timeout(HANGS).caused_by(Touchy).into_context();
    let (tell, told) = mpsc::channel();
    let tell_too = tell.clone();
    touchy
        .after_func(move |_| tell.send("detached").unwrap())
        .detach();
    drop(touchy);
    let _guard = root.after_func(move |_| tell_too.send("root").unwrap());
    let wakes = Wakes::new();
    let mut wait = root.done();
    assert!(poll_with(&wakes, &mut wait).is_pending());
    let cancelled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| root.cancel()));
    assert!(cancelled.is_err(), "the panic is the caller's to see");
    assert_eq!(wakes.count(), 1);
    assert_eq!(told.try_iter().count(), 2);
}

#[test]
fn a_panic_in_a_causes_destructor_does_not_end_the_timers() {
    // The touchy one is to be freed by the timers. If they come before it is theirs alone, it is freed here, and the panic
    // is this thread's; then they get more time.
    let scope = (0..12)
        .find_map(|doubled| {
            std::panic::catch_unwind(|| touchy_until(Duration::from_millis(1 << doubled))).ok()
        })
        .expect("it is let go of before its deadline");
    assert_eq!(scope.wait(), Kind::DeadlineExceeded);
    let after = Context::background().with_timeout(Duration::from_millis(5));
    let (tell, told) = mpsc::channel();
    let _guard = after.after_func(move |_| tell.send(()).unwrap());
    assert!(
        told.recv_timeout(HANGS).is_ok(),
        "the thread of the timers lives on"
    );
}

/// A scope with a touchy child that nothing but its detached callback keeps.
fn touchy_until(deadline: Duration) -> CancelScope {
    let scope = Context::background().with_timeout(deadline);
    let touchy = scope.with_cancel().caused_by(Touchy);
    // With a canceller it is a node of its own.
    drop(touchy.canceller());
    let touchy = touchy.into_context();
    touchy.after_func(|_| {}).detach();
    drop(touchy);
    scope
}

#[test]
fn a_panic_on_a_test_clock_skips_no_deadline() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let scopes: Vec<_> = (1..=10)
        .map(|number| root.with_timeout(Duration::from_secs(number)))
        .collect();
    let _guards: Vec<_> = scopes
        .iter()
        .map(|scope| scope.after_func(|_| panic!("a callback that panics, on purpose")))
        .collect();
    clock.advance(Duration::from_secs(10));
    assert!(scopes.iter().all(|scope| scope.err().is_some()));
}

#[test]
fn a_million_deep_chain_is_dropped_on_a_small_stack() {
    let deep = || {
        let root = Context::background().with_cancel();
        let mut leaf = root.context();
        for _ in 0..1_000_000 {
            let scope = leaf.with_cancel();
            // A canceller was made, so the scope may not be taken for its parent; then only the child holds it.
            drop(scope.canceller());
            leaf = scope.into_context();
        }
        drop(leaf);
        assert!(!root.is_done());
    };
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(deep);
    thread.unwrap().join().unwrap();
}

#[test]
fn control_a_recursive_chain_needs_a_stack() {
    /// What a derived destructor would do: one frame per level.
    fn depth_reached(level: usize, limit: usize, lowest: &mut usize) {
        let mark = 0_u8;
        *lowest = std::ptr::from_ref(&mark).addr();
        if level < limit {
            depth_reached(level + 1, limit, lowest);
        }
    }
    let (top, mut lowest) = (0_u8, 0);
    depth_reached(0, 100, &mut lowest);
    let per_level = (std::ptr::from_ref(&top).addr().abs_diff(lowest)) / 100;
    assert!(per_level * 1_000_000 > 256 << 10);
}
