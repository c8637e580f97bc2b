//! Work that behaves badly: it panics, leaks, or blows up when its answer is dropped. The thread and the next user do not
//! notice.

mod common;

use std::mem::ManuallyDrop;
use std::sync::mpsc;

use bequest_sqlite::Step;
use bequest_sqlite::rusqlite;
use common::{ROOT, database, eventually, poll_once, rows, told, within};

#[tokio::test]
async fn a_panic_is_rolled_back_and_reported() {
    let db = database().await;
    let write = db.write(&ROOT, |tx| -> rusqlite::Result<()> {
        tx.execute("INSERT INTO t VALUES (1)", ())?;
        panic!("out of {}", "luck")
    });
    let error = within(write).await.unwrap_err();
    assert!(error.is_panicked());
    assert_eq!(error.step(), Step::Running);
    assert_eq!(
        error.to_string(),
        "sqlite, running: the work panicked: out of luck"
    );
    let writer = db.statistics().writer;
    assert_eq!(
        (
            writer.panicked,
            writer.rolled_back,
            writer.running,
            writer.threads
        ),
        (1, 1, 0, 1)
    );
    assert_eq!(rows(&db).await, 0);
    within(db.execute(&ROOT, "INSERT INTO t VALUES (2)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 1);
}

#[tokio::test]
async fn a_panic_of_a_reader_is_reported() {
    let db = database().await;
    let error = within(db.read(&ROOT, |_| -> rusqlite::Result<()> { panic!("plain") }))
        .await
        .unwrap_err();
    assert!(
        error.is_panicked() && error.to_string().ends_with(": plain"),
        "{error}"
    );
    assert_eq!(rows(&db).await, 0);
}

/// A leaked statement would hold its snapshot, and so the log, for ever.
#[tokio::test]
async fn a_connection_with_a_leaked_statement_is_replaced() {
    let db = database().await;
    db.execute_batch(&ROOT, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let leak = db.read(&ROOT, |conn| {
        let mut leaked = ManuallyDrop::new(conn.prepare("SELECT x FROM t")?);
        let mut rows = ManuallyDrop::new(leaked.query(())?);
        rows.next()?.unwrap().get::<_, i64>(0)
    });
    assert_eq!(within(leak).await.unwrap(), 1);
    assert_eq!(db.statistics().readers.discarded, 1);
    within(db.execute(&ROOT, "INSERT INTO t VALUES (3)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 3, "the next user sees the newest state");
}

/// An answer that nobody waits for is dropped on the database's thread.
#[tokio::test]
async fn an_answer_that_panics_when_dropped_does_not_end_the_thread() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("dropped");
            }
        }
    }

    let db = database().await;
    let (release, released) = mpsc::channel::<()>();
    let (started, begun) = mpsc::channel();
    let mut call = Box::pin(db.read(&ROOT, move |_| {
        started.send(()).unwrap();
        released.recv().unwrap();
        Ok(Bomb)
    }));
    poll_once(&mut call).await;
    told(&begun).await;
    drop(call);
    release.send(()).unwrap();
    eventually("the thread is done with it", || db.statistics().running() == 0).await;
    assert_eq!(rows(&db).await, 0, "the only reader lives");
    assert_eq!(db.statistics().readers.threads, 1);
}

/// A rollback that the work hides behind a panic of its own is still a rollback, and the context's end is no excuse for it.
#[tokio::test]
async fn a_panic_over_a_cancelled_statement_is_a_panic() {
    let db = database().await;
    let request = ROOT.with_cancel();
    let client = request.canceller();
    let write = db.write(&request, move |tx| {
        tx.execute("INSERT INTO t VALUES (1)", ())?;
        client.cancel();
        tx.execute("INSERT INTO t VALUES (2)", ())
            .expect("it always worked");
        Ok(())
    });
    let error = within(write).await.unwrap_err();
    assert!(error.is_panicked() && !error.is_canceled(), "{error}");
    assert_eq!(rows(&db).await, 0);
}
