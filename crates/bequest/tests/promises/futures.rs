//! The futures: who wins a tie, what is never polled, and whose limit it was.

use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bequest::{Context, Kind, Reason};

use crate::clock::Manual;
use crate::drops::Drops;
use crate::poll::{Wakes, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);

/// Work that is pending once, and then finished.
fn second_time() -> impl Future<Output = u32> {
    let mut polled = false;
    poll_fn(move |_| match std::mem::replace(&mut polled, true) {
        false => Poll::Pending,
        true => Poll::Ready(7),
    })
}

#[test]
fn finished_work_wins_a_tie() {
    let scope = Context::background().with_cancel();
    let (mut run, mut owned) = (
        pin!(scope.run(second_time())),
        pin!(scope.context().run_owned(second_time())),
    );
    assert!(poll_once(&mut run).is_pending() && poll_once(&mut owned).is_pending());
    scope.cancel();
    assert!(matches!(poll_once(&mut run), Poll::Ready(Ok(7))));
    assert!(matches!(poll_once(&mut owned), Poll::Ready(Ok(7))));
}

#[test]
fn work_is_never_polled_if_the_context_had_ended() {
    let scope = Context::background().with_cancel();
    let untouchable = || poll_fn(|_| -> Poll<()> { unreachable!("polled after the end") });
    let mut made_before = pin!(scope.run(untouchable()));
    scope.cancel();
    let mut made_after = pin!(scope.context().run_owned(untouchable()));
    let mut limited = pin!(scope.timeout(SECOND, untouchable()));
    for _ in 0..2 {
        assert!(matches!(poll_once(&mut made_before), Poll::Ready(Err(_))));
        assert!(matches!(poll_once(&mut made_after), Poll::Ready(Err(_))));
        assert!(matches!(poll_once(&mut limited), Poll::Ready(Err(_))));
    }
}

#[test]
fn an_end_wakes_the_task_and_drops_nothing_by_itself() {
    let (scope, wakes, drops) = (
        Context::background().with_cancel(),
        Wakes::new(),
        Drops::default(),
    );
    let token = drops.token();
    let mut run = Box::pin(scope.context().run_owned(async move {
        let _held = token;
        pending::<()>().await;
    }));
    assert!(poll_with(&wakes, &mut run).is_pending());
    scope.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_with(&wakes, &mut run), Poll::Ready(Err(_))));
    assert_eq!(drops.count(), 0, "the work goes with the future");
    drop(run);
    assert_eq!(drops.count(), 1);
}

#[test]
fn finished_work_is_not_polled_again() {
    let root = Context::background();
    let mut run = pin!(root.run(ready(1)));
    assert!(poll_once(&mut run).is_ready());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut run))).is_err());
}

#[test]
fn a_timeouts_own_limit_is_told_from_the_outer_end() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());

    let request = root.with_cancel();
    let mut own = pin!(request.timeout(SECOND, pending::<()>()));
    let wakes = Wakes::new();
    assert!(poll_with(&wakes, &mut own).is_pending());
    clock.advance(SECOND);
    assert_eq!(wakes.count(), 1);
    assert_eq!(end_of(poll_once(&mut own)), Kind::DeadlineExceeded);
    assert!(!request.is_done(), "so the limit was its own");

    let mut outer = pin!(request.timeout(SECOND, pending::<()>()));
    let wakes = Wakes::new();
    assert!(poll_with(&wakes, &mut outer).is_pending());
    request.cancel_for(Reason::ClientGone);
    assert_eq!(wakes.count(), 1);
    assert_eq!(end_of(poll_once(&mut outer)).reason(), Reason::ClientGone);
}

#[test]
fn a_timeout_reports_what_came_first_though_both_have() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    for armed in [false, true] {
        let request = root.with_cancel();
        let mut timeout = pin!(request.timeout(2 * SECOND, pending::<()>()));
        if armed {
            assert!(poll_once(&mut timeout).is_pending());
        }
        clock.advance(SECOND);
        request.cancel_for(Reason::ClientGone);
        clock.advance(5 * SECOND);
        assert_eq!(
            end_of(poll_once(&mut timeout)).reason(),
            Reason::ClientGone,
            "the outer end was first"
        );
    }
    let request = root.with_cancel();
    let mut timeout = pin!(request.timeout(SECOND, pending::<()>()));
    assert!(poll_once(&mut timeout).is_pending());
    clock.advance(2 * SECOND);
    request.cancel_for(Reason::ClientGone);
    assert_eq!(
        end_of(poll_once(&mut timeout)),
        Kind::DeadlineExceeded,
        "the limit was first"
    );
}

#[test]
fn an_equal_or_earlier_outer_deadline_is_the_contexts() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    for limit in [SECOND, 2 * SECOND] {
        let request = root.with_timeout(SECOND);
        let mut timeout = pin!(request.timeout(limit, pending::<()>()));
        assert!(poll_once(&mut timeout).is_pending());
        clock.advance(SECOND);
        assert!(end_of(poll_once(&mut timeout)).is_from(&request));
    }
}

#[test]
fn work_that_is_ready_wins_over_a_limit_of_zero() {
    let root = Context::background();
    assert!(matches!(
        poll_once(&mut pin!(root.timeout(Duration::ZERO, ready(1)))),
        Poll::Ready(Ok(1))
    ));
    let mut pending = pin!(root.timeout(Duration::ZERO, pending::<()>()));
    assert_eq!(end_of(poll_once(&mut pending)), Kind::DeadlineExceeded);
}

#[test]
fn the_time_of_a_timeout_runs_from_the_call() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let mut timeout = pin!(root.timeout(SECOND, pending::<()>()));
    clock.advance(SECOND);
    assert!(poll_once(&mut timeout).is_ready());
}

#[test]
fn sleep_ends_with_its_time_or_its_context() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_timeout(5 * SECOND);
    let (mut short, mut long) = (scope.sleep(2 * SECOND), scope.sleep(9 * SECOND));
    let wakes = Wakes::new();
    assert!(poll_with(&wakes, &mut short).is_pending() && poll_with(&wakes, &mut long).is_pending());
    clock.advance(2 * SECOND);
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_once(&mut short), Poll::Ready(Ok(()))));
    let wakes = Wakes::new();
    assert!(poll_with(&wakes, &mut long).is_pending());
    clock.advance(3 * SECOND);
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_once(&mut long), Poll::Ready(Err(end)) if end.is_from(&scope)));
    assert!(matches!(
        poll_once(&mut scope.sleep(Duration::ZERO)),
        Poll::Ready(Err(_))
    ));
    assert!(matches!(
        poll_once(&mut Context::background().sleep(Duration::ZERO)),
        Poll::Ready(Ok(()))
    ));
}

#[test]
fn owned_forms_can_be_sent_away() {
    let scope = Context::background().with_cancel();
    let (ctx, done) = (scope.context(), scope.context().done_owned());
    let thread = std::thread::spawn(move || {
        let mut done = done;
        let end = ctx.wait();
        assert!(poll_once(&mut done).is_ready());
        end
    });
    scope.cancel();
    assert_eq!(thread.join().unwrap(), Kind::Canceled);
}

fn end_of<T: std::fmt::Debug>(poll: Poll<Result<T, bequest::Canceled>>) -> bequest::Canceled {
    match poll {
        Poll::Ready(answer) => answer.unwrap_err(),
        Poll::Pending => panic!("still pending"),
    }
}
