//! COPY is kept whole or not at all; notifications.

use std::time::Duration;

use crate::common::{ROOT, Watcher, eventually, is_whole, polled, server, single, within};

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
