//! COPY is kept whole or not at all; notifications.

use std::pin::pin;
use std::time::Duration;

use bequest_test::servers::Postgres;
use bytes::Bytes;
use futures_util::SinkExt;

use crate::common::{ROOT, Watcher, eventually, is_whole, plain, polled, server, single, within};

#[tokio::test]
async fn a_copy_that_is_not_finished_leaves_nothing() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_in").await;
    let watcher = Watcher::new(server, "copy_in").await;
    watcher.run("CREATE TABLE copy_in (n int)").await;
    let sql = "COPY copy_in FROM STDIN";
    let lines = "1\n".repeat(10_000);

    for pieces in (0..3).cycle().take(30) {
        let mut dropped = within(db.copy_in(&ROOT, sql)).await.unwrap();
        for _ in 0..pieces {
            within(dropped.send(lines.clone())).await.unwrap();
        }
        drop(dropped);
        let row = within(db.query_one(&ROOT, "SELECT 1", &[])).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 1);
    }
    let request = ROOT.with_cancel();
    let mut canceled = within(db.copy_in(&request, sql)).await.unwrap();
    within(canceled.send(lines.clone())).await.unwrap();
    request.cancel();
    // Nobody sends, and the connection is free all the same.
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert!(
        within(canceled.send(lines.clone()))
            .await
            .unwrap_err()
            .is_canceled()
    );
    assert!(within(canceled.finish()).await.unwrap_err().is_canceled());

    let mut wrong = within(db.copy_in(&ROOT, sql)).await.unwrap();
    within(wrong.send("one\n")).await.unwrap();
    let error = within(wrong.finish()).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("22P02"));

    assert_eq!(watcher.number("SELECT count(*) FROM copy_in").await, 0);
    let mut finished = within(db.copy_in(&ROOT, sql)).await.unwrap();
    within(finished.send(lines)).await.unwrap();
    assert_eq!(within(finished.finish()).await.unwrap(), 10_000);
    assert_eq!(watcher.number("SELECT count(*) FROM copy_in").await, 10_000);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(db.statistics().opened, 1);
}

/// A trigger that takes its time: the data has been failed, and the server does not look at it.
#[tokio::test]
async fn a_copy_that_does_not_see_its_end_is_cancelled() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_slow").await;
    let watcher = Watcher::new(server, "copy_slow").await;
    watcher
        .run(
            "CREATE TABLE copy_slow (n int);
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
             CREATE TRIGGER slow BEFORE INSERT ON copy_slow FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    for finishes in [false, true] {
        let request = ROOT.with_cancel();
        let mut copy = within(db.copy_in(&request, "COPY copy_slow FROM STDIN"))
            .await
            .unwrap();
        within(copy.send("1\n".repeat(100_000))).await.unwrap();
        if finishes {
            let leaving = async {
                watcher.until("active", 1).await;
                request.cancel();
            };
            let (answer, ()) = within(async { tokio::join!(copy.finish(), leaving) }).await;
            assert!(answer.unwrap_err().is_canceled());
        } else {
            drop(copy);
        }
        within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
        watcher.until("active", 0).await;
    }
    assert_eq!(watcher.number("SELECT count(*) FROM copy_slow").await, 0);
}

#[tokio::test]
async fn a_copy_that_can_not_begin_harms_nobody() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_begin").await;
    for _ in 0..3 {
        let error = within(db.copy_in(&ROOT, "COPY no_such_table FROM STDIN"))
            .await
            .unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42P01"));
        let row = within(db.query_one(&ROOT, "SELECT 7", &[])).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7);
    }
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded), (4, 3), "{now:?}");
}

#[tokio::test]
async fn a_copy_out_ends_with_its_context_even_if_nobody_reads() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_out").await;
    let watcher = Watcher::new(server, "copy_out").await;
    let request = ROOT.with_cancel();
    let sql = "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT";
    let mut copy = within(db.copy_out(&request, sql)).await.unwrap();
    assert_eq!(within(copy.next()).await.unwrap().unwrap(), "1\n");
    request.cancel();
    watcher.until("active", 0).await;
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert!(within(copy.next()).await.unwrap_err().is_canceled());

    let mut copy = within(db.copy_out(&ROOT, "COPY (SELECT 1) TO STDOUT"))
        .await
        .unwrap();
    assert!(within(copy.next()).await.unwrap().is_some());
    assert!(within(copy.next()).await.unwrap().is_none());
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let now = db.statistics();
    assert_eq!((now.opened, now.cancels_sent > 0), (1, true), "{now:?}");
}

#[tokio::test]
async fn no_notification_is_lost_by_not_waiting_for_it() {
    let Some(server) = server() else { return };
    let db = single(server, "listen").await;
    let watcher = Watcher::new(server, "listen").await;
    let mut listener = within(db.listen(&ROOT, &["quo\"ted", "other"])).await.unwrap();
    for number in 0..100 {
        let impatient = ROOT.with_timeout(Duration::from_millis(1));
        assert!(within(listener.recv(&impatient)).await.unwrap_err().is_canceled());
        watcher.run(&format!("NOTIFY \"quo\"\"ted\", '{number}'")).await;
        if let Some(early) = polled(listener.recv(&ROOT), 1).await {
            assert_eq!(early.unwrap().payload(), number.to_string());
        } else {
            assert_eq!(
                within(listener.recv(&ROOT)).await.unwrap().payload(),
                number.to_string()
            );
        }
    }
    watcher
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        .await;
    assert!(within(listener.recv(&ROOT)).await.unwrap_err().is_unreachable());
    assert!(within(listener.recv(&ROOT)).await.unwrap_err().is_closed());
    assert_eq!(db.statistics().opened, 1, "it is none of the pool's");
}

/// The commit comes behind what the driver takes for the end; and what it finds is heard.
#[tokio::test]
async fn a_copy_is_acknowledged_when_it_is_committed() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_deferred").await;
    let watcher = Watcher::new(server, "copy_deferred").await;
    watcher
        .run("CREATE TABLE copy_deferred (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        .await;
    let sql = "COPY copy_deferred FROM STDIN";
    let mut copy = within(db.copy_in(&ROOT, sql)).await.unwrap();
    within(copy.send("7\n7\n")).await.unwrap();
    let error = within(copy.finish()).await.unwrap_err();
    assert!(error.is_constraint() && !error.is_in_doubt(), "{error}");
    assert_eq!(watcher.number("SELECT count(*) FROM copy_deferred").await, 0);

    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    let mut copy = within(tx.copy_in(&ROOT, sql)).await.unwrap();
    within(copy.send("7\n7\n")).await.unwrap();
    assert_eq!(within(copy.finish()).await.unwrap(), 2);
    assert!(within(tx.commit(&ROOT)).await.unwrap_err().is_constraint());
    assert_eq!(watcher.number("SELECT count(*) FROM copy_deferred").await, 0);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn control_the_drivers_copy_acknowledges_what_is_lost() {
    let Some(server) = server() else { return };
    let client = plain(server, "copy_deferred_control").await;
    let table = "CREATE TABLE copy_deferred_control (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    client.batch_execute(table).await.unwrap();
    let sink = client
        .copy_in("COPY copy_deferred_control FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    sink.send(Bytes::from("7\n7\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2, "acknowledged");
    let sql = "SELECT count(*) FROM copy_deferred_control";
    let kept: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(kept, 0, "and lost");
}

/// A copy that has begun and fails before the server has looked at its data is answered once too often.
const REFUSES: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN PERFORM pg_sleep(TG_ARGV[0]::float); RAISE ''refused''; END'";

fn refusing(table: &str, after: &str) -> String {
    format!(
        "CREATE TABLE {table} (n int);
         CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse('{after}')"
    )
}

#[tokio::test]
async fn a_copy_that_is_answered_twice_harms_nobody() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let db = single(&server, "copy_twice").await;
    let watcher = Watcher::new(&server, "copy_twice").await;
    watcher.run(REFUSES).await;
    watcher.run(&refusing("copy_twice", "0")).await;
    watcher.run(&refusing("copy_twice_slow", "600")).await;
    let answers = async |number: i64| {
        let row = within(db.query_one(&ROOT, "SELECT $1::int8", &[&number]))
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), number, "somebody else's answer");
    };
    for round in 0..10 {
        let mut finished = within(db.copy_in(&ROOT, "COPY copy_twice FROM STDIN"))
            .await
            .unwrap();
        within(finished.send("1\n")).await.unwrap();
        let error = within(finished.finish()).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("P0001"));
        answers(round).await;

        drop(
            within(db.copy_in(&ROOT, "COPY copy_twice FROM STDIN"))
                .await
                .unwrap(),
        );
        answers(round).await;

        let mut tx = within(db.transaction(&ROOT)).await.unwrap();
        let copy = within(tx.copy_in(&ROOT, "COPY copy_twice FROM STDIN"))
            .await
            .unwrap();
        within(copy.finish()).await.unwrap_err();
        let error = within(tx.commit(&ROOT)).await.unwrap_err();
        assert!(error.is_transaction_lost(), "{error}");
        answers(round).await;

        // Likewise if it is the context's end by which it fails there, or the server's own limit.
        let request = ROOT.with_timeout(Duration::from_millis(5));
        let mut canceled = within(db.copy_in(&request, "COPY copy_twice_slow FROM STDIN")).await;
        if let Ok(copy) = &mut canceled {
            while within(copy.send("1\n")).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        drop(canceled);
        answers(round).await;
    }
    watcher.until("active", 0).await;
    eventually("the pool is whole", || is_whole(&db)).await;
}

#[tokio::test]
async fn control_the_drivers_next_query_has_a_wrong_answer() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let client = plain(&server, "copy_twice_control").await;
    client.batch_execute(REFUSES).await.unwrap();
    client.batch_execute(&refusing("copy_twice", "0")).await.unwrap();
    let select = client.prepare("SELECT 1").await.unwrap();
    let sink = client
        .copy_in::<_, Bytes>("COPY copy_twice FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    let (copied, next) =
        within(async { tokio::join!(sink.as_mut().finish(), client.query_one(&select, &[])) }).await;
    assert_eq!(copied.unwrap_err().code().map(|code| code.code()), Some("P0001"));
    let error = next.unwrap_err();
    assert!(
        error.as_db_error().is_none(),
        "not the server's answer to it: {error}"
    );
}

#[tokio::test]
async fn copies_in_a_transaction_are_part_of_it() {
    let Some(server) = server() else { return };
    let db = single(server, "copy_tx").await;
    let watcher = Watcher::new(server, "copy_tx").await;
    watcher.run("CREATE TABLE copy_tx (n int)").await;
    let (into, from) = ("COPY copy_tx FROM STDIN", "COPY copy_tx TO STDOUT");
    let kept = "SELECT count(*) FROM copy_tx";

    // It goes on after them, also after one that the server refused.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    let mut copy = within(tx.copy_in(&ROOT, into)).await.unwrap();
    within(copy.send("1\n2\n")).await.unwrap();
    assert_eq!(within(copy.finish()).await.unwrap(), 2);
    let mut point = within(tx.savepoint(&ROOT)).await.unwrap();
    let mut wrong = within(point.copy_in(&ROOT, into)).await.unwrap();
    within(wrong.send("one\n")).await.unwrap();
    let error = within(wrong.finish()).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("22P02"));
    within(point.rollback(&ROOT)).await.unwrap();
    let mut copy = within(tx.copy_out(&ROOT, from)).await.unwrap();
    assert_eq!(within(copy.next()).await.unwrap().unwrap(), "1\n");
    assert_eq!(within(copy.next()).await.unwrap().unwrap(), "2\n");
    assert!(within(copy.next()).await.unwrap().is_none());
    drop(copy);
    assert_eq!(watcher.number(kept).await, 0);
    within(tx.commit(&ROOT)).await.unwrap();
    assert_eq!(watcher.number(kept).await, 2);
    assert_eq!(db.statistics().cancels_sent, 0);

    // One that is given up ends it: by its drop, by its own context, by the transaction's.
    for how in 0..3 {
        let (whole, call) = (ROOT.with_cancel(), ROOT.with_cancel());
        let mut tx = within(db.transaction(&whole)).await.unwrap();
        within(tx.execute(&ROOT, "INSERT INTO copy_tx VALUES (3)", &[]))
            .await
            .unwrap();
        let mut copy = within(tx.copy_in(&call, into)).await.unwrap();
        within(copy.send("4\n")).await.unwrap();
        match how {
            0 => drop(copy),
            1 => {
                call.cancel();
                assert!(within(copy.send("5\n")).await.unwrap_err().is_canceled());
                assert!(within(copy.finish()).await.unwrap_err().is_canceled());
            }
            _ => {
                whole.cancel();
                let error = within(copy.finish()).await.unwrap_err();
                assert!(error.canceled().unwrap().is_from(&whole) && !error.is_in_doubt());
            }
        }
        let error = within(tx.commit(&ROOT)).await.unwrap_err();
        assert_eq!(error.is_transaction_lost(), how == 0, "{error}");
        watcher.until("idle", 1).await;
        assert_eq!(watcher.number(kept).await, 2);
    }
    // And one that goes out and is dropped.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    let endless = "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT";
    let mut copy = within(tx.copy_out(&ROOT, endless)).await.unwrap();
    assert_eq!(within(copy.next()).await.unwrap().unwrap(), "1\n");
    drop(copy);
    assert!(within(tx.commit(&ROOT)).await.unwrap_err().is_transaction_lost());
    watcher.until("idle", 1).await;
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!((db.statistics().opened, db.statistics().discarded), (1, 0));
}
