//! Waiting by condition, two calls beside each other, and what must hold after every clause.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bequest::{Canceled, Context};

use super::store::Store;

/// Who has nothing to do with the ends of others.
pub(super) static ROOT: Context = Context::background();

/// How often a condition that nobody announces is looked at.
const GLANCE: Duration = Duration::from_millis(1);

/// `work`, which does not hang.
pub(super) async fn within<S: Store, T>(what: &str, work: impl Future<Output = T>) -> T {
    match ROOT.timeout(S::PATIENCE, work).await {
        Ok(output) => output,
        Err(_) => panic!("it hangs: {what}"),
    }
}

/// Waits until `condition` says that it holds, or what is amiss.
pub(super) async fn until<S: Store>(what: &str, condition: impl AsyncFn() -> Result<(), String>) {
    let mut amiss = String::new();
    let holds = async {
        while let Err(news) = condition().await {
            amiss = news;
            pause().await;
        }
    };
    let held = ROOT.timeout(S::PATIENCE, holds).await;
    assert!(held.is_ok(), "never: {what}: {amiss}");
}

/// Waits until so many slow calls run.
pub(super) async fn until_running<S: Store>(store: &S, number: usize) {
    until::<S>(&format!("{number} slow calls run"), async || {
        expected(store.running().await, number, "run")
    })
    .await;
}

/// That the two numbers are the same.
pub(super) fn expected(seen: usize, number: usize, what: &str) -> Result<(), String> {
    match seen == number {
        true => Ok(()),
        false => Err(format!("{seen} {what}, and not {number}")),
    }
}

/// What must hold after every clause: nothing runs, all is whole, and the next user is served.
pub(super) async fn aftermath<S: Store>(store: &S) {
    until_running(store, 0).await;
    until::<S>("the store is whole", async || store.whole().await).await;
    let answer = within::<S, _>("the next user's call", store.quick(&ROOT)).await;
    answer.expect("the next user is served");
}

/// The context's end, which is what the call must have failed for.
#[track_caller]
pub(super) fn end_of<S: Store>(answer: &Result<(), S::Error>) -> &Canceled {
    match answer {
        Ok(()) => panic!("the call succeeded, although it cannot have"),
        Err(error) => match S::end(error) {
            Some(end) => end,
            None => panic!("the call failed for something else than its context: {error}"),
        },
    }
}

/// Both, polled one after the other in one task.
pub(super) async fn both<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut two) = (None, None);
    poll_fn(|task| {
        if one.is_none() {
            one = ready(first.as_mut().poll(task));
        }
        if two.is_none() {
            two = ready(second.as_mut().poll(task));
        }
        match (one.take(), two.take()) {
            (Some(one), Some(two)) => Poll::Ready((one, two)),
            (some, other) => {
                (one, two) = (some, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls `work` until `condition` has come to hold, and drops it. It must not return before.
pub(super) async fn dropped_once(work: impl Future, condition: impl Future<Output = ()>) {
    let (mut work, mut condition) = (pin!(work), pin!(condition));
    poll_fn(|task| {
        assert!(
            work.as_mut().poll(task).is_pending(),
            "it returned before it was dropped"
        );
        condition.as_mut().poll(task)
    })
    .await;
}

async fn pause() {
    // It cannot end before its time: the background does not.
    let _ = ROOT.sleep(GLANCE).await;
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
