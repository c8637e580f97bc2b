//! Rows as they come: the server waits for their reader, and a stream that is given up, by whomever, leaves nothing behind.

use bequest::Reason;
use bequest_postgres::{Database, Rows, Step, Transaction};

use crate::common::{ROOT, Watcher, eventually, is_whole, options, plain, server, single, within};

/// More than any buffer on the way holds.
const MANY: &str = "SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) n";
const ENDLESS: &str = "SELECT generate_series(1, 9000000000)";

async fn begin(db: &Database, table: &str) -> Transaction {
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    let sql = format!("INSERT INTO {table} VALUES (1)");
    within(tx.execute(&ROOT, &sql, &[])).await.unwrap();
    tx
}

/// Waits until the server's process waits for its client to take what it has.
async fn until_the_server_waits(watcher: &Watcher, name: &str) {
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event = 'ClientWrite'"
    );
    within(async { while watcher.number(&waits).await == 0 {} }).await;
}

#[tokio::test]
async fn d8_what_was_read_stays_whatever_becomes_of_its_connection() {
    let Some(server) = server() else { return };
    let db = single(server, "d8").await;
    let request = ROOT.with_cancel();
    let ours = "SELECT repeat('a', 100000) FROM generate_series(1, 1000)";
    let mut rows = within(db.query_stream(&request, ours, &[])).await.unwrap();
    let row = within(rows.next()).await.unwrap().unwrap();
    request.cancel();
    assert!(within(rows.next()).await.unwrap_err().is_canceled());
    drop(rows);
    for theirs in ["b", "c"] {
        let sql = format!("SELECT repeat('{theirs}', 100000)");
        let next = within(db.query_one(&ROOT, &sql, &[])).await.unwrap();
        assert_eq!(next.get::<_, String>(0), theirs.repeat(100_000));
    }
    assert_eq!(row.get::<_, &str>(0), "a".repeat(100_000));
    assert_eq!(db.statistics().opened, 1, "it was the same connection");
}

#[tokio::test]
async fn d9_of_two_cursors_the_one_that_is_dropped_is_closed() {
    let Some(server) = server() else { return };
    let db = within(options(server, "d9").connections(2).open(&ROOT))
        .await
        .unwrap();
    let watcher = Watcher::new(server, "d9").await;
    for drops_the_inner in [true, false] {
        let mut outer = within(db.query_stream(&ROOT, ENDLESS, &[])).await.unwrap();
        assert_eq!(read(&mut outer).await, 1);
        let mut inner = within(db.query_stream(&ROOT, ENDLESS, &[])).await.unwrap();
        assert_eq!(read(&mut inner).await, 1);
        watcher.until("active", 2).await;
        let (gone, mut stays) = if drops_the_inner {
            (inner, outer)
        } else {
            (outer, inner)
        };
        drop(gone);
        watcher.until("active", 1).await;
        for number in 2..=1000 {
            assert_eq!(read(&mut stays).await, number);
        }
        drop(stays);
        watcher.until("active", 0).await;
    }
    assert_eq!(db.statistics().opened, 2);
}

/// The number in the next row.
async fn read(rows: &mut Rows<'_>) -> i64 {
    within(rows.next()).await.unwrap().unwrap().get(0)
}

#[tokio::test]
async fn the_server_waits_for_whoever_reads() {
    let Some(server) = server() else { return };
    let db = single(server, "reader").await;
    let watcher = Watcher::new(server, "reader").await;
    let request = ROOT.with_cancel();
    let mut rows = within(db.query_stream(&request, MANY, &[])).await.unwrap();
    for number in 1..=1000 {
        let row = within(rows.next()).await.unwrap().unwrap();
        assert_eq!(row.get::<_, i32>(0), number);
        if number == 10 {
            until_the_server_waits(&watcher, "reader").await;
        }
    }
    // Given up while it waits: it does not look at the cancel before its rows are taken.
    until_the_server_waits(&watcher, "reader").await;
    request.cancel_for(Reason::ClientGone);
    watcher.until("active", 0).await;
    let error = within(rows.next()).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Reading);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!((db.statistics().opened, db.statistics().discarded), (1, 0));
}

/// Rows that are gathered are read by nobody, and the server does not wait: they are all here.
#[tokio::test]
async fn control_gathered_rows_do_not_make_the_server_wait() {
    let Some(server) = server() else { return };
    let client = plain(server, "gatherer").await;
    let watcher = Watcher::new(server, "gatherer").await;
    // The client is kept: a session that is closed is idle for too short a time to be seen.
    let gathered = tokio::spawn(async move { (client.query(MANY, &[]).await.unwrap().len(), client) });
    watcher.until("idle", 1).await;
    assert_eq!(within(gathered).await.unwrap().0, 100_000);
}

#[tokio::test]
async fn a_stream_dropped_in_the_middle_leaves_a_clean_connection() {
    let Some(server) = server() else { return };
    let db = single(server, "stream_drop").await;
    let watcher = Watcher::new(server, "stream_drop").await;
    for read in 0..20 {
        let mut rows = within(db.query_stream(&ROOT, ENDLESS, &[])).await.unwrap();
        for number in 1..=read {
            let row = within(rows.next()).await.unwrap().unwrap();
            assert_eq!(row.get::<_, i64>(0), number);
        }
        drop(rows);
        let row = within(db.query_one(&ROOT, "SELECT $1::int8", &[&read]))
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), read, "somebody else's answer");
    }
    watcher.until("active", 0).await;
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!((db.statistics().opened, db.statistics().discarded), (1, 0));
}

#[tokio::test]
async fn a_transaction_goes_on_after_its_streams() {
    let Some(server) = server() else { return };
    let db = single(server, "tx_stream").await;
    let watcher = Watcher::new(server, "tx_stream").await;
    watcher.run("CREATE TABLE tx_stream (n int8)").await;
    let mut tx = begin(&db, "tx_stream").await;

    let sql = "INSERT INTO tx_stream SELECT generate_series(2, $1::int8) RETURNING n";
    let mut rows = within(tx.query_stream(&ROOT, sql, &[&100i64])).await.unwrap();
    let mut read = 0;
    while within(rows.next()).await.unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, 99);
    assert!(
        within(rows.next()).await.unwrap().is_none(),
        "and stays at its end"
    );
    drop(rows);

    let mut rows = within(tx.query_stream(&ROOT, MANY, &[])).await.unwrap();
    within(rows.next()).await.unwrap().unwrap();
    within(rows.close()).await.unwrap();

    // A row that can not be made fails the statement, and a savepoint mends that.
    let mut point = within(tx.savepoint(&ROOT)).await.unwrap();
    let sql = "SELECT 1 / (5 - n) FROM generate_series(1, 10) n";
    let mut rows = within(point.query_stream(&ROOT, sql, &[])).await.unwrap();
    let error = loop {
        match within(rows.next()).await {
            Ok(row) => assert!(row.is_some(), "it ends with an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code().map(|code| code.code()), Some("22012"));
    assert!(within(rows.next()).await.unwrap().is_none());
    drop(rows);
    within(point.rollback(&ROOT)).await.unwrap();
    // So does a stream that can not begin.
    let mut point = within(tx.savepoint(&ROOT)).await.unwrap();
    within(point.query_stream(&ROOT, "SELECT nonsense", &[]))
        .await
        .unwrap_err();
    within(point.rollback(&ROOT)).await.unwrap();

    within(tx.commit(&ROOT)).await.unwrap();
    assert_eq!(watcher.number("SELECT count(*) FROM tx_stream").await, 100);
    eventually("the pool is whole", || is_whole(&db)).await;
    let now = db.statistics();
    assert_eq!((now.opened, now.cancels_sent), (1, 0), "{now:?}");
}

#[tokio::test]
async fn d10_a_stream_given_up_in_a_transaction_is_its_rollback() {
    let Some(server) = server() else { return };
    let db = single(server, "tx_stream_drop").await;
    let watcher = Watcher::new(server, "tx_stream_drop").await;
    watcher.run("CREATE TABLE tx_stream_drop (n int8)").await;
    for read in [0, 1, 1000] {
        let mut tx = begin(&db, "tx_stream_drop").await;
        let mut rows = within(tx.query_stream(&ROOT, ENDLESS, &[])).await.unwrap();
        for _ in 0..read {
            within(rows.next()).await.unwrap().unwrap();
        }
        drop(rows);
        let error = within(tx.execute(&ROOT, "INSERT INTO tx_stream_drop VALUES (2)", &[]))
            .await
            .unwrap_err();
        assert!(error.is_transaction_lost() && !error.is_in_doubt(), "{error}");
        assert!(within(tx.commit(&ROOT)).await.unwrap_err().is_transaction_lost());
    }
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(watcher.count("idle in transaction%").await, 0);
    assert_eq!(watcher.number("SELECT count(*) FROM tx_stream_drop").await, 0);
    assert_eq!((db.statistics().opened, db.statistics().discarded), (1, 0));
}

/// Whose end it is, the statement's own context's or the transaction's; and nobody reads.
#[tokio::test]
async fn d10_a_stream_in_a_transaction_ends_with_either_context() {
    let Some(server) = server() else { return };
    let db = single(server, "tx_stream_end").await;
    let watcher = Watcher::new(server, "tx_stream_end").await;
    watcher.run("CREATE TABLE tx_stream_end (n int8)").await;
    for own in [true, false] {
        let (whole, call) = (ROOT.with_cancel(), ROOT.with_cancel());
        let mut tx = within(db.transaction(&whole)).await.unwrap();
        within(tx.execute(&ROOT, "INSERT INTO tx_stream_end VALUES (1)", &[]))
            .await
            .unwrap();
        let mut rows = within(tx.query_stream(&call, ENDLESS, &[])).await.unwrap();
        within(rows.next()).await.unwrap().unwrap();
        let ends = if own { &call } else { &whole };
        ends.cancel_for(Reason::ClientGone);
        watcher.until("active", 0).await;
        watcher.until("idle in transaction%", 0).await;
        let error = within(rows.next()).await.unwrap_err();
        assert!(error.canceled().unwrap().is_from(ends), "{error}");
        assert!(!error.is_in_doubt(), "it was rolled back: {error}");
        drop(rows);
        let error = within(tx.commit(&ROOT)).await.unwrap_err();
        assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    }
    assert_eq!(watcher.number("SELECT count(*) FROM tx_stream_end").await, 0);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!((db.statistics().opened, db.statistics().discarded), (1, 0));
}
