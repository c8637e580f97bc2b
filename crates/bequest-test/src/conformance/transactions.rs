//! The clauses for stores that write whole or not at all: acknowledged means written, refused means absent.

use std::cell::Cell;

use bequest::Reason;

use super::store::{LongTransactions, Transactional};
use super::wait::{ROOT, aftermath, both, dropped_once, end_of, until_running, within};
use crate::cancel_at;

/// A cancel that comes between the last write and the commit: either of the two wins, and the answer says which.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn transaction_ended_at_the_commit<S: Transactional>(store: &S) {
    let request = ROOT.with_cancel();
    let client = request.canceller();
    let write = store.write(&request, 1, move || client.cancel_for(Reason::ClientGone));
    let answer = within::<S, _>("a commit that is cancelled", write).await;
    if answer.is_err() {
        assert_eq!(end_of::<S>(&answer).reason(), Reason::ClientGone);
    }
    acknowledged_is_written(store, 1, Some(&answer)).await;
    aftermath(store).await;
    the_next_write_is_written(store, 2).await;
}

/// A transaction that is ended at each await of write and commit in each way is written whole or not at all, and as
/// the answer says.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn transaction_ended_at_each_await<S: Transactional>(store: &S) {
    let keys = Cell::new(0);
    let setup = async || {
        keys.set(keys.get() + 1);
        keys.get()
    };
    cancel_at::every(setup, async |key, ctx| store.write(ctx, *key, || {}).await)
        .check(async |key, outcome| {
            let answer = outcome.output();
            if outcome.injection().is_none() {
                assert!(matches!(answer, Some(Ok(()))), "nobody has ended it: {answer:?}");
            }
            aftermath(store).await;
            acknowledged_is_written(store, *key, answer).await;
        })
        .patience(S::PATIENCE * 2)
        .drive()
        .await;
    the_next_write_is_written(store, keys.get() + 1).await;
}

/// A transaction that is cancelled in its midst is rolled back.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn in_a_transaction_and_cancelled<S: LongTransactions>(store: &S) {
    let request = ROOT.with_cancel();
    let cancel = async {
        until_running(store, 1).await;
        request.cancel_for(Reason::ClientGone);
    };
    let both = both(store.write_slowly(&request, 1), cancel);
    let (answer, ()) = within::<S, _>("a cancelled transaction", both).await;
    assert_eq!(end_of::<S>(&answer).reason(), Reason::ClientGone);
    rolled_back(store).await;
}

/// A transaction that is dropped in its midst is rolled back.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn in_a_transaction_and_dropped<S: LongTransactions>(store: &S) {
    dropped_once(store.write_slowly(&ROOT, 1), until_running(store, 1)).await;
    rolled_back(store).await;
}

async fn rolled_back<S: Transactional>(store: &S) {
    aftermath(store).await;
    assert_eq!(store.count(1).await, 0, "half of a transaction was written");
    the_next_write_is_written(store, 2).await;
}

/// What the answer says of the key is true. Dropped calls say nothing.
async fn acknowledged_is_written<S: Transactional>(
    store: &S,
    key: u64,
    answer: Option<&Result<(), S::Error>>,
) {
    let count = within::<S, _>("counting", store.count(key)).await;
    match answer {
        Some(Ok(())) => assert_eq!(count, 1, "it was acknowledged"),
        Some(Err(error)) if !S::is_in_doubt(error) => assert_eq!(count, 0, "it was refused: {error}"),
        Some(Err(_)) | None => assert!(count <= 1, "it was written {count} times"),
    }
}

async fn the_next_write_is_written<S: Transactional>(store: &S, key: u64) {
    let answer = within::<S, _>("the next user's write", store.write(&ROOT, key, || {})).await;
    answer.expect("the next user's write");
    assert_eq!(
        store.count(key).await,
        1,
        "the next user's write is lost or doubled"
    );
    aftermath(store).await;
}
