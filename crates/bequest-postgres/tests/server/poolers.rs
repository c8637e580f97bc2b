//! What a cancel may hit when something in between passes it on too late, and what throwing the connection away does
//! about it.

use std::time::Duration;

use bequest_postgres::tokio_postgres::error::SqlState;
use bequest_postgres::{Database, Error, Options};
use bequest_test::servers::{PgBouncer, Pooling, Postgres};

use crate::careless::{Named, Pooler};
use crate::common::{ROOT, Watcher, eventually, server, within};
use crate::races::Delay;

/// Waits for whoever holds the lock of this number.
fn waits(lock: u32) -> String {
    format!("SELECT pg_advisory_xact_lock({lock})")
}

/// A database behind a pooler, with one connection.
async fn behind(url: &str, discard: bool) -> Database {
    let options = Options::from_url(url).unwrap().connections(1);
    within(
        options
            .server_limits(false)
            .discard_after_cancel(discard)
            .open(&ROOT),
    )
    .await
    .unwrap()
}

/// One user is cancelled and their statement ends by itself; then the next one's runs; only then is the cancel passed on.
/// What becomes of the next one, and to how many the pooler has passed it on.
async fn next_one(
    server: &Postgres,
    lock: u32,
    pooler: &Pooler,
    first: &Database,
    next: &Database,
) -> (Result<(), Error>, usize) {
    let holder = Watcher::new(server, "no pooler").await;
    let (hold, let_go) = (
        format!("SELECT pg_advisory_lock({lock})"),
        format!("SELECT pg_advisory_unlock({lock})"),
    );
    let waiting = format!("SELECT count(*) FROM pg_locks WHERE objid = {lock} AND NOT granted");
    let is_waiting = async || {
        // Each look is a question to the server.
        while holder.number(&waiting).await == 0 {}
    };

    holder.run(&hold).await;
    let request = ROOT.with_cancel();
    let leaves = async {
        is_waiting().await;
        request.cancel();
        eventually("the cancel is taken", || pooler.held() > 0).await;
        holder.run(&let_go).await;
    };
    let statement = waits(lock);
    let (answer, ()) =
        within(async { tokio::join!(first.batch_execute(&request, &statement), leaves) }).await;
    // It was told of the end, or was quicker.
    assert!(answer.err().is_none_or(|error| error.is_canceled()));
    eventually("what was given up is settled", || {
        let now = first.statistics();
        now.settling + now.in_use + now.cancels == 0
    })
    .await;

    holder.run(&hold).await;
    let passed = async {
        is_waiting().await;
        let passed = pooler.pass_on().await;
        holder.run(&let_go).await;
        passed
    };
    within(async { tokio::join!(next.batch_execute(&ROOT, &statement), passed) }).await
}

#[tokio::test]
async fn d16_a_late_cancel_finds_nobody_if_its_connection_is_thrown_away() {
    let Some(server) = server() else { return };
    let pooler = Pooler::start(server.address(), Named::AtLast).await;
    let db = behind(&pooler.url(), true).await;
    let (next, passed) = next_one(server, 1601, &pooler, &db, &db).await;
    next.unwrap();
    assert_eq!(passed, 0, "there is no such session any more");
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded), (2, 1), "{now:?}");
}

/// The control: the connection is kept, and the next user of it is the one who is hit.
#[tokio::test]
async fn control_d16_a_late_cancel_hits_the_next_user_of_a_connection_that_is_kept() {
    let Some(server) = server() else { return };
    let pooler = Pooler::start(server.address(), Named::AtLast).await;
    let db = behind(&pooler.url(), false).await;
    let (next, passed) = next_one(server, 1602, &pooler, &db, &db).await;
    let error = next.unwrap_err();
    assert!(
        !error.is_canceled(),
        "the next user's own context has not ended: {error}"
    );
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(passed > 0);
    assert_eq!(
        db.statistics().opened,
        1,
        "the pool holds the connection for clean"
    );
}

/// What no client can mend: the pooler names the server's connection at once, and gives it to another client before it has
/// passed the cancel on.
#[tokio::test]
async fn control_d16_a_pooler_that_names_at_once_and_does_not_wait_hits_a_stranger_in_any_case() {
    let Some(server) = server() else { return };
    let pooler = Pooler::start(server.address(), Named::AtOnce).await;
    let (db, stranger) = (
        behind(&pooler.url(), true).await,
        behind(&pooler.url(), true).await,
    );
    let (next, passed) = next_one(server, 1603, &pooler, &db, &stranger).await;
    assert_eq!(next.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert!(passed > 0);
}

/// PgBouncer keeps the connection of a cancel request until the server has closed its own, and the server's connection of the
/// session for so long. So its client may keep its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_behind_pgbouncer_nobody_is_hit() {
    const ROUNDS: usize = 500;
    let Some(server) = server() else { return };
    for pooling in [Pooling::Session, Pooling::Transaction] {
        let Some(pooler) = PgBouncer::start_or_leave_out(server, pooling) else {
            return;
        };
        let db = behind(&pooler.url(), false).await;
        let (mut delay, mut canceled) = (Delay(Duration::from_micros(800)), 0);
        for round in 0..ROUNDS {
            let request = ROOT.with_cancel();
            let leaving = async {
                delay.wait().await;
                request.cancel();
            };
            let first = db.batch_execute(&request, "SELECT 1, pg_sleep(0.0003)");
            let (first, ()) = within(async { tokio::join!(first, leaving) }).await;
            delay.steer(first.is_err());
            canceled += usize::from(first.is_err());
            let next = within(db.batch_execute(&ROOT, "SELECT 2, pg_sleep(0.0005)")).await;
            next.unwrap_or_else(|error| panic!("{pooling:?}, round {round}: a stranger's cancel: {error}"));
        }
        assert!(
            canceled > 0 && canceled < ROUNDS,
            "no race: {canceled} of {ROUNDS} cancelled"
        );
        let now = db.statistics();
        assert_eq!((now.opened, now.discarded), (1, 0), "{now:?}");
    }
}
