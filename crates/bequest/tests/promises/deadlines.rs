//! Promises 6 and 9: a budget is never infinite by accident, and no timer is armed until somebody looks.

use std::time::{Duration, Instant, SystemTime};

use bequest::clock::Clock;
use bequest::{CancelScope, Context, Kind, Reason, inspect};

use crate::clock::Manual;
use crate::poll::poll_once;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_look_at_a_passed_deadline_ends_it() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let looks: [fn(&Context) -> bool; 8] = [
        |ctx| ctx.is_done(),
        |ctx| ctx.check().is_err(),
        |ctx| ctx.err().is_some(),
        |ctx| poll_once(&mut ctx.done()).is_ready(),
        |ctx| ctx.wait() == Kind::DeadlineExceeded,
        |ctx| ctx.with_cancel().is_done(),
        |ctx| Context::any([ctx]).is_done(),
        |ctx| !ctx.after_func(|_| {}).stop(),
    ];
    for look in looks {
        let scope = root.with_timeout(SECOND).caused_by("slow");
        clock.advance_in_silence(SECOND);
        assert!(look(&scope));
        assert_eq!(scope.err().unwrap().cause().unwrap().to_string(), "slow");
    }
    assert_eq!(clock.asked(), 0, "and no timer was needed");
}

#[test]
fn no_timer_until_somebody_looks() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let looks: [fn(&Context); 6] = [
        |ctx| assert!(!ctx.is_done()),
        |ctx| assert!(poll_once(&mut ctx.done()).is_pending()),
        |ctx| drop(ctx.after_func(|_| {})),
        |ctx| drop(ctx.with_cancel()),
        |ctx| drop(Context::any([ctx])),
        |ctx| drop(ctx.with_timeout(9 * SECOND)),
    ];
    for look in looks {
        let scope = root.with_timeout(SECOND);
        let _unlooked = (
            scope.deadline(),
            scope.remaining(),
            scope.clone(),
            format!("{scope:?}"),
        );
        let _nearer = scope.with_timeout(SECOND / 2);
        assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
        look(&scope);
        assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 1);
        look(&scope);
        assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 1, "once");
        drop(scope);
    }
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
}

#[test]
fn a_passed_deadline_below_keeps_its_own_end() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone()).with_cancel();
    let step = root.with_timeout(SECOND).caused_by("step slow");
    let (below, beside) = (step.with_cancel(), root.with_cancel());
    clock.advance_in_silence(2 * SECOND);
    root.cancel_for(Reason::ClientGone);
    for scope in [&step, &below] {
        assert_eq!(scope.err().unwrap(), Kind::DeadlineExceeded);
        assert!(scope.err().unwrap().is_from(&step));
    }
    assert_eq!(beside.err().unwrap().reason(), Reason::ClientGone);
}

#[test]
fn a_scope_dropped_after_its_deadline_ended_by_the_deadline() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_timeout(SECOND);
    let seen = scope.context();
    clock.advance_in_silence(SECOND);
    drop(scope);
    assert_eq!(seen.err().unwrap(), Kind::DeadlineExceeded);
}

#[test]
fn an_inherited_deadline_that_has_passed_wins_over_a_later_cancel() {
    let clock = Manual::new();
    let step = Context::with_clock(clock.clone()).with_timeout(SECOND);
    let part = step.with_cancel();
    let piece = part.with_cancel();
    clock.advance_in_silence(2 * SECOND);
    piece.cancel();
    assert!(
        piece.err().unwrap().is_from(&step),
        "the timer is late, the clock is not"
    );
    assert!(step.is_done() && part.is_done());
}

#[tokio::test]
async fn a_sleep_that_was_over_first_is_over() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_cancel();
    let over = scope.sleep(SECOND);
    clock.advance_in_silence(2 * SECOND);
    scope.cancel();
    assert!(over.await.is_ok());
    let late = scope.context().sleep(SECOND).await;
    assert!(late.is_err(), "the context ended before this one began");
}

#[test]
fn a_merged_context_goes_by_the_clock_of_the_first() {
    let clock = Manual::new();
    let (real, virtual_time) = (Context::background(), Context::with_clock(clock.clone()));
    let by_virtual = Context::any([&virtual_time, &real])
        .with_timeout(SECOND)
        .into_context();
    let by_real = Context::any([&real, &virtual_time]);
    let before = by_real.now();
    clock.advance(3600 * SECOND);
    assert_eq!(
        by_virtual.err().unwrap().reason(),
        Reason::ScopeEnded,
        "the merge itself was dropped"
    );
    assert!(by_real.now() < before + 3600 * SECOND);
}

#[test]
fn deadlines_on_different_clocks_are_not_mixed_up() {
    let (ahead, slow) = (Manual::new(), Manual::new());
    let driver = Context::with_clock(ahead.clone()).with_cancel();
    let first = Context::with_clock(slow.clone()).with_cancel();
    let both = Context::any([&first, &driver]);
    let step = both.with_timeout(SECOND);
    assert!(!step.is_done());
    ahead.advance(3600 * SECOND);
    driver.cancel();
    assert_eq!(
        step.err().unwrap(),
        Kind::Canceled,
        "by its own clock there was time left"
    );
}

#[test]
fn remaining_is_exact_and_never_negative() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_timeout(3 * SECOND);
    assert_eq!(scope.remaining(), Some(3 * SECOND));
    clock.advance_in_silence(SECOND);
    assert_eq!(scope.remaining(), Some(2 * SECOND));
    scope.cancel();
    assert_eq!(scope.remaining(), Some(2 * SECOND), "about time alone");
    clock.advance_in_silence(9 * SECOND);
    assert_eq!(scope.remaining(), Some(Duration::ZERO));
}

#[test]
fn no_arithmetic_overflows() {
    let root = Context::background();
    let far = Duration::from_secs(u64::MAX / 2);
    let never: [CancelScope; 4] = [
        root.with_timeout(Duration::MAX),
        root.with_timeout(Duration::from_secs(u64::MAX)),
        root.cleanup(Duration::MAX),
        root.with_timeout(far),
    ];
    for scope in &never {
        assert!(!scope.is_done());
        assert!(scope.deadline().is_none() || scope.remaining().unwrap() > far / 2);
    }
    if let Some(distant) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX as u64)) {
        assert!(!root.with_deadline(distant).is_done());
    }
    if let Some(ancient) = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(i64::MAX as u64)) {
        assert!(root.with_deadline(ancient).is_done());
    }
    if let Some(distant) = Instant::now().checked_add(Duration::from_secs(1 << 62)) {
        let scope = root.with_deadline(distant);
        assert!(
            poll_once(&mut scope.done()).is_pending(),
            "armed without overflow"
        );
    }
    assert!(poll_once(&mut root.sleep(Duration::MAX)).is_pending());
    let mut work = Box::pin(root.timeout(Duration::MAX, std::future::pending::<()>()));
    assert!(poll_once(&mut work).is_pending());
}

#[test]
fn a_limit_beyond_time_takes_the_parents() {
    let clock = Manual::new();
    let parent = Context::with_clock(clock.clone()).with_timeout(SECOND);
    for span in [Duration::MAX, Duration::from_secs(u64::MAX), 2 * SECOND] {
        assert_eq!(parent.with_timeout(span).deadline(), Some(clock.now() + SECOND));
    }
}

#[test]
fn cleanup_ignores_the_end_and_has_a_limit_of_its_own() {
    let clock = Manual::new();
    let request = Context::with_clock(clock.clone()).with_timeout(SECOND);
    clock.advance(SECOND);
    assert!(request.is_done());
    let tidy = request.cleanup(2 * SECOND);
    assert!(tidy.check().is_ok());
    clock.advance(2 * SECOND);
    assert!(tidy.err().unwrap().is_from(&tidy));
}
