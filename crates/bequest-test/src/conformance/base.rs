//! The clauses for every store.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bequest::{CancelScope, Kind, Reason};

use super::store::Store;
use super::wait::{ROOT, aftermath, both, dropped_once, end_of, until_running, within};
use crate::cancel_at::{self, Place};

/// A limit that passes while a slow call runs.
pub(super) const SOON: Duration = Duration::from_millis(50);
/// How many leave at once.
const CROWD: usize = 16;

/// A call whose context has ended does nothing, and says why the context ended.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn ended_before<S: Store>(store: &S) {
    let request = ROOT.with_cancel();
    request.cancel_for(Reason::ClientGone);
    let answers = [
        within::<S, _>("a quick call after the end", store.quick(&request)).await,
        within::<S, _>("a slow call after the end", store.slow(&request)).await,
    ];
    for answer in &answers {
        assert_eq!(end_of::<S>(answer).reason(), Reason::ClientGone);
    }
    aftermath(store).await;
}

/// A deadline in the past is a deadline that was exceeded, for quick calls, too.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn deadline_in_the_past<S: Store>(store: &S) {
    let spent = ROOT.with_timeout(Duration::ZERO);
    let answers = [
        within::<S, _>("a quick call after the deadline", store.quick(&spent)).await,
        within::<S, _>("a slow call after the deadline", store.slow(&spent)).await,
    ];
    for answer in &answers {
        assert_eq!(*end_of::<S>(answer), Kind::DeadlineExceeded);
        assert!(end_of::<S>(answer).is_from(&spent));
    }
    aftermath(store).await;
}

/// A call that runs ends with its context, on the store's side, too, and keeps the reason.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn running_and_cancelled<S: Store>(store: &S) {
    let request = ROOT.with_cancel();
    let cancel = async {
        until_running(store, 1).await;
        request.cancel_for(Reason::ClientGone);
    };
    let (answer, ()) = within::<S, _>("a cancelled call", both(store.slow(&request), cancel)).await;
    assert_eq!(end_of::<S>(&answer).reason(), Reason::ClientGone);
    aftermath(store).await;
}

/// A call that runs ends at its deadline, and says whose it was.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn running_at_the_deadline<S: Store>(store: &S) {
    let request = ROOT.with_timeout(SOON);
    let answer = within::<S, _>("a call beyond its deadline", store.slow(&request)).await;
    assert_eq!(*end_of::<S>(&answer), Kind::DeadlineExceeded);
    assert!(end_of::<S>(&answer).is_from(&request));
    aftermath(store).await;
}

/// A call whose future is dropped ends on the store's side, too.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn running_and_dropped<S: Store>(store: &S) {
    dropped_once(store.slow(&ROOT), until_running(store, 1)).await;
    aftermath(store).await;
}

/// When many leave at once, half told and half dropped, each that was told is answered, and nothing is left.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn a_crowd_leaves_at_once<S: Store>(store: &S) {
    let told = ROOT.with_cancel();
    let crowd: Vec<CancelScope> = (0..CROWD).map(|_| told.with_cancel()).collect();
    let stays = all(crowd.iter().map(|ctx| store.slow(ctx)));
    let leaves = async {
        let dropped = all((0..CROWD).map(|_| store.slow(&ROOT)));
        dropped_once(dropped, one_runs(store)).await;
        told.cancel_for(Reason::ClientGone);
    };
    let (answers, ()) = within::<S, _>("a crowd that leaves", both(stays, leaves)).await;
    for answer in &answers {
        assert_eq!(end_of::<S>(answer).reason(), Reason::ClientGone);
    }
    aftermath(store).await;
}

/// A quick call, ended at each of its awaits in each way, leaves nothing behind.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn ended_at_each_await<S: Store>(store: &S) {
    cancel_at::every(async || (), async |(), ctx| store.quick(ctx).await)
        .check(async |(), outcome| {
            let answer = outcome.output();
            if outcome.injection().is_none() {
                assert!(matches!(answer, Some(Ok(()))), "nobody has ended it: {answer:?}");
            } else if let Some(answer @ Err(_)) = answer {
                end_of::<S>(answer);
            }
            aftermath(store).await;
        })
        .patience(S::PATIENCE * 2)
        .drive()
        .await;
}

/// As [`ended_at_each_await`], for a call that runs until its own limit.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn ended_at_each_await_of_a_slow_call<S: Store>(store: &S) {
    let report = cancel_at::every(
        async || (),
        async |(), ctx| {
            let limited = ctx.with_timeout(SOON);
            store.slow(&limited).await
        },
    )
    .check(async |(), outcome| {
        if let Some(answer) = outcome.output() {
            end_of::<S>(answer);
        }
        aftermath(store).await;
    })
    .patience(S::PATIENCE * 2)
    .drive()
    .await;
    assert!(!report.places().is_empty(), "a slow call waits somewhere");
    // Once its limit has passed, it knows, and may wait for the store to let go.
    let is_untold = |place: &&Place| place.inside.iter().all(|work| !work.has_ended);
    let deaf: Vec<&Place> = report.deaf().filter(is_untold).collect();
    assert!(deaf.is_empty(), "it waits without its context: {deaf:?}");
}

/// Waits until at least one slow call runs.
async fn one_runs<S: Store>(store: &S) {
    super::wait::until::<S>("a slow call runs", async || match store.running().await {
        0 => Err("none does".to_owned()),
        _ => Ok(()),
    })
    .await;
}

/// All of them, in one task.
async fn all<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<Pin<Box<F>>> = calls.map(Box::pin).collect();
    let mut answers: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|task| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                if let std::task::Poll::Ready(output) = call.as_mut().poll(task) {
                    *answer = Some(output);
                }
            }
        }
        match answers.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}
