//! The behaviours of Go's `testing`, `synctest` and `httptest` that matter to contexts, by their numbers (T1 to T5).
//! What differs is in `README.md` beside this file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use bequest::{Context, Reason};
use bequest_test::{Bubble, Leak, Recorder, ResponseWriter, test_context, test_name};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn t1_live_in_the_test_and_cancelled_before_the_cleanup() {
    let (tell, told) = channel();
    let mut test = test_context();
    assert_eq!(
        test.name(),
        "t1_live_in_the_test_and_cancelled_before_the_cleanup"
    );
    let ctx = test.context();
    let seen = ctx.clone();
    test.on_cleanup(move |_| tell.send(seen.err()).unwrap());
    assert!(!ctx.is_done());
    drop(test);
    let end = told.try_recv().unwrap().expect("it ended before the cleanup");
    assert_eq!(end.reason(), Reason::Explicit);
    assert_eq!(
        end.cause().unwrap().to_string(),
        "test t1_live_in_the_test_and_cancelled_before_the_cleanup ended"
    );
}

#[test]
fn t1_subtests_have_their_own() {
    let test = test_context();
    let first = test.subtest("first");
    let second = test.subtest("second");
    let seen = first.context();
    drop(first);
    assert!(seen.is_done());
    assert!(!second.is_done() && !test.is_done());
    assert_eq!(
        test_name(&second.with_cancel()),
        Some("t1_subtests_have_their_own/second")
    );
}

#[test]
fn t1_the_cleanup_has_a_live_context_with_the_values() {
    let (tell, told) = channel();
    let mut test = test_context();
    let name = test.name().to_owned();
    test.on_cleanup(move |tidy| {
        assert!(tidy.check().is_ok());
        let left = tidy.remaining().expect("tidying up has a limit");
        tell.send((test_name(tidy).map(str::to_owned), left)).unwrap();
    });
    drop(test);
    let (seen, left) = told.try_recv().unwrap();
    assert_eq!(seen, Some(name));
    assert!(left <= 10 * SECOND);
}

#[test]
fn t1_a_panic_ends_it_and_every_cleanup_runs() {
    let (tell, told) = channel();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut test = test_context();
        let ctx = test.context();
        test.on_cleanup(move |_| tell.send(ctx.err().unwrap().reason()).unwrap());
        test.on_cleanup(|_| panic!("a cleanup that fails skips no other"));
        panic!("the test fails");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the test fails"));
    assert_eq!(told.try_recv(), Ok(Reason::Panicked));
}

#[test]
fn t1_a_cleanup_that_panics_fails_the_test() {
    let (tell, told) = channel();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut test = test_context();
        test.on_cleanup(move |_| tell.send(()).unwrap());
        test.on_cleanup(|_| panic!("it could not be removed"));
    }));
    assert_eq!(
        panicked.unwrap_err().downcast_ref(),
        Some(&"it could not be removed")
    );
    assert!(told.try_recv().is_ok());
}

#[test]
fn t2_no_deadline() {
    let test = test_context();
    assert_eq!(test.deadline(), None);
    assert!(test.with_timeout(SECOND).remaining().unwrap() <= SECOND);
}

#[test]
fn t3_time_starts_in_2000_and_moves_when_all_wait() {
    let bubble = Bubble::new();
    let ctx = bubble.context();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    assert_eq!(bubble.clock().wall(), start);
    let (tell, told) = channel();
    for seconds in [3, 1, 2] {
        let (ctx, tell, clock) = (ctx.clone(), tell.clone(), bubble.clock().clone());
        bubble.spawn(async move {
            ctx.sleep(seconds * SECOND).await.unwrap();
            tell.send(clock.wall().duration_since(start).unwrap()).unwrap();
        });
    }
    bubble.settle();
    assert!(told.try_recv().is_err(), "while they wait, nothing has passed");
    bubble.run(async {});
    assert_eq!(bubble.tasks(), 0, "it waits for all of them");
    assert_eq!(
        told.try_iter().collect::<Vec<_>>(),
        [SECOND, 2 * SECOND, 3 * SECOND]
    );
}

#[test]
fn t3_a_deadlock_is_a_failure() {
    let bubble = Bubble::new();
    let scope = bubble.context().with_cancel();
    let waiting = scope.context();
    bubble.spawn(async move {
        waiting.done().await;
    });
    let refusal = catch_unwind(AssertUnwindSafe(|| bubble.run(scope.sleep(SECOND)))).unwrap_err();
    assert_eq!(
        refusal.downcast_ref::<String>().map(String::as_str),
        Some("deadlock after 1s: nothing is due, main is over, 1 spawned tasks wait")
    );
}

#[test]
fn t3_bubbles_are_isolated() {
    let (first, second) = (Bubble::new(), Bubble::new());
    first.run(first.context().sleep(SECOND)).unwrap();
    assert_eq!(first.clock().elapsed(), SECOND);
    assert_eq!(second.clock().elapsed(), Duration::ZERO);
}

#[test]
fn t4_the_recorder_can_tell_that_nothing_was_written() {
    let touches: [fn(&mut Recorder); 3] = [
        |response| response.set_status(200),
        |response| assert_eq!(response.headers_mut().get("etag"), None),
        |response| response.write(b"").unwrap(),
    ];
    Recorder::new().assert_untouched();
    for touch in touches {
        let mut response = Recorder::new();
        touch(&mut response);
        assert!(!response.is_untouched());
        assert!(response.body().is_empty(), "the body does not tell");
    }
}

#[test]
fn t5_what_is_left_is_found_without_a_collector() {
    let leak = Leak::watch();
    let request = leak.context().with_cancel().named("request");
    let forgotten = request.with_timeout(SECOND).named("forgotten").into_context();
    drop(request);
    let left = leak.left();
    let names: Vec<_> = left.contexts.iter().filter_map(|row| row.name).collect();
    assert_eq!(names, ["request", "forgotten"], "it holds its parent, too");
    drop(forgotten);
    leak.assert_none();
}

/// The test's context goes wherever a context goes.
#[test]
fn t1_it_is_a_context() {
    fn derive(ctx: impl AsRef<Context>) -> Context {
        ctx.as_ref().with_cancel().into_context()
    }
    let test = test_context();
    let derived = derive(&*test);
    assert!(derived.check().is_ok());
    drop(test);
    assert!(derived.check().is_err());
}
