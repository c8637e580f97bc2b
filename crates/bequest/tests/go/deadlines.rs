//! 1b: deadlines.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use bequest::clock::Clock;
use bequest::{Context, Kind, Reason, inspect};

use crate::clock::Manual;
use crate::poll::poll_once;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c20_the_earlier_of_own_and_parents_deadline() {
    let clock = Manual::new();
    let start = clock.now();
    let parent = Context::with_clock(clock.clone()).with_deadline(start + 5 * SECOND);
    let sooner = parent.with_deadline(start + 3 * SECOND);
    let later = parent.with_deadline(start + 9 * SECOND);
    assert_eq!(sooner.deadline(), Some(start + 3 * SECOND));
    assert_eq!(later.deadline(), Some(start + 5 * SECOND));
    assert_eq!(later.remaining(), Some(5 * SECOND));
    clock.advance(3 * SECOND);
    assert!(sooner.is_done() && !parent.is_done() && !later.is_done());
    clock.advance(2 * SECOND);
    assert!(later.err().unwrap().is_from(&parent));
}

#[test]
fn c20_a_later_deadline_has_no_timer() {
    let clock = Manual::new();
    let parent = Context::with_clock(clock.clone()).with_timeout(SECOND);
    assert!(!parent.is_done());
    assert_eq!(clock.asked(), 1);
    for after in [SECOND, 2 * SECOND, Duration::MAX] {
        let child = parent.with_timeout(after);
        assert!(poll_once(&mut child.done()).is_pending());
    }
    assert_eq!(clock.asked(), 1, "equal and later ones rely on the parent's");
}

#[test]
fn c21_past_now_zero_and_negative_deadlines() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let scopes = [
        root.with_deadline(clock.now() - SECOND),
        root.with_deadline(clock.now()),
        root.with_timeout(Duration::ZERO),
        root.with_deadline(clock.wall() - 3600 * SECOND),
        root.with_deadline(SystemTime::UNIX_EPOCH),
    ];
    for scope in &scopes {
        let end = scope.err().unwrap();
        assert_eq!(end, Kind::DeadlineExceeded);
        assert!(end.is_from(scope));
    }
}

#[test]
fn c21_an_ended_parent_wins_over_a_past_deadline() {
    let parent = Context::background().with_cancel();
    parent.cancel_with("gone");
    let child = parent.with_timeout(Duration::ZERO);
    assert_eq!(child.err().unwrap(), Kind::Canceled);
    assert_eq!(child.err().unwrap().cause().unwrap().to_string(), "gone");
}

#[test]
fn c22_the_first_event_wins_for_ever() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let cancelled = root.with_timeout(SECOND);
    let expired = root.with_timeout(SECOND);
    assert!(!cancelled.is_done() && !expired.is_done());
    cancelled.cancel();
    clock.advance(SECOND);
    expired.cancel();
    clock.advance(SECOND);
    assert_eq!(cancelled.err().unwrap(), Kind::Canceled);
    assert_eq!(expired.err().unwrap(), Kind::DeadlineExceeded);
}

#[test]
fn c22_a_deadline_that_nobody_looked_at_was_still_first() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let (asked_before, never_asked) = (root.with_timeout(SECOND), root.with_timeout(SECOND));
    assert!(!asked_before.is_done());
    clock.advance_in_silence(2 * SECOND);
    for scope in [&asked_before, &never_asked] {
        scope.cancel_with("too late");
        assert_eq!(scope.err().unwrap(), Kind::DeadlineExceeded);
        assert!(scope.err().unwrap().cause().is_none());
    }
}

#[test]
fn c23_a_deadline_is_a_timeout_to_network_code() {
    let end = Context::background().with_timeout(Duration::ZERO).err().unwrap();
    assert!(end.is_timeout());
    let error = io::Error::from(end);
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<bequest::Canceled>());
    assert_eq!(inner.unwrap().reason(), Reason::Deadline);

    let scope = Context::background().with_cancel();
    scope.cancel();
    let end = scope.err().unwrap();
    assert!(!end.is_timeout());
    assert!(Error::source(&end).is_none());
    assert_eq!(io::Error::from(end).kind(), io::ErrorKind::Other);
}

#[test]
fn c24_a_deadline_never_fires_early() {
    for micros in [0, 1, 50, 300, 1000, 2500] {
        for _ in 0..20 {
            let scope = Context::background().with_timeout(Duration::from_micros(micros));
            let at = scope.deadline().unwrap();
            let end = scope.wait();
            assert!(Instant::now() >= at);
            assert!(end.at().unwrap() >= at);
        }
    }
}

#[test]
fn c24_a_wall_clock_deadline_is_converted_once() {
    let clock = Manual::new();
    let start = clock.now();
    let root = Context::with_clock(clock.clone());
    let scope = root.with_deadline(clock.wall() + 10 * SECOND);
    assert_eq!(scope.deadline(), Some(start + 10 * SECOND));
    clock.step_wall(3600 * SECOND);
    assert!(!scope.is_done(), "later steps of the wall clock are not followed");
    clock.advance(10 * SECOND);
    assert_eq!(scope.err().unwrap(), Kind::DeadlineExceeded);
}

#[test]
fn c25_a_timer_is_dropped_on_cancel() {
    let root = Context::with_clock(Manual::new());
    let scope = root.with_timeout(SECOND);
    assert!(!scope.is_done());
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 1);
    scope.cancel();
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
}

#[test]
fn c26_on_a_test_clock_deadlines_are_exact() {
    let clock = Manual::new();
    let start = clock.now();
    let root = Context::with_clock(clock.clone());
    let scopes: Vec<_> = (1..=100)
        .rev()
        .map(|number| root.with_timeout(number * SECOND))
        .collect();
    assert!(scopes.iter().all(|scope| !scope.is_done()));
    clock.advance(1000 * SECOND);
    for scope in &scopes {
        assert_eq!(
            scope.err().unwrap().at(),
            scope.deadline(),
            "noticed at that very instant"
        );
    }
    assert_eq!(clock.now(), start + 1000 * SECOND);
}
