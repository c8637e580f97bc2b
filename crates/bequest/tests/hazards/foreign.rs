//! Foreign code that re-enters, in numbers and at odd moments. See `promises/foreign.rs` for each kind by itself.

use std::cell::RefCell;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context, Key, inspect};

use crate::clock::Manual;
use crate::poll::{Wakes, poll_with};

const SECOND: Duration = Duration::from_secs(1);
const HANGS: Duration = Duration::from_secs(30);
/// More than any batch in which wakers might be gathered.
const MANY: usize = 300;

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

/// A waker that drops another wait of the same node, derives, cancels, and arms and disarms a deadline.
struct Meddling {
    ctx: Context,
    scope: CancelScope,
    others: Mutex<Vec<std::pin::Pin<Box<bequest::DoneOwned>>>>,
    woken: AtomicUsize,
}

impl Wake for Meddling {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let other = self.others.lock().unwrap().pop();
        // Withdraws while the news is being told.
        drop(other);
        let child = self.ctx.with_timeout(SECOND);
        assert!(child.is_done(), "it is told after everything below reads as done");
        assert!(self.scope.with_timeout(SECOND).is_done());
        let elsewhere = Context::background().with_timeout(SECOND);
        let _ = elsewhere.is_done();
        self.scope.cancel();
    }
}

#[test]
fn many_wakers_that_withdraw_each_other() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let meddling = Arc::new(Meddling {
            ctx: root.context(),
            scope: root.with_cancel(),
            others: Mutex::new(Vec::new()),
            woken: AtomicUsize::new(0),
        });
        let waker = Waker::from(Arc::clone(&meddling));
        let mut mine = Vec::new();
        for place in 0..MANY {
            let ctx = if place % 3 == 0 {
                meddling.scope.context()
            } else {
                root.context()
            };
            let mut wait = Box::pin(ctx.done_owned());
            assert!(
                wait.as_mut()
                    .poll(&mut TaskContext::from_waker(&waker))
                    .is_pending()
            );
            match place % 2 {
                0 => meddling.others.lock().unwrap().push(wait),
                _ => mine.push(wait),
            }
        }
        root.cancel();
        let woken = meddling.woken.load(Ordering::SeqCst);
        assert!((mine.len()..=MANY).contains(&woken), "{woken} of {MANY}");
        for mut wait in mine {
            assert!(
                wait.as_mut()
                    .poll(&mut TaskContext::from_waker(&waker))
                    .is_ready()
            );
        }
    });
}

#[test]
fn callbacks_that_register_callbacks_and_stop_each_other() {
    without_deadlock(|| {
        let root = Context::background().with_cancel();
        let guards = Arc::new(Mutex::new(Vec::new()));
        let runs = Arc::new(AtomicUsize::new(0));
        let prevented = Arc::new(AtomicUsize::new(0));
        for _ in 0..MANY {
            let (ctx, guards_too) = (root.context(), Arc::clone(&guards));
            let (runs, prevented) = (Arc::clone(&runs), Arc::clone(&prevented));
            let guard = root.after_func(move |_| {
                runs.fetch_add(1, Ordering::SeqCst);
                let other: Option<bequest::AfterFunc> = guards_too.lock().unwrap().pop();
                if other.is_some_and(bequest::AfterFunc::stop) {
                    prevented.fetch_add(1, Ordering::SeqCst);
                }
                // Registered on what has ended: called at once, within this call.
                let again = Arc::clone(&runs);
                drop(ctx.after_func(move |_| {
                    again.fetch_add(MANY, Ordering::SeqCst);
                }));
            });
            guards.lock().unwrap().push(guard);
        }
        root.cancel();
        let first = runs.load(Ordering::SeqCst) % MANY;
        let first = if first == 0 { MANY } else { first };
        assert_eq!(
            first + prevented.load(Ordering::SeqCst),
            MANY,
            "each was called or prevented"
        );
    });
}

/// A payload whose destructor panics.
struct Twice;

impl Drop for Twice {
    fn drop(&mut self) {
        panic!("a payload that panics, on purpose");
    }
}

#[test]
fn a_panic_whose_payload_panics_skips_nobody() {
    let root = Context::background().with_cancel();
    let before = inspect::statistics().panicked_callbacks;
    let calls = Arc::new(AtomicUsize::new(0));
    let guards: Vec<_> = (0..10)
        .map(|number| {
            let calls = Arc::clone(&calls);
            root.after_func(move |_| match number % 2 {
                0 => panic_any(Twice),
                _ => drop(calls.fetch_add(1, Ordering::SeqCst)),
            })
        })
        .collect();
    root.cancel();
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    assert!(inspect::statistics().panicked_callbacks >= before + 5);
    drop(guards);
}

#[test]
fn a_burst_of_deadlines_at_one_instant_lets_others_in() {
    const BURST: usize = 100_000;
    without_deadlock(|| {
        let clock = Manual::new();
        let root = Context::with_clock(clock.clone());
        let burst: Vec<_> = (0..BURST).map(|_| root.with_timeout(SECOND)).collect();
        assert!(burst.iter().all(|scope| !scope.is_done()), "all armed");
        let (wakes, later) = (Wakes::new(), root.with_timeout(2 * SECOND));
        let mut wait = later.done();
        assert!(poll_with(&wakes, &mut wait).is_pending());
        // In the middle of the burst deadlines are armed, disarmed, and seen to have passed.
        let armed = Arc::new(AtomicUsize::new(0));
        let guards: Vec<_> = burst
            .iter()
            .step_by(1000)
            .map(|scope| {
                let (root, armed) = (root.clone(), Arc::clone(&armed));
                scope.after_func(move |_| {
                    let fresh = root.with_timeout(SECOND);
                    assert!(!fresh.is_done());
                    armed.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        clock.advance(SECOND);
        assert!(burst.iter().all(|scope| scope.err().unwrap().is_timeout()));
        assert_eq!(armed.load(Ordering::SeqCst), guards.len());
        assert_eq!(wakes.count(), 0, "not its time");
        clock.advance(SECOND);
        assert_eq!(wakes.count(), 1);
        assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
    });
}

#[test]
fn a_burst_on_the_systems_clock_is_told_to_all() {
    const BURST: usize = 20_000;
    without_deadlock(|| {
        let at = std::time::Instant::now() + Duration::from_millis(50);
        let scopes: Vec<_> = (0..BURST)
            .map(|_| Context::background().with_deadline(at))
            .collect();
        let wakes = Wakes::new();
        let mut waits: Vec<_> = scopes.iter().map(|scope| Box::pin(scope.done())).collect();
        let mut waiting = 0;
        for wait in &mut waits {
            waiting += usize::from(poll_with(&wakes, wait).is_pending());
        }
        for scope in &scopes {
            assert!(scope.wait().is_timeout());
        }
        let began = std::time::Instant::now();
        while wakes.count() < waiting && began.elapsed() < HANGS {
            thread::yield_now();
        }
        assert_eq!(wakes.count(), waiting, "each once");
    });
}

/// Uses contexts as the thread that holds it goes away, when the thread's own storage may be gone already.
struct Late(Option<CancelScope>);

impl Drop for Late {
    fn drop(&mut self) {
        let Some(scope) = self.0.take() else { return };
        let child = scope.with_timeout(SECOND);
        assert!(!child.is_done());
        drop(child);
        let grandchild = scope.with_cancel().with_cancel();
        scope.cancel();
        assert!(grandchild.is_done());
        drop(scope);
    }
}

#[test]
fn contexts_work_while_a_threads_own_storage_is_taken_down() {
    thread_local! {
        static FIRST: RefCell<Late> = const { RefCell::new(Late(None)) };
        static LAST: RefCell<Late> = const { RefCell::new(Late(None)) };
    }
    let root = Context::background().with_cancel();
    for _ in 0..50 {
        let parent = root.context();
        let thread = thread::spawn(move || {
            // One is registered before the thread has ever made a context, one after.
            FIRST.with_borrow_mut(|late| late.0 = Some(parent.with_cancel()));
            drop(parent.with_cancel());
            LAST.with_borrow_mut(|late| late.0 = Some(parent.with_cancel()));
        });
        thread.join().unwrap();
    }
    assert!(!root.is_done());
}

#[test]
fn a_value_that_is_the_last_holder_of_its_parents_scope() {
    static SCOPE: Key<Mutex<Option<CancelScope>>> = Key::new("scope");
    without_deadlock(|| {
        // Dropping the values drops the scope, which cancels the very tree that is being walked.
        let root = Context::background().with_cancel();
        let seen = root.context();
        let child = root.with_cancel();
        let ctx = child.context().with_value(&SCOPE, Mutex::new(Some(root)));
        let guard = child.after_func(move |_| drop(ctx));
        drop(guard);
        assert!(
            seen.is_done(),
            "the dropped callback held the values, and they the scope"
        );
        assert!(child.is_done());
    });
}
