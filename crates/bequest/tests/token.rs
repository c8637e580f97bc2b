//! What `CancellationToken` documents, kept through the conversion in both directions.

#[path = "support/drops.rs"]
mod drops;
#[path = "support/poll.rs"]
mod poll;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bequest::{Context, Kind, Reason, inspect};
use tokio_util::sync::CancellationToken;

use drops::Drops;
use poll::{Wakes, poll_once, poll_with};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_context_cancels_its_token_before_cancel_returns() {
    let scope = Context::background().with_cancel();
    let leaf = scope.with_cancel();
    let token = leaf.token();
    let (clone, child) = (token.clone(), token.child_token());
    assert!(!token.is_cancelled());
    scope.cancel();
    assert!(token.is_cancelled() && clone.is_cancelled() && child.is_cancelled());
}

#[test]
fn a_deadline_cancels_the_token() {
    let token = Context::background().with_timeout(Duration::ZERO).token();
    assert!(token.is_cancelled(), "at once, if it has ended");
    let scope = Context::background().with_timeout(Duration::from_millis(1));
    let token = scope.token();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(token.cancelled());
}

#[test]
fn a_token_cancels_its_scope_before_cancel_returns() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token.child_token());
    let leaf = scope.with_timeout(HOUR);
    assert!(!leaf.is_done());
    token.cancel();
    let end = leaf.err().unwrap();
    assert_eq!(end, Kind::Canceled);
    assert_eq!(end.reason(), Reason::Explicit);
    assert!(end.is_from(&scope));
    assert_eq!(end.cause().unwrap().to_string(), "CancellationToken cancelled");
}

#[test]
fn a_token_that_was_cancelled_ends_the_scope_at_once() {
    let token = CancellationToken::new();
    token.cancel();
    assert!(Context::background().with_token(&token).is_done());
}

#[test]
fn cancelling_a_child_does_not_go_upwards() {
    let scope = Context::background().with_cancel();
    let token = scope.token();
    token.child_token().cancel();
    assert!(!token.is_cancelled() && !scope.is_done());
    token.cancel();
    assert!(
        !scope.is_done(),
        "the token follows the context, not the other way"
    );

    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    scope.cancel();
    assert!(!token.is_cancelled(), "and here the context follows the token");
}

#[test]
fn the_parents_end_and_its_values_come_through_a_linked_scope() {
    let (parent, token) = (Context::background().with_timeout(HOUR), CancellationToken::new());
    let scope = parent.with_token(&token);
    assert_eq!(scope.deadline(), parent.deadline());
    parent.cancel_for(Reason::Shutdown);
    assert_eq!(scope.err().unwrap().reason(), Reason::Shutdown);
    token.cancel();
    assert_eq!(
        scope.err().unwrap().reason(),
        Reason::Shutdown,
        "the first event wins"
    );
}

#[test]
fn cancel_is_idempotent_and_wakes_all_who_wait() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    let back = scope.token();
    let wakes = Wakes::new();
    let mut waits = [scope.done(), scope.done()];
    let mut cancelled = Box::pin(back.cancelled());
    assert!(waits.iter_mut().all(|wait| poll_with(&wakes, wait).is_pending()));
    assert!(poll_with(&wakes, &mut cancelled).is_pending());
    token.cancel();
    token.cancel();
    assert_eq!(wakes.count(), 3);
    assert!(waits.iter_mut().all(|wait| poll_once(wait).is_ready()));
    assert!(poll_once(&mut cancelled).is_ready(), "through both conversions");
}

#[test]
fn run_until_cancelled_works_on_a_contexts_token() {
    let scope = Context::background().with_cancel();
    let token = scope.token();
    let mut finished = Box::pin(token.run_until_cancelled(async { 7 }));
    assert!(matches!(
        poll_once(&mut finished),
        std::task::Poll::Ready(Some(7))
    ));
    let mut pending = Box::pin(token.run_until_cancelled(std::future::pending::<()>()));
    assert!(poll_once(&mut pending).is_pending());
    scope.cancel();
    assert!(matches!(poll_once(&mut pending), std::task::Poll::Ready(None)));
}

#[test]
fn a_drop_guard_of_the_token_ends_the_scope() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    drop(token.drop_guard());
    assert!(scope.is_done());
}

#[test]
fn dropping_a_token_cancels_nothing() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    drop(token);
    assert!(!scope.is_done());
}

#[test]
fn a_dropped_link_leaves_the_token_as_it_is() {
    let scope = Context::background().with_cancel();
    let link = scope.token();
    let token = link.clone();
    drop(link);
    scope.cancel();
    assert!(!token.is_cancelled());
}

#[test]
fn no_cancel_is_lost_in_a_race() {
    for _ in 0..500 {
        let token = CancellationToken::new();
        let scope = Context::background().with_cancel();
        let start = Barrier::new(3);
        let (linked, back) = thread::scope(|threads| {
            let linking = threads.spawn(|| {
                start.wait();
                (Context::background().with_token(&token), scope.token())
            });
            threads.spawn(|| {
                start.wait();
                token.cancel();
            });
            start.wait();
            scope.cancel();
            linking.join().unwrap()
        });
        assert!(linked.is_done() && back.is_cancelled());
    }
}

#[test]
fn a_cancel_may_drop_the_link_it_runs_in() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    let ctx = scope.context();
    let (send, receive) = std::sync::mpsc::channel();
    send.send(scope).unwrap();
    let _guard = ctx.after_func(move |_| drop(receive.recv().unwrap()));
    token.cancel();
    assert!(ctx.is_done());
}

#[test]
fn nothing_leaks_under_an_immortal_context() {
    inspect::enable();
    let immortal = Context::background().with_cancel();
    for _ in 0..1000 {
        drop(immortal.token());
        drop(immortal.with_token(&CancellationToken::new()));
    }
    let live = inspect::snapshot().live;
    let row = live.iter().find(|row| row.id == immortal.id()).unwrap();
    assert_eq!((row.children, row.waiting), (0, 0));
}

#[test]
fn nothing_leaks_under_an_immortal_token() {
    let (immortal, drops) = (CancellationToken::new(), Drops::default());
    for _ in 0..1000 {
        let request = Context::background().with_timeout(HOUR).caused_by(drops.token());
        // The linked scope keeps its parent; when it goes, nothing that the token holds may keep either.
        let linked = request.with_token(&immortal);
        drop(request);
        drop(linked);
    }
    assert_eq!(drops.count(), 1000);
    assert!(!immortal.is_cancelled());
}

#[test]
fn clones_are_one_token_on_either_side_of_the_conversion() {
    let token = CancellationToken::new();
    let clone = token.clone();
    let scope = Context::background().with_token(&token);
    clone.cancel();
    assert!(scope.is_done() && token.is_cancelled());

    let scope = Context::background().with_cancel();
    let linked = scope.token();
    let (clone, child) = (linked.clone(), linked.child_token());
    linked.cancel();
    assert!(clone.is_cancelled() && child.is_cancelled() && !scope.is_done());
}

#[test]
fn a_child_of_a_cancelled_token_is_cancelled_and_so_is_its_scope() {
    let scope = Context::background().with_cancel();
    let token = scope.token();
    scope.cancel();
    let late = token.child_token();
    assert!(late.is_cancelled());
    assert!(Context::background().with_token(&late).is_done());
}

#[test]
fn a_disarmed_drop_guard_ends_nothing() {
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    let same = token.clone().drop_guard().disarm();
    assert!(!scope.is_done());
    same.cancel();
    assert!(scope.is_done());
}

#[test]
fn a_wait_that_is_dropped_and_made_anew_misses_nothing() {
    let scope = Context::background().with_cancel();
    let token = scope.token();
    let wakes = Wakes::new();
    for _ in 0..3 {
        let mut wait = Box::pin(token.cancelled());
        assert!(poll_with(&wakes, &mut wait).is_pending());
    }
    scope.cancel();
    assert_eq!(wakes.count(), 0, "nobody waits");
    assert!(poll_once(&mut Box::pin(token.cancelled())).is_ready());
    assert!(poll_once(&mut Box::pin(token.clone().cancelled_owned())).is_ready());
}

#[test]
fn work_in_the_owned_and_the_borrowed_form_ends_with_the_context() {
    let scope = Context::background().with_cancel();
    let token = scope.token();
    let mut owned = Box::pin(
        token
            .clone()
            .run_until_cancelled_owned(std::future::pending::<()>()),
    );
    assert!(poll_once(&mut owned).is_pending());
    scope.cancel();
    assert!(matches!(poll_once(&mut owned), std::task::Poll::Ready(None)));
    // After the end, work that is not ready is not waited for.
    let mut late = Box::pin(token.run_until_cancelled(std::future::pending::<()>()));
    assert!(matches!(poll_once(&mut late), std::task::Poll::Ready(None)));
}

#[test]
fn a_chain_of_conversions_ends_from_either_end() {
    let token = CancellationToken::new();
    let first = Context::background().with_token(&token);
    let between = first.token();
    let second = Context::background().with_token(&between);
    let last = second.token();
    token.cancel();
    assert!(last.is_cancelled() && second.err().unwrap().is_from(&second));
    assert_eq!(first.err().unwrap().kind(), Kind::Canceled);
}

#[test]
fn what_is_told_through_a_token_is_told_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let token = CancellationToken::new();
    let scope = Context::background().with_token(&token);
    let _guard = scope.after_func(|_| _ = CALLS.fetch_add(1, Ordering::SeqCst));
    token.cancel();
    scope.cancel();
    token.cancel();
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}
