//! A query that runs ends with its context, on the server.

use std::time::Duration;

use bequest::{Kind, Reason};
use bequest_postgres::Step;

use crate::common::{
    LONG, ROOT, Watcher, eventually, is_whole, options, plain, polled, server, single, within,
};

#[tokio::test]
async fn d1_an_ended_context_takes_nothing() {
    let Some(server) = server() else { return };
    let db = single(server, "d1").await;
    let request = ROOT.with_cancel();
    request.cancel_for(Reason::ClientGone);
    let error = within(db.query(&request, "SELECT 1", &[])).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Waiting);
    let late = ROOT.with_timeout(Duration::ZERO);
    let error = within(db.execute(&late, "SELECT 1", &[])).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    let now = db.statistics();
    assert_eq!((now.waited, now.cancels_sent, now.idle), (1, 0, 1), "{now:?}"); // the one is the opening
}

#[tokio::test]
async fn d5_a_cancel_ends_the_query_on_the_server_and_the_next_user_has_the_connection() {
    let Some(server) = server() else { return };
    let db = single(server, "cancel").await;
    let watcher = Watcher::new(server, "cancel").await;
    let request = ROOT.with_cancel();
    let leaving = async {
        watcher.until("active", 1).await;
        request.cancel_for(Reason::ClientGone);
    };
    let (answer, ()) = within(async { tokio::join!(db.query(&request, LONG, &[]), leaving) }).await;
    let error = answer.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Running);

    let row = within(db.query_one(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    watcher.until("active", 0).await;
    eventually("the pool is whole", || is_whole(&db)).await;
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded, now.settled), (1, 0, 1), "{now:?}");
}

#[tokio::test]
async fn a_deadline_ends_the_query_and_says_so() {
    let Some(server) = server() else { return };
    let db = single(server, "deadline").await;
    let watcher = Watcher::new(server, "deadline").await;
    let request = ROOT.with_timeout(Duration::from_millis(50));
    let error = within(db.query(&request, LONG, &[])).await.unwrap_err();
    let end = error.canceled().unwrap();
    assert!(end.is_from(&request) && *end == Kind::DeadlineExceeded);
    watcher.until("active", 0).await;
    eventually("the pool is whole", || is_whole(&db)).await;
}

/// The control stands in the same test, so that the wait is no guess: the driver's query outlives ours.
#[tokio::test]
async fn a_dropped_future_ends_the_query_unlike_the_drivers() {
    let Some(server) = server() else { return };
    let db = single(server, "dropped").await;
    let ours = Watcher::new(server, "dropped").await;
    let theirs = Watcher::new(server, "dropped_control").await;
    let client = plain(server, "dropped_control").await;
    let drivers = tokio::spawn(async move {
        let sleeping = client.batch_execute(LONG);
        assert!(polled(sleeping, 1).await.is_none());
        client
    });
    let client = within(drivers).await.unwrap();
    theirs.until("active", 1).await;

    let call = tokio::spawn({
        let db = db.clone();
        async move { db.query(&ROOT, LONG, &[]).await.map(|_| ()) }
    });
    ours.until("active", 1).await;
    call.abort();
    ours.until("active", 0).await;
    assert_eq!(theirs.count("active").await, 1, "nobody told the server");
    client
        .cancel_token()
        .cancel_query(bequest_postgres::tokio_postgres::NoTls)
        .await
        .unwrap();
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert_eq!(db.statistics().opened, 1);
}

/// A cancel that overtakes the statement finds nobody: it is repeated.
#[tokio::test]
async fn a_cancel_that_comes_before_the_statement_is_repeated() {
    let Some(server) = server() else { return };
    let db = single(server, "early").await;
    db.prepare(&ROOT, LONG).await.unwrap();
    for _ in 0..50 {
        // The statement is handed to the driver, and given up before anything else can happen.
        assert!(polled(db.query(&ROOT, LONG, &[]), 1).await.is_none());
        within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    }
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn a_query_that_waits_for_a_lock_is_cancelled_while_it_is_prepared() {
    let Some(server) = server() else { return };
    let db = single(server, "lock").await;
    let watcher = Watcher::new(server, "lock").await;
    watcher.run("CREATE TABLE locked (x int)").await;
    watcher.run("BEGIN; LOCK TABLE locked").await;
    let request = ROOT.with_timeout(Duration::from_millis(50));
    let error = within(db.query(&request, "SELECT * FROM locked", &[]))
        .await
        .unwrap_err();
    assert!(error.is_canceled(), "{error}");
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    watcher.run("COMMIT").await;
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn d6_rows_end_with_the_context_even_if_nobody_reads() {
    let Some(server) = server() else { return };
    let db = single(server, "d6").await;
    let watcher = Watcher::new(server, "d6").await;
    let request = ROOT.with_cancel();
    let sql = "SELECT generate_series(1, 1000000000)";
    let mut rows = within(db.query_stream(&request, sql, &[])).await.unwrap();
    for expected in 1..=3 {
        let row = within(rows.next()).await.unwrap().unwrap();
        assert_eq!(row.get::<_, i32>(0), expected);
    }
    request.cancel_for(Reason::ClientGone);
    watcher.until("active", 0).await;
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let error = within(rows.next()).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Reading);
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn d6_rows_that_are_dropped_are_not_sent_any_more() {
    let Some(server) = server() else { return };
    let db = single(server, "d6_dropped").await;
    let sql = "SELECT generate_series(1, 1000000000)";
    let mut rows = within(db.query_stream(&ROOT, sql, &[])).await.unwrap();
    assert!(polled(rows.next(), 1).await.is_some_and(|row| row.is_ok()) || within(rows.next()).await.is_ok());
    drop(rows);
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let error = within(db.query_one(&ROOT, sql, &[])).await.unwrap_err();
    assert!(error.is_too_many_rows());
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn d7_a_cancel_after_the_natural_end_changes_nothing() {
    let Some(server) = server() else { return };
    let db = single(server, "d7").await;
    let request = ROOT.with_cancel();
    let mut rows = within(db.query_stream(&request, "SELECT 1", &[])).await.unwrap();
    assert!(within(rows.next()).await.unwrap().is_some());
    assert!(within(rows.next()).await.unwrap().is_none());
    request.cancel();
    assert!(within(rows.next()).await.unwrap().is_none());
    let now = db.statistics();
    assert_eq!((now.cancels_sent, now.settled), (0, 0), "{now:?}");
}

#[tokio::test]
async fn d16_behind_a_pooler_the_connection_is_thrown_away_after_a_cancel() {
    let Some(server) = server() else { return };
    let db = options(server, "d16")
        .connections(1)
        .discard_after_cancel(true)
        .open(&ROOT)
        .await
        .unwrap();
    let watcher = Watcher::new(server, "d16").await;
    let request = ROOT.with_timeout(Duration::from_millis(50));
    within(db.query(&request, LONG, &[])).await.unwrap_err();
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded, now.connections), (2, 1, 1), "{now:?}");
    watcher.until("%", 1).await;
}

/// The net below the cancel: the server's own limit follows the budget, and is told only when it changes.
#[tokio::test]
async fn the_sessions_limit_follows_the_budget() {
    let Some(server) = server() else { return };
    let db = single(server, "limit").await;
    let limit = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'";
    for (budget, expected) in [(5, "8000"), (5, "8000"), (3, "4000"), (100, "128000")] {
        let request = ROOT.with_timeout(Duration::from_secs(budget));
        let row = within(db.query_one(&request, limit, &[])).await.unwrap();
        assert_eq!(row.get::<_, String>(0), expected);
    }
    let row = within(db.query_one(&ROOT, limit, &[])).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "0", "no budget, no limit");
    let row = within(db.query_one(&ROOT, "SHOW client_connection_check_interval", &[]))
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "100ms");
}
