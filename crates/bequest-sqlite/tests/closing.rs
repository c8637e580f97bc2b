//! Opening and closing: errors that say which file, threads that end, data that are in the file afterwards.

mod common;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use bequest::{Kind, Reason};
use bequest_sqlite::rusqlite::Connection;
use bequest_sqlite::{Database, Options, Step};
use common::{ROOT, database, endless, eventually, poll_once, told, within};

#[tokio::test]
async fn dropping_the_last_handle_ends_the_threads() {
    let db = database().await;
    let path = db.path().to_owned();
    let other = db.clone();
    drop(db);
    assert_eq!(common::rows(&other).await, 0, "a handle is left");
    drop(other);
    // The folder goes with the last thread.
    eventually("the threads have ended", || !path.parent().unwrap().exists()).await;
}

#[tokio::test]
async fn dropping_everything_in_the_middle_ends_the_threads() {
    let db = database().await;
    let path = db.path().to_owned();
    let (started, begun) = mpsc::channel();
    let mut query = Box::pin(async move { db.read(&ROOT, endless(started)).await });
    poll_once(&mut query).await;
    told(&begun).await;
    drop(query); // the last handle goes with it
    eventually("the threads have ended", || !path.parent().unwrap().exists()).await;
}

#[tokio::test]
async fn close_lets_accepted_calls_end_and_empties_the_log() {
    let folder = Options::temporary().unwrap().open(&ROOT).await.unwrap(); // keeps a folder for us
    let path = folder.path().with_file_name("closed.sqlite");
    let db = Database::open(&ROOT, &path).await.unwrap();
    db.execute_batch(&ROOT, "CREATE TABLE t (x)").await.unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (started, begun) = mpsc::channel();
    let writing = tokio::spawn({
        let db = db.clone();
        async move {
            let write = db.write(&ROOT, move |tx| {
                started.send(()).unwrap();
                released.recv().unwrap();
                tx.execute("INSERT INTO t VALUES (1)", ())
            });
            write.await
        }
    });
    told(&begun).await;
    let mut queued = Box::pin(db.execute(&ROOT, "INSERT INTO t VALUES (2)", ()));
    poll_once(&mut queued).await;

    let mut closing = Box::pin(db.close(&ROOT));
    poll_once(&mut closing).await;
    let refused = within(db.execute(&ROOT, "INSERT INTO t VALUES (3)", ()))
        .await
        .unwrap_err();
    assert!(refused.is_closed());
    assert_eq!(refused.to_string(), "sqlite, waiting: the database is closed");
    release.send(()).unwrap();
    within(closing).await.unwrap();
    assert_eq!(within(writing).await.unwrap().unwrap(), 1);
    assert_eq!(within(queued).await.unwrap(), 1);

    let statistics = db.statistics();
    assert_eq!((statistics.readers.threads, statistics.writer.threads), (0, 0));
    let log = path.with_file_name("closed.sqlite-wal");
    assert!(
        fs::metadata(&log).map_or(true, |log| log.len() == 0),
        "everything is in the file"
    );
    let conn = Connection::open(&path).unwrap();
    assert_eq!(
        conn.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0))
            .unwrap(),
        2
    );

    within(db.close(&ROOT)).await.unwrap(); // once more is well
    drop(folder);
}

#[tokio::test]
async fn close_cancels_what_outlasts_its_context() {
    let db = database().await;
    let (started, begun) = mpsc::channel();
    let running = tokio::spawn({
        let db = db.clone();
        async move { db.read(&ROOT, endless(started)).await }
    });
    told(&begun).await;
    let mut queued = Box::pin(db.query(&ROOT, "SELECT 1", (), |_| Ok(())));
    poll_once(&mut queued).await;

    let limit = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.close(&limit)).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert_eq!(error.step(), Step::Closing);
    let stopped = within(running).await.unwrap().unwrap_err();
    assert_eq!(stopped.canceled().unwrap().reason(), Reason::Shutdown);
    assert!(within(queued).await.unwrap_err().is_closed());
    within(db.close(&ROOT)).await.unwrap();
    assert_eq!(
        db.statistics().readers.threads + db.statistics().writer.threads,
        0
    );
}

#[tokio::test]
async fn a_dropped_close_can_be_taken_up_again() {
    let db = database().await;
    let (started, begun) = mpsc::channel();
    let request = ROOT.with_cancel();
    let running = tokio::spawn({
        let (db, ctx) = (db.clone(), request.context());
        async move { db.read(&ctx, endless(started)).await }
    });
    told(&begun).await;
    let mut closing = Box::pin(db.close(&ROOT));
    poll_once(&mut closing).await;
    drop(closing);
    assert_eq!(db.statistics().readers.running, 1, "nothing was cut short");
    request.cancel();
    assert!(within(running).await.unwrap().unwrap_err().is_canceled());
    within(db.close(&ROOT)).await.unwrap();
    assert_eq!(db.statistics().writer.threads, 0);
}

#[tokio::test]
async fn opening_says_which_file_and_why() {
    let db = database().await; // keeps a folder for us
    let missing = db.path().with_file_name("none").join("x.sqlite");
    let error = within(Database::open(&ROOT, &missing)).await.unwrap_err();
    assert_eq!(error.step(), Step::Opening);
    let text = error.to_string();
    assert!(
        text.contains(missing.to_str().unwrap()) && text.contains("unable to open"),
        "{text}"
    );

    let prose = db.path().with_file_name("prose.sqlite");
    fs::write(&prose, "This file is not a database. ".repeat(100)).unwrap();
    let text = within(Database::open(&ROOT, &prose))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(prose.to_str().unwrap()) && text.contains("not a database"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(&prose).unwrap().len(),
        2900,
        "it was left alone"
    );
}

/// D4: opening is bounded by the context of whoever asks for it.
#[tokio::test]
async fn d4_opening_waits_for_a_locked_file_no_longer_than_its_context() {
    let folder = database().await;
    let path = folder.path().with_file_name("locked.sqlite");
    let holder = Connection::open(&path).unwrap(); // with a rollback journal, so that readers and writers exclude each other
    holder
        .execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE")
        .unwrap();

    let request = ROOT.with_timeout(Duration::from_millis(30));
    let error = within(Database::open(&request, &path)).await.unwrap_err();
    assert_eq!(
        *error.canceled().unwrap_or_else(|| panic!("{error}")),
        Kind::DeadlineExceeded
    );
    assert_eq!(error.step(), Step::Opening);

    let open = Database::open(&ROOT, &path);
    let release = async { holder.execute_batch("COMMIT").unwrap() };
    let (db, ()) = within(async { tokio::join!(open, release) }).await;
    assert_eq!(common::rows(&db.unwrap()).await, 0);
}

#[tokio::test]
async fn an_ended_context_opens_nothing() {
    let folder = database().await;
    let path = folder.path().with_file_name("never.sqlite");
    let request = ROOT.with_cancel();
    request.cancel();
    let error = within(Database::open(&request, &path)).await.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(error.step(), Step::Opening);
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_are_opened_as_promised() {
    let db = database().await;
    let pragma = |name: &'static str| {
        move |conn: &Connection| conn.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, String>(0))
    };
    let number = |name: &'static str| {
        move |conn: &Connection| conn.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, i64>(0))
    };
    assert_eq!(db.read(&ROOT, pragma("journal_mode")).await.unwrap(), "wal");
    assert_eq!(db.read(&ROOT, number("query_only")).await.unwrap(), 1);
    assert_eq!(db.read(&ROOT, number("foreign_keys")).await.unwrap(), 1);
    assert_eq!(
        db.write(&ROOT, move |tx| number("foreign_keys")(tx))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        db.write(&ROOT, move |tx| number("synchronous")(tx))
            .await
            .unwrap(),
        1
    );
}
