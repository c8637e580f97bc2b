//! The leak check: it finds each kind of leftover, names it, and finds nothing where nothing is.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_test::{Clock, Leak, task};

const SECOND: Duration = Duration::from_secs(1);
const AT_ONCE: Duration = Duration::ZERO;
/// When a test that waits for another thread gives up.
const HANGS: Duration = Duration::from_secs(20);

/// What the check says of a watch on which something was left over.
fn complaint(leak: Leak) -> String {
    let refusal: Box<dyn Any + Send> =
        catch_unwind(AssertUnwindSafe(|| leak.assert_none_within(AT_ONCE))).unwrap_err();
    *refusal.downcast::<String>().unwrap()
}

#[test]
fn everything_that_ends_is_nothing_left() {
    let clock = Clock::new();
    let leak = Leak::watch_on(clock.clone());
    let ctx = leak.context();
    {
        let deep = (0..100).fold(ctx.with_timeout(SECOND), |scope, _| scope.with_cancel());
        let any = Context::any([&ctx.with_cancel(), &deep]);
        let _tidy = any.cleanup(SECOND);
        let _life = any.without_cancel().with_timeout(SECOND);
        let (tell, told) = channel();
        any.after_func(move |_| tell.send(()).unwrap()).detach();
        let _stopped = any.after_func(|_| {}).stop();
        let mut waiting = task(ctx.timeout(SECOND, std::future::pending::<()>()));
        waiting.assert_pending();
        clock.advance(SECOND);
        assert!(waiting.poll().is_ready());
        assert!(told.try_recv().is_ok());
    }
    assert!(leak.left().is_none(), "{}", leak.left());
    leak.assert_none();
}

#[test]
fn a_scope_that_is_kept_is_found_with_its_name_and_its_line() {
    let leak = Leak::watch();
    let kept = leak.context().with_cancel().named("kept");
    let line = line!() - 1;
    let complaint = complaint(leak);
    assert!(complaint.contains("1 contexts, 0 armed timers"), "{complaint}");
    assert!(complaint.contains("kept"), "{complaint}");
    assert!(complaint.contains(&format!("leak.rs:{line}:")), "{complaint}");
    drop(kept);
}

#[test]
fn an_ended_scope_that_is_kept_is_found() {
    let leak = Leak::watch();
    let kept = leak.context().with_cancel();
    kept.cancel();
    assert!(complaint(leak).contains("ended, held 1 times"));
}

#[test]
fn what_has_no_parent_is_found_all_the_same() {
    for orphan in [
        |ctx: &Context| ctx.with_cancel().cleanup(SECOND),
        |ctx: &Context| ctx.with_cancel().without_cancel().with_cancel(),
    ] {
        let leak = Leak::watch();
        let kept = orphan(leak.context());
        assert!(complaint(leak).contains("live, held 1 times"));
        drop(kept);
    }
}

#[test]
fn a_detached_callback_is_found() {
    let leak = Leak::watch();
    let scope = leak.context().with_cancel();
    let canceller = scope.canceller();
    scope.after_func(|_| {}).detach();
    drop(scope.into_context());
    assert!(complaint(leak).contains("1 wait on it"), "it may still be called");
    drop(canceller);
}

#[test]
fn an_armed_timer_is_found() {
    let leak = Leak::watch_on(Clock::new());
    let root = leak.context();
    let mut asleep = task(root.sleep(SECOND));
    asleep.assert_pending();
    let left = leak.left();
    assert_eq!((left.contexts.len(), left.timers, left.waiting), (0, 1, 1));
    drop(asleep);
    leak.assert_none();
}

#[test]
fn a_clone_of_the_root_is_found() {
    let leak = Leak::watch();
    let kept = leak.context().clone();
    // A list that another test takes at this instant holds every context for a moment.
    let start = Instant::now();
    while leak.left().handles != 1 {
        assert!(start.elapsed() < HANGS, "{}", leak.left());
    }
    assert!(complaint(leak).contains("1 clones"));
    drop(kept);
}

#[test]
fn two_watches_do_not_see_each_other() {
    let (first, second) = (Leak::watch(), Leak::watch());
    let kept = second.context().with_cancel();
    first.assert_none();
    drop(kept);
    second.assert_none();
}

#[test]
fn a_watch_on_the_systems_time_lets_deadlines_pass() {
    let leak = Leak::watch();
    let scope = leak.context().with_timeout(Duration::from_millis(1));
    let (tell, told) = channel();
    scope.after_func(move |end| tell.send(end).unwrap()).detach();
    assert!(told.recv_timeout(HANGS).unwrap().is_timeout());
    drop(scope);
    leak.assert_none();
}

#[test]
fn what_another_thread_is_about_to_drop_is_waited_for() {
    let leak = Leak::watch();
    let scope = leak.context().with_cancel();
    let (tell, told) = channel::<()>();
    let holder = thread::spawn(move || {
        assert!(told.recv().is_err(), "the sender is dropped");
        drop(scope);
    });
    assert!(!leak.left().is_none());
    drop(tell);
    leak.assert_none_within(HANGS);
    holder.join().unwrap();
}

/// Negative control: the count that the runtime of a language without owners could give, that of live contexts before
/// and after, is disturbed by whatever else the process does.
#[test]
fn control_counting_in_the_whole_process_is_disturbed() {
    let leak = Leak::watch();
    let before = bequest::inspect::statistics().listed;
    let (stop, stopped) = channel::<()>();
    let (ready, is_ready) = channel();
    let elsewhere = thread::spawn(move || {
        let crowd: Vec<_> = (0..1000).map(|_| Context::background().with_cancel()).collect();
        ready.send(()).unwrap();
        assert!(stopped.recv().is_err());
        drop(crowd);
    });
    is_ready.recv().unwrap();
    assert!(
        bequest::inspect::statistics().listed > before,
        "as if they were ours"
    );
    leak.assert_none();
    drop(stop);
    elsewhere.join().unwrap();
}
