//! The clauses for stores whose calls wait for a connection: the wait is part of the budget and leaves no trace.

use bequest::{Context, Kind, Reason};

use super::base::SOON;
use super::store::Pooled;
use super::wait::{ROOT, aftermath, both, dropped_once, end_of, expected, until, until_running, within};

/// A call that waits for a connection is answered at its cancel, while the connection is still taken.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn waiting_and_cancelled<S: Pooled>(store: &S) {
    beside_a_slow_call(store, async || {
        let request = ROOT.with_cancel();
        let cancel = async {
            until_waiting(store, 1).await;
            request.cancel_for(Reason::StreamReset);
        };
        let (answer, ()) = both(store.quick(&request), cancel).await;
        assert_eq!(end_of::<S>(&answer).reason(), Reason::StreamReset);
    })
    .await;
}

/// A call that waits for a connection is answered at its deadline, while the connection is still taken.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn waiting_at_the_deadline<S: Pooled>(store: &S) {
    beside_a_slow_call(store, async || {
        let request = ROOT.with_timeout(SOON);
        let answer = store.quick(&request).await;
        assert_eq!(*end_of::<S>(&answer), Kind::DeadlineExceeded);
        assert!(end_of::<S>(&answer).is_from(&request));
    })
    .await;
}

/// A call that is dropped while it waits leaves the queue.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn waiting_and_dropped<S: Pooled>(store: &S) {
    beside_a_slow_call(store, async || {
        dropped_once(store.quick(&ROOT), until_waiting(store, 1)).await;
    })
    .await;
}

/// Has `visit` made while a slow call holds the only connection, which nobody but its own context may end.
async fn beside_a_slow_call<S: Pooled>(store: &S, visit: impl AsyncFn()) {
    let holder = ROOT.with_cancel();
    let visiting = async {
        until_running(store, 1).await;
        visit().await;
        until_waiting(store, 0).await;
        assert_eq!(
            store.running().await,
            1,
            "it was answered because the other had ended"
        );
        holder.cancel();
    };
    let ctx: &Context = &holder;
    let (answer, ()) = within::<S, _>("a call beside a slow one", both(store.slow(ctx), visiting)).await;
    assert!(end_of::<S>(&answer).is_from(&holder));
    aftermath(store).await;
}

async fn until_waiting<S: Pooled>(store: &S, number: usize) {
    until::<S>("calls wait for a connection", async || {
        expected(store.waiting(), number, "wait")
    })
    .await;
}
