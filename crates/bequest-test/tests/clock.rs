//! The clock, the bubble and the hand-polled task: what they promise beyond their examples.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bequest::clock::Alarm;
use bequest::{Context, Kind};
use bequest_test::{Bubble, Clock, WakeCounter, task};

const SECOND: Duration = Duration::from_secs(1);
/// When a test that waits for another thread gives up.
const HANGS: Duration = Duration::from_secs(20);

#[test]
fn what_is_due_is_done_in_order_of_time_and_then_of_asking() {
    let clock = Clock::new();
    let (tell, told) = channel();
    for (name, after) in [("c", 3), ("a", 1), ("d", 3), ("b", 2)] {
        let (tell, at) = (tell.clone(), clock.clone());
        clock.schedule(after * SECOND, move || tell.send((name, at.elapsed())).unwrap());
    }
    clock.advance(2 * SECOND);
    clock.advance(SECOND);
    let seen: Vec<_> = told.try_iter().collect();
    assert_eq!(
        seen,
        [
            ("a", SECOND),
            ("b", 2 * SECOND),
            ("c", 3 * SECOND),
            ("d", 3 * SECOND)
        ]
    );
}

/// Negative control: a clock that jumps to the end and rings then shows everybody the end.
#[test]
fn control_a_clock_that_jumps_shows_the_wrong_instant() {
    #[derive(Clone, Debug)]
    struct Jumping(Arc<std::sync::Mutex<(Instant, Vec<Alarm>)>>);
    impl bequest::clock::Clock for Jumping {
        fn now(&self) -> Instant {
            self.0.lock().unwrap().0
        }
        fn wake_at(&self, _at: Instant, alarm: Alarm) {
            self.0.lock().unwrap().1.push(alarm);
        }
    }
    let start = Instant::now();
    let clock = Jumping(Arc::new(std::sync::Mutex::new((start, Vec::new()))));
    let scope = Context::with_clock(clock.clone()).with_timeout(SECOND);
    assert!(!scope.is_done());
    let alarms = {
        let mut state = clock.0.lock().unwrap();
        state.0 += HANGS;
        std::mem::take(&mut state.1)
    };
    alarms.iter().for_each(Alarm::ring);
    assert_eq!(scope.err().unwrap().at(), Some(start + HANGS));

    let clock = Clock::new();
    let scope = clock.context().with_timeout(SECOND);
    assert!(!scope.is_done());
    clock.advance(HANGS);
    let end = scope.err().unwrap();
    assert_eq!(end.at().map(|at| clock.now() - at), Some(HANGS - SECOND));
}

#[test]
fn calls_may_use_the_clock_that_makes_them() {
    let clock = Clock::new();
    let (tell, told) = channel();
    let inner = clock.clone();
    clock.schedule(SECOND, move || {
        let (again, at) = (tell.clone(), inner.clone());
        inner.schedule(SECOND, move || again.send(at.elapsed()).unwrap());
        // Within an advance, and beyond where the outer one is to stop.
        inner.advance(5 * SECOND);
        tell.send(inner.elapsed()).unwrap();
    });
    clock.advance(3 * SECOND);
    assert_eq!(
        told.try_iter().collect::<Vec<_>>(),
        [2 * SECOND, 6 * SECOND],
        "the nested advance makes the call that falls into it"
    );
    assert_eq!(clock.elapsed(), 6 * SECOND, "time does not go back");
}

#[test]
fn a_callback_that_derives_and_advances_sees_its_own_deadline() {
    let clock = Clock::new();
    let ctx = clock.context();
    let (tell, told) = channel();
    let outer = ctx.with_timeout(SECOND);
    let (at, root) = (clock.clone(), ctx.clone());
    outer
        .after_func(move |_| {
            let inner = root.with_timeout(SECOND);
            assert!(!inner.is_done());
            at.advance(SECOND);
            tell.send(inner.err().map(|end| end.kind())).unwrap();
        })
        .detach();
    clock.advance(SECOND);
    assert_eq!(told.try_recv(), Ok(Some(Kind::DeadlineExceeded)));
    assert_eq!(clock.elapsed(), 2 * SECOND);
}

#[test]
fn a_callback_that_advances_sees_the_deadlines_on_the_way() {
    let clock = Clock::new();
    let ctx = clock.context();
    let (tell, told) = channel();
    let (first, second) = (ctx.with_timeout(SECOND), ctx.with_timeout(2 * SECOND));
    assert!(!first.is_done() && !second.is_done());
    let (at, seen) = (clock.clone(), second.context());
    first
        .after_func(move |_| {
            at.advance(5 * SECOND);
            tell.send(seen.err().and_then(|end| end.at())).unwrap();
        })
        .detach();
    let start = clock.now();
    clock.advance(SECOND);
    assert_eq!(told.try_recv(), Ok(Some(start + 2 * SECOND)));
}

#[test]
fn a_panic_in_a_call_leaves_the_clock_whole() {
    let clock = Clock::new();
    clock.schedule(SECOND, || panic!("as planned"));
    let scope = clock.context().with_timeout(2 * SECOND);
    assert!(!scope.is_done());
    assert!(catch_unwind(AssertUnwindSafe(|| clock.advance(3 * SECOND))).is_err());
    assert_eq!(clock.elapsed(), SECOND, "it stands where the call was made");
    assert!(!scope.is_done());
    clock.advance(SECOND);
    assert!(scope.is_done());
}

/// The clock is moved between the look at a deadline and the asking for its alarm, as another thread may do.
#[test]
fn an_alarm_for_an_instant_that_has_passed_is_rung() {
    #[derive(Debug)]
    struct MovedMeanwhile(Clock);
    impl bequest::clock::Clock for MovedMeanwhile {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn wake_at(&self, at: Instant, alarm: Alarm) {
            self.0.advance(SECOND);
            bequest::clock::Clock::wake_at(&self.0, at, alarm);
        }
    }
    let scope = Context::with_clock(MovedMeanwhile(Clock::new())).with_timeout(SECOND);
    let (done, told) = channel();
    let waiter = thread::spawn(move || done.send(scope.wait().kind()).unwrap());
    assert_eq!(told.recv_timeout(HANGS), Ok(Kind::DeadlineExceeded));
    waiter.join().unwrap();
}

/// Two threads race: one arms deadlines, the other moves the clock past them. Whoever is first, nobody waits for ever.
#[test]
fn no_alarm_is_lost_to_a_clock_that_is_moved_meanwhile() {
    for _ in 0..500 {
        let clock = Clock::new();
        let ctx = clock.context();
        let start = Arc::new(Barrier::new(2));
        let (done, told) = channel();
        let waiting = Arc::clone(&start);
        let waiter = thread::spawn(move || {
            let scope = ctx.with_timeout(SECOND);
            waiting.wait();
            done.send(scope.wait().kind()).unwrap();
        });
        start.wait();
        clock.advance(SECOND);
        assert_eq!(told.recv_timeout(HANGS), Ok(Kind::DeadlineExceeded));
        waiter.join().unwrap();
    }
}

#[test]
fn a_step_of_the_wall_clock_moves_no_deadline() {
    let clock = Clock::new();
    let scope = clock.context().with_deadline(clock.wall() + SECOND);
    clock.set_wall(SystemTime::UNIX_EPOCH);
    assert_eq!(scope.remaining(), Some(SECOND));
    clock.advance(SECOND);
    assert!(scope.is_done());
    assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + SECOND);
}

#[test]
fn a_bubble_waits_for_what_its_tasks_spawn() {
    let bubble = Bubble::new();
    let ctx = bubble.context();
    let finished = Rc::new(Cell::new(0));
    let (inside, count) = (bubble.clone(), Rc::clone(&finished));
    bubble.run(async {
        let sleeper = ctx.clone();
        let outer = Rc::clone(&count);
        let again = inside.clone();
        inside.spawn(async move {
            sleeper.sleep(SECOND).await.unwrap();
            outer.set(outer.get() + 1);
            let inner = Rc::clone(&outer);
            again.spawn(async move {
                sleeper.sleep(SECOND).await.unwrap();
                inner.set(inner.get() + 1);
            });
        });
    });
    assert_eq!(finished.get(), 2);
    assert_eq!(bubble.clock().elapsed(), 2 * SECOND);
}

#[test]
fn a_task_is_polled_with_one_waker_and_counts_every_wake() {
    let scope = Context::background().with_cancel();
    let mut both = task(async {
        let (first, second) = (scope.done(), scope.done());
        let mut first = std::pin::pin!(first);
        let mut second = std::pin::pin!(second);
        std::future::poll_fn(|cx| first.as_mut().poll(cx)).await;
        std::future::poll_fn(|cx| second.as_mut().poll(cx)).await
    });
    both.assert_pending();
    assert!(both.waker().is_held());
    scope.cancel();
    assert_eq!(both.wakes(), 1);
    assert_eq!(both.assert_ready(), Kind::Canceled);
    assert!(!both.is_woken());
    drop(both);
}

#[test]
fn a_waker_is_counted_from_any_thread() {
    let counter = WakeCounter::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let waker = counter.waker();
            thread::spawn(move || (0..100).for_each(|_| waker.wake_by_ref()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(counter.wakes(), 400);
    assert!(!counter.is_held());
}
