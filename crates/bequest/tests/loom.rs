//! The tree under the model checker: every interleaving of two or three threads, up to a bound on preemptions.
//!
//! Built only with `RUSTFLAGS="--cfg loom"`; `ci/loom.sh` does that. The thread of the system's
//! clock stays outside; deadlines are modelled on a clock that is moved by hand. Each model makes everything anew, so that loom can run it from the start.

#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bequest::clock::{Alarm, Clock};
use bequest::{Context, DoneOwned, Reason};
use loom::thread;

/// Counts wakes. The count is read after the threads were joined, so it is none of loom's business.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(wakes: &Arc<Wakes>, wait: &mut DoneOwned) -> bool {
    let waker = Waker::from(Arc::clone(wakes));
    let mut task = TaskContext::from_waker(&waker);
    matches!(std::pin::Pin::new(wait).poll(&mut task), Poll::Ready(_))
}

#[test]
fn derive_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let (ctx, canceller) = (root.context(), root.canceller());
        let canceling = thread::spawn(move || canceller.cancel_for(Reason::Shutdown));
        let child = ctx.with_cancel();
        let grandchild = child.with_cancel();
        canceling.join().unwrap();
        for context in [&child, &grandchild] {
            assert_eq!(context.err().unwrap().reason(), Reason::Shutdown);
        }
    });
}

#[test]
fn cancel_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let middle = root.with_cancel();
        let leaf = middle.with_cancel();
        let (canceller, below) = (root.canceller(), leaf.context());
        let other = thread::spawn(move || {
            canceller.cancel_with("one");
            assert!(below.is_done(), "each caller's own return is enough");
        });
        root.cancel_with("two");
        assert!(leaf.is_done() && middle.is_done());
        let seen = root.err().unwrap().cause().unwrap().to_string();
        assert_eq!(leaf.err().unwrap().cause().unwrap().to_string(), seen);
        other.join().unwrap();
        assert_eq!(root.err().unwrap().cause().unwrap().to_string(), seen, "for ever");
    });
}

#[test]
fn cancel_above_and_cancel_below() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let middle = root.with_cancel();
        let leaf = middle.with_cancel();
        let (canceller, below) = (middle.canceller(), leaf.context());
        let other = thread::spawn(move || {
            canceller.cancel();
            assert!(below.is_done());
        });
        root.cancel_for(Reason::Shutdown);
        assert!(leaf.is_done());
        other.join().unwrap();
        assert_eq!(leaf.err().unwrap().reason(), middle.err().unwrap().reason());
    });
}

#[test]
fn wait_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let leaf = root.with_cancel();
        let canceller = root.canceller();
        let canceling = thread::spawn(move || canceller.cancel());
        let wakes = Arc::new(Wakes::default());
        let mut wait = leaf.context().done_owned();
        // Once: a second poll would see an end that the first one missed.
        let was_ready = poll(&wakes, &mut wait);
        canceling.join().unwrap();
        assert!(was_ready || wakes.0.load(Ordering::SeqCst) == 1);
        assert!(poll(&wakes, &mut wait));
    });
}

#[test]
fn wait_elsewhere_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let canceller = root.canceller();
        let (first, last) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
        let mut wait = root.context().done_owned();
        assert!(!poll(&first, &mut wait));
        let canceling = thread::spawn(move || canceller.cancel());
        let was_ready = poll(&last, &mut wait);
        canceling.join().unwrap();
        assert!(
            was_ready || last.0.load(Ordering::SeqCst) == 1,
            "the last task to poll is the one to wake"
        );
    });
}

#[test]
fn withdraw_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let canceller = root.canceller();
        let wakes = Arc::new(Wakes::default());
        let (mut kept, mut withdrawn) = (root.context().done_owned(), root.context().done_owned());
        assert!(!poll(&wakes, &mut kept) && !poll(&Arc::default(), &mut withdrawn));
        let canceling = thread::spawn(move || canceller.cancel());
        drop(withdrawn);
        canceling.join().unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn stop_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let canceller = root.canceller();
        let calls = Arc::new(Wakes::default());
        let guard = root.after_func({
            let calls = Arc::clone(&calls);
            move |_| calls.wake()
        });
        let canceling = thread::spawn(move || canceller.cancel());
        let prevented = guard.stop();
        canceling.join().unwrap();
        assert_eq!(calls.0.load(Ordering::SeqCst), usize::from(!prevented));
    });
}

#[test]
fn register_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let canceller = root.canceller();
        let calls = Arc::new(Wakes::default());
        let canceling = thread::spawn(move || canceller.cancel());
        root.after_func({
            let calls = Arc::clone(&calls);
            move |_| calls.wake()
        })
        .detach();
        canceling.join().unwrap();
        assert_eq!(
            calls.0.load(Ordering::SeqCst),
            1,
            "called once, whoever was first"
        );
    });
}

#[test]
fn drop_and_cancel() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let child = root.with_cancel();
        let dropping = thread::spawn(move || drop(child));
        root.cancel();
        dropping.join().unwrap();
        assert!(root.is_done());
    });
}

#[test]
fn drop_and_cancel_two_levels() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let child = root.with_cancel();
        let seen = child.with_cancel().into_context();
        let dropping = thread::spawn(move || drop(child));
        root.cancel();
        assert!(seen.is_done());
        dropping.join().unwrap();
    });
}

/// The walk goes below the one, up again and on to the other, while the way up is taken away.
#[test]
fn drop_below_and_cancel_above_with_a_sibling() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let sibling = root.with_cancel();
        let middle = root.with_cancel();
        let leaf = middle.with_cancel();
        let dropping = thread::spawn(move || drop((leaf, middle)));
        root.cancel_for(Reason::Shutdown);
        assert_eq!(sibling.err().unwrap().reason(), Reason::Shutdown);
        dropping.join().unwrap();
    });
}

/// Two walks meet below a node with two children: each has what the other is waiting for, and neither waits.
#[test]
fn two_walks_below_two_children() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let sibling = root.with_cancel();
        let middle = root.with_cancel();
        let leaf = middle.with_cancel();
        let (canceller, below) = (root.canceller(), [sibling.context(), leaf.context()]);
        let other = thread::spawn(move || {
            canceller.cancel();
            assert!(below.iter().all(Context::is_done));
        });
        root.cancel();
        assert!(sibling.is_done() && leaf.is_done() && middle.is_done());
        other.join().unwrap();
    });
}

#[test]
fn drop_a_relay_and_its_child() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let scope = root.with_cancel();
        let relay = {
            // With a canceller it stays a node of its own.
            drop(scope.canceller());
            scope.into_context()
        };
        let child = relay.with_cancel();
        let dropping = thread::spawn(move || drop(relay));
        drop(child);
        dropping.join().unwrap();
        assert!(!root.is_done());
    });
}

/// Whoever gives up last, the callback that can never run is dropped, and with it the node that it kept.
#[test]
fn give_up_and_give_up_above() {
    loom::model(|| {
        let held = Arc::new(());
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        drop((parent.canceller(), child.canceller()));
        let mine = Arc::clone(&held);
        child.after_func(move |_| drop(mine)).detach();
        let other = thread::spawn(move || drop(child.into_context()));
        drop(parent.into_context());
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    });
}

#[test]
fn derive_and_derive_as_the_list_is_split() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let (ctx, canceller) = (root.context(), root.canceller());
        let other = thread::spawn(move || {
            let (one, two) = (ctx.with_cancel(), ctx.with_cancel());
            assert!(!one.is_done() && !two.is_done());
            drop(one);
            two.into_context()
        });
        let mine = root.with_cancel();
        let theirs = other.join().unwrap();
        canceller.cancel();
        assert!(mine.is_done() && theirs.is_done());
    });
}

#[test]
fn derive_and_cancel_as_the_list_is_split() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let ctx = root.context();
        let canceller = root.canceller();
        let other = thread::spawn(move || ctx.with_cancel().into_context());
        let mine = root.with_cancel();
        canceller.cancel();
        let theirs = other.join().unwrap();
        assert!(mine.is_done() && theirs.is_done());
    });
}

/// A clock that is moved by hand and keeps the alarm that it was asked for.
#[derive(Debug, Default)]
struct Hand {
    /// Seconds from the beginning. Not the model checker's: it orders nothing.
    seconds: AtomicUsize,
    alarm: std::sync::Mutex<Option<Alarm>>,
}

#[derive(Clone, Debug)]
struct HandClock(Arc<Hand>, Instant);

impl Clock for HandClock {
    fn now(&self) -> Instant {
        self.1 + Duration::from_secs(self.0.seconds.load(Ordering::SeqCst) as u64)
    }

    fn wake_at(&self, _at: Instant, alarm: Alarm) {
        *self.0.alarm.lock().unwrap() = Some(alarm);
    }
}

#[test]
fn expire_and_cancel() {
    loom::model(|| {
        let hand = Arc::new(Hand::default());
        let clock = HandClock(Arc::clone(&hand), Instant::now());
        let scope = Context::with_clock(clock).with_timeout(Duration::from_secs(1));
        assert!(!scope.is_done());
        let child = scope.with_cancel();
        let alarm = hand.alarm.lock().unwrap().take().unwrap();
        hand.seconds.store(2, Ordering::SeqCst);
        let ringing = thread::spawn(move || alarm.ring());
        child.cancel();
        assert!(
            child.err().unwrap().is_timeout(),
            "the deadline was first, by the clock"
        );
        ringing.join().unwrap();
        assert!(scope.err().unwrap().is_timeout());
    });
}

#[test]
fn expire_and_drop() {
    loom::model(|| {
        let hand = Arc::new(Hand::default());
        let clock = HandClock(Arc::clone(&hand), Instant::now());
        let scope = Context::with_clock(clock).with_timeout(Duration::from_secs(1));
        assert!(!scope.is_done());
        let alarm = hand.alarm.lock().unwrap().take().unwrap();
        hand.seconds.store(2, Ordering::SeqCst);
        let ringing = thread::spawn(move || alarm.ring());
        drop(scope);
        ringing.join().unwrap();
    });
}

#[test]
fn drop_parent_and_child() {
    loom::model(|| {
        let root = Context::background().with_cancel();
        let parent = root.with_cancel();
        let child = parent.with_cancel();
        let (seen, other) = (child.context(), child.context());
        let dropping = thread::spawn(move || drop((child, other)));
        drop(parent);
        assert!(seen.is_done());
        dropping.join().unwrap();
        drop(seen);
        assert!(!root.is_done());
    });
}

#[test]
fn a_merge_and_both_its_sides() {
    loom::model(|| {
        let sides = [
            Context::background().with_cancel(),
            Context::background().with_cancel(),
        ];
        let both = Context::any(&sides);
        let [one, two] = sides;
        let other = thread::spawn(move || one.cancel_with("one"));
        two.cancel_with("two");
        assert!(both.is_done());
        let first = both.err().unwrap().cause().unwrap().to_string();
        other.join().unwrap();
        assert_eq!(both.err().unwrap().cause().unwrap().to_string(), first);
    });
}

/// Whichever cancel returns, what is below a merge is marked, though a stand-in in the list leads there and not the merge.
#[test]
fn two_cancels_of_one_side_of_a_merge() {
    loom::model(|| {
        let (side, idle) = (
            Context::background().with_cancel(),
            Context::background().with_cancel(),
        );
        let both = Context::any([&side, &idle]);
        let leaf = both.with_cancel();
        let (canceller, below) = (side.canceller(), leaf.context());
        let other = thread::spawn(move || {
            canceller.cancel();
            assert!(below.is_done());
        });
        side.cancel();
        assert!(leaf.is_done() && both.is_done());
        other.join().unwrap();
    });
}

#[test]
fn a_cancel_of_each_side_of_a_merge_and_what_is_below() {
    loom::model(|| {
        let sides = [
            Context::background().with_cancel(),
            Context::background().with_cancel(),
        ];
        let leaf = Context::any(&sides).into_context().with_cancel();
        let ([one, two], below) = (sides, leaf.context());
        let other = thread::spawn(move || {
            one.cancel();
            assert!(below.is_done());
        });
        two.cancel();
        assert!(leaf.is_done());
        other.join().unwrap();
    });
}
