//! Promise 5: whatever reads quickly agrees with whatever waits, and no wake-up is lost.

use std::sync::Barrier;
use std::task::Waker;
use std::thread;
use std::time::Duration;

use bequest::{Context, Kind};

use crate::clock::Manual;
use crate::naive::Naive;
use crate::poll::{Wakes, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn is_done_implies_done_is_ready_for_deadlines_too() {
    for _ in 0..300 {
        let clock = Manual::new();
        let scope = Context::with_clock(clock.clone()).with_timeout(SECOND);
        let leaf = scope.with_cancel();
        let start = Barrier::new(3);
        thread::scope(|threads| {
            for seen in [scope.context(), leaf.context()] {
                let start = &start;
                threads.spawn(move || {
                    start.wait();
                    while !seen.is_done() {
                        std::hint::spin_loop();
                    }
                    assert!(poll_once(&mut seen.done()).is_ready());
                    assert!(seen.err().is_some() && seen.check().is_err());
                });
            }
            start.wait();
            clock.advance(SECOND);
        });
    }
}

#[test]
fn no_wake_up_is_lost() {
    for _ in 0..1000 {
        let scope = Context::background().with_cancel();
        let leaf = scope.with_cancel();
        let (wakes, start) = (Wakes::new(), Barrier::new(2));
        thread::scope(|threads| {
            let polled = threads.spawn(|| {
                let mut wait = Box::pin(leaf.context().done_owned());
                start.wait();
                let first = poll_with(&wakes, &mut wait);
                (first.is_ready(), wait)
            });
            start.wait();
            scope.cancel();
            let (was_ready, mut wait) = polled.join().unwrap();
            assert!(was_ready || wakes.count() == 1);
            assert!(poll_once(&mut wait).is_ready());
        });
    }
}

#[test]
fn control_a_tree_that_looks_and_then_registers_loses_a_wake_up() {
    let (node, wakes) = (Naive::default(), Wakes::new());
    let was_ready = node.poll(&Waker::from(wakes.clone()), || node.cancel());
    assert!(node.is_done() && !was_ready);
    assert_eq!(wakes.count(), 0);
}

#[test]
fn threads_that_block_are_all_woken() {
    for _ in 0..100 {
        let clock = Manual::new();
        let scope = Context::with_clock(clock.clone()).with_timeout(SECOND);
        let leaf = scope.with_cancel();
        thread::scope(|threads| {
            let one = threads.spawn(|| scope.wait());
            let two = threads.spawn(|| leaf.wait());
            let three = threads.spawn(|| leaf.wait_timeout(5 * SECOND).unwrap());
            clock.advance(SECOND);
            for waited in [one, two, three] {
                assert_eq!(waited.join().unwrap(), Kind::DeadlineExceeded);
            }
        });
    }
}

#[test]
fn wait_timeout_ends_with_its_limit() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_cancel();
    assert!(scope.wait_timeout(Duration::ZERO).is_none());
    thread::scope(|threads| {
        let waiting = threads.spawn(|| scope.wait_timeout(SECOND));
        while !waiting.is_finished() {
            clock.advance(SECOND);
            thread::yield_now();
        }
        assert!(waiting.join().unwrap().is_none());
    });
    scope.cancel();
    assert_eq!(scope.wait_timeout(Duration::ZERO).unwrap(), Kind::Canceled);
    assert_eq!(scope.wait_timeout(Duration::MAX).unwrap(), Kind::Canceled);
}

#[test]
fn only_the_last_waker_of_a_wait_is_woken() {
    let scope = Context::background().with_cancel();
    let (first, last) = (Wakes::new(), Wakes::new());
    let mut wait = scope.done();
    for wakes in [&first, &first, &last] {
        assert!(poll_with(wakes, &mut wait).is_pending());
    }
    let mut withdrawn = scope.done();
    assert!(poll_with(&first, &mut withdrawn).is_pending());
    drop(withdrawn);
    scope.cancel();
    assert_eq!((first.count(), last.count()), (0, 1));
}

#[test]
fn the_background_never_wakes() {
    let wakes = Wakes::new();
    for ctx in [Context::background(), Context::todo()] {
        assert!(poll_with(&wakes, &mut ctx.done()).is_pending());
        assert!(poll_with(&wakes, &mut ctx.clone().done_owned()).is_pending());
    }
    assert_eq!(wakes.count(), 0);
}
