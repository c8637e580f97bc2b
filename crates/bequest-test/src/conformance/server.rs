//! The clauses for stores whose server can be mistreated.

use bequest::Kind;

use super::base::SOON;
use super::store::{Hosted, Store};
use super::wait::{ROOT, aftermath, both, end_of, until, until_running, within};

/// A server that keeps its connections and answers nothing costs no more than the deadline; once it goes on, so does
/// the store.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn frozen<S: Hosted>(store: &S) {
    aftermath(store).await;
    store.freeze();
    let request = ROOT.with_timeout(SOON);
    let answer = within::<S, _>("a call to a frozen server", store.quick(&request)).await;
    assert_eq!(*end_of::<S>(&answer), Kind::DeadlineExceeded);
    store.thaw();
    recovery(store).await;
}

/// A server that dies fails the call that runs on it, for another reason than its context; once it is back, the store
/// is, too.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn killed_and_restarted<S: Hosted>(store: &S) {
    let kill = async {
        until_running(store, 1).await;
        store.kill();
    };
    let (answer, ()) = within::<S, _>("a call to a dead server", both(store.slow(&ROOT), kill)).await;
    let error = answer.expect_err("its server is dead");
    assert!(S::end(&error).is_none(), "its context lives: {error}");
    store.restart();
    recovery(store).await;
}

/// A call may still fail that meets what the fault has left; but soon none does.
async fn recovery<S: Store>(store: &S) {
    until::<S>("the store recovers", async || {
        store.quick(&ROOT).await.map_err(|error| error.to_string())
    })
    .await;
    aftermath(store).await;
}
