//! A network, or a server, that hangs, dies and comes back.
//!
//! The tests stop the server itself, so each has its own.

use std::time::Duration;

use bequest_postgres::{Database, Options};
use bequest_test::proxy::{Faults, Proxy};
use bequest_test::servers::Postgres;

use crate::common::{LONG, ROOT, eventually, is_whole, plain, polled, server, within};

/// Two connections, quick to give a connection up.
async fn open(url: &str) -> Database {
    let options = Options::from_url(url)
        .unwrap()
        .connections(2)
        .settle_limit(Duration::from_millis(200));
    within(options.connect_limit(Duration::from_millis(500)).open(&ROOT))
        .await
        .unwrap()
}

/// Calls with a deadline are answered, whatever hangs; those below them are thrown away within their limit; and when it
/// hangs no more, the pool is whole.
async fn hang(db: &Database, hang: impl FnOnce(), heal: impl FnOnce()) {
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    hang();
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let request = ROOT.with_timeout(Duration::from_millis(50));
                db.query(&request, "SELECT 1", &[]).await.map(|_| ())
            })
        })
        .collect();
    for call in calls {
        let error = within(call).await.unwrap().unwrap_err();
        assert!(error.is_canceled(), "{error}");
    }
    eventually("nothing is kept that hangs", || db.statistics().connections == 0).await;
    heal();
    for _ in 0..4 {
        within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    }
    eventually("the pool is whole", || is_whole(db)).await;
    assert!(db.statistics().discarded > 0);
}

#[tokio::test]
async fn behind_a_black_hole_every_call_is_answered() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let db = open(&server.url_through(proxy.address())).await;
    for hole in [true, false] {
        let deaf = || match hole {
            true => proxy.both(Faults::none().black_hole()),
            false => proxy.to_client(Faults::none().black_hole()),
        };
        hang(&db, deaf, || proxy.both(Faults::none())).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_answers_nobody_and_holds_nobody_up() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let db = open(&server.url()).await;
    hang(&db, || server.freeze(), || server.thaw()).await;
}

/// The control: without a deadline, and without anybody who gives up, it hangs for as long as the server does.
#[tokio::test]
async fn control_the_drivers_query_hangs_with_the_server() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let client = plain(&server, "hangs").await;
    server.freeze();
    let mut query = Box::pin(client.batch_execute("SELECT 1"));
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut query).await;
    assert!(waited.is_err());
    server.thaw();
    within(query).await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_and_one_that_comes_back_is_used() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let db = open(&server.url()).await;
    let mut running = Box::pin(db.query(&ROOT, LONG, &[]));
    assert!(polled(&mut running, 1).await.is_none());
    server.kill();
    assert!(within(running).await.unwrap_err().is_unreachable());
    assert!(
        within(db.query(&ROOT, "SELECT 1", &[]))
            .await
            .unwrap_err()
            .is_unreachable()
    );
    assert!(within(db.transaction(&ROOT)).await.unwrap_err().is_unreachable());
    server.restart();
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    eventually("the pool is whole", || is_whole(&db)).await;
}

#[tokio::test]
async fn a_server_that_is_restarted_ends_its_transactions() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let db = open(&server.url()).await;
    within(db.batch_execute(&ROOT, "CREATE TABLE t (n int)"))
        .await
        .unwrap();
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, "INSERT INTO t VALUES (1)", &[]))
        .await
        .unwrap();
    server.restart();
    let error = within(tx.execute(&ROOT, "INSERT INTO t VALUES (2)", &[]))
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    let error = within(tx.commit(&ROOT)).await.unwrap_err();
    assert!(error.is_transaction_lost() && !error.is_in_doubt(), "{error}");
    let count = within(db.query_one(&ROOT, "SELECT count(*) FROM t", &[]))
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn answers_in_the_smallest_pieces_are_the_same_answers() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let options = Options::from_url(&server.url_through(proxy.address())).unwrap();
    let db = within(options.connections(1).open(&ROOT)).await.unwrap();
    proxy.both(Faults::none().slice(1, Duration::ZERO));
    for number in 0..20i64 {
        let row = within(db.query_one(&ROOT, "SELECT $1::int8", &[&number]))
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), number);
        let mut tx = within(db.transaction(&ROOT)).await.unwrap();
        within(tx.query(&ROOT, "SELECT 1 / 0", &[])).await.unwrap_err();
        assert!(within(tx.commit(&ROOT)).await.unwrap_err().is_transaction_lost());
    }
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(db.statistics().discarded, 0);
}

/// What was sent and not answered may have been done, and says so; what was answered, or can have had no effect, does not.
#[tokio::test]
async fn an_answer_that_does_not_come_leaves_a_doubt() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let db = open(&server.url()).await;
    let watcher = plain(&server, "watcher").await;
    within(db.batch_execute(&ROOT, "CREATE TABLE doubt (n int)"))
        .await
        .unwrap();
    let insert = "INSERT INTO doubt VALUES (1)";
    within(db.execute(&ROOT, insert, &[])).await.unwrap();
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, insert, &[])).await.unwrap();

    // Heard, and nothing was done.
    let request = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.execute(&request, LONG, &[])).await.unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
    eventually("its connection is clean", || db.statistics().idle == 1).await;
    within(db.prepare(&ROOT, insert)).await.unwrap();

    server.freeze();
    let request = ROOT.with_cancel();
    let mut running = Box::pin(db.execute(&request, insert, &[]));
    assert!(polled(&mut running, 1).await.is_none(), "it was sent");
    request.cancel();
    let alone = within(running).await.unwrap_err();
    assert!(alone.is_canceled() && alone.is_in_doubt(), "{alone}");
    assert!(alone.to_string().contains("it may have been done"), "{alone}");
    let request = ROOT.with_timeout(Duration::from_millis(20));
    let within_tx = within(tx.execute(&request, insert, &[])).await.unwrap_err();
    assert!(within_tx.is_canceled() && !within_tx.is_in_doubt(), "{within_tx}");
    server.thaw();
    // The statement was with the server when it stopped; it is done, although nobody was told.
    let count = "SELECT count(*) FROM doubt";
    within(async { while watcher.query_one(count, &[]).await.unwrap().get::<_, i64>(0) != 2 {} }).await;

    let running = tokio::spawn(async move { db.execute(&ROOT, LONG, &[]).await });
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sleep(600)'";
    within(async { while watcher.query_one(active, &[]).await.unwrap().get::<_, i64>(0) != 1 {} }).await;
    server.kill();
    let lost = within(running).await.unwrap().unwrap_err();
    assert!(lost.is_unreachable() && lost.is_in_doubt(), "{lost}");
}
