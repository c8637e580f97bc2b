//! A cancel is a rollback, wherever in the transaction it comes, and nothing is ever written outside one.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_sqlite::rusqlite::Connection;
use bequest_sqlite::{Database, Step};
use common::{ROOT, database, eventually, poll_once, rows, told, within};

/// Inserts rows for ever.
const LONG_INSERT: &str =
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

#[tokio::test]
async fn d10_a_cancel_in_a_statement_rolls_everything_back() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let (started, begun) = mpsc::channel();
    let write = db.write(&request, move |tx| {
        tx.execute("INSERT INTO t VALUES ('first')", ())?;
        started.send(()).unwrap();
        tx.execute(LONG_INSERT, ())
    });
    let cancel = async {
        told(&begun).await;
        request.cancel_for(Reason::ClientGone);
    };
    let (answer, ()) = within(async { tokio::join!(write, cancel) }).await;
    let error = answer.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(rows(&db).await, 0);
    assert_eq!(db.statistics().writer.rolled_back, 1);
    assert_eq!(db.statistics().running(), 0);
}

#[tokio::test]
async fn d10_dropping_the_future_rolls_back() {
    let db = database().await;
    let (started, begun) = mpsc::channel();
    let mut write = Box::pin(db.write(&ROOT, move |tx| {
        tx.execute("INSERT INTO t VALUES ('first')", ())?;
        started.send(()).unwrap();
        tx.execute(LONG_INSERT, ())
    }));
    poll_once(&mut write).await;
    told(&begun).await;
    drop(write);
    eventually("nothing runs any more", || db.statistics().running() == 0).await;
    assert_eq!(db.statistics().writer.rolled_back, 1);
    assert_eq!(rows(&db).await, 0);
}

/// The interrupted insert has rolled the transaction back. The work does not notice, and writes on: that would be in
/// autocommit.
#[tokio::test]
async fn d10_no_statement_runs_in_autocommit_after_the_rollback() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let (seen, news) = mpsc::channel();
    let write = db.write(&request, move |tx| {
        // Prepared before the end: for these no authorizer will be asked again.
        let mut long = tx.prepare(LONG_INSERT)?;
        let mut late = tx.prepare("INSERT INTO t VALUES ('late')")?;
        tx.execute("INSERT INTO t VALUES ('first')", ())?;
        client.cancel();
        let _swallowed = long.execute(());
        let refused = late.execute(()).is_err();
        seen.send((tx.is_autocommit(), refused)).unwrap();
        Ok(())
    });
    let error = within(write).await.unwrap_err();
    assert!(error.is_canceled(), "{error}");
    assert_eq!(
        told(&news).await,
        (true, true),
        "the late statement found autocommit, and was refused"
    );
    assert_eq!(rows(&db).await, 0);
}

/// The same with a rollback that is SQLite's own doing while the context lives: a constraint with `ON CONFLICT ROLLBACK`.
#[tokio::test]
async fn d10_no_statement_runs_in_autocommit_after_sqlite_rolled_back() {
    let db = database().await;
    db.execute_batch(
        &ROOT,
        "CREATE TABLE u (x UNIQUE ON CONFLICT ROLLBACK); INSERT INTO u VALUES (1)",
    )
    .await
    .unwrap();
    let (seen, news) = mpsc::channel();
    let write = db.write(&ROOT, move |tx| {
        tx.execute("INSERT INTO t VALUES ('before')", ())?;
        tx.execute("INSERT INTO u VALUES (1)", ()).unwrap_err();
        let in_autocommit = tx.is_autocommit();
        let late = tx.execute("INSERT INTO t VALUES ('late')", ());
        seen.send((in_autocommit, late.is_err())).unwrap();
        Ok(())
    });
    let error = within(write).await.unwrap_err();
    assert_eq!(
        told(&news).await,
        (true, true),
        "the late statement found autocommit, and was refused"
    );
    assert!(error.is_transaction_lost(), "{error}");
    assert!(!error.is_constraint());
    assert_eq!(rows(&db).await, 0);
}

/// The control: on a plain connection, interrupted once, the late statement is written.
#[test]
fn control_a_plain_connection_writes_in_autocommit_after_the_rollback() {
    let interrupt = Arc::new(AtomicBool::new(false));
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    let flag = Arc::clone(&interrupt);
    conn.progress_handler(1000, Some(move || flag.swap(false, Ordering::Relaxed)))
        .unwrap();

    let tx = conn.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES ('first')", ()).unwrap();
    interrupt.store(true, Ordering::Relaxed);
    tx.execute(LONG_INSERT, ()).unwrap_err();
    assert!(tx.is_autocommit());
    tx.execute("INSERT INTO t VALUES ('late')", ()).unwrap();
    tx.commit().unwrap_err(); // "no transaction is active"

    let mut rest = conn.prepare("SELECT x FROM t").unwrap();
    let rest: Vec<String> = rest
        .query_map((), |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rest, ["late"], "half of the transaction was written");
}

#[tokio::test]
async fn a_cancel_before_the_commit_is_a_rollback() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let write = db.write(&request, move |tx| {
        tx.execute("INSERT INTO t VALUES (1)", ())?;
        client.cancel();
        Ok(())
    });
    let error = within(write).await.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(error.step(), Step::Committing);
    assert_eq!(rows(&db).await, 0);
    assert_eq!(db.statistics().writer.rolled_back, 1);
}

/// D12: what the error is does not depend on a race: a transaction whose context ended says cancelled, and a work that
/// ended its transaction by itself says that.
#[tokio::test]
async fn d12_cancelled_and_ended_by_itself_are_told_apart() {
    let db = database().await;
    for ending in ["COMMIT", "ROLLBACK", "END"] {
        let write = db.write(&ROOT, move |tx| {
            tx.execute("INSERT INTO t VALUES (1)", ())?;
            let _swallowed = tx.execute_batch(ending);
            Ok(())
        });
        let error = within(write).await.unwrap_err();
        assert!(
            error.is_transaction_lost() && !error.is_canceled(),
            "{ending}: {error}"
        );
        assert_eq!(rows(&db).await, 0, "{ending}");
    }
    let error = within(db.execute_batch(
        &ROOT,
        "INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2)",
    ))
    .await;
    assert!(error.unwrap_err().is_transaction_lost());
    assert_eq!(rows(&db).await, 0);
}

/// D13, better: the commit looks at the context one last time; once it is under way it is not disturbed. Whatever the
/// instant of the cancel, acknowledged means written and refused means absent.
#[tokio::test]
async fn d13_acknowledged_is_written_and_refused_is_absent() {
    let db = database().await;
    let (mut written, mut refused) = (0, 0);
    for round in 0..400 {
        let request = Context::background().with_cancel();
        let client = request.canceller();
        let write = db.execute(&request, "INSERT INTO t VALUES (?1)", [round]);
        let cancel = async move {
            for _ in 0..round % 40 {
                tokio::task::yield_now().await;
            }
            client.cancel();
        };
        let (answer, ()) = within(async { tokio::join!(write, cancel) }).await;
        match answer {
            Ok(1) => written += 1,
            Ok(other) => panic!("{other} rows"),
            Err(error) => {
                assert!(error.is_canceled(), "{error}");
                refused += 1;
            }
        }
        assert_eq!(rows(&db).await, written, "round {round}");
    }
    assert_eq!(written + refused, 400);
    assert!(refused > 0, "no cancel came in time; the test proves nothing");
}

/// D11, better: after a rollback the connection is clean and kept.
#[tokio::test]
async fn d11_the_connection_is_clean_afterwards() {
    let db = database().await;
    let request = Context::background().with_timeout(Duration::from_millis(20));
    within(db.execute(&request, LONG_INSERT, ())).await.unwrap_err();
    assert_eq!(db.statistics().writer.discarded, 0);
    within(db.execute(&ROOT, "INSERT INTO t VALUES (1)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 1);
}

#[tokio::test]
async fn a_script_is_written_whole_or_not_at_all() {
    let db = database().await;
    let request = Context::background().with_timeout(Duration::from_millis(20));
    let script = format!(
        "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); {LONG_INSERT}; INSERT INTO t VALUES (3)"
    );
    assert!(
        within(db.execute_batch(&request, &script))
            .await
            .unwrap_err()
            .is_canceled()
    );
    assert_eq!(rows(&db).await, 0);

    within(db.execute_batch(&ROOT, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 2);
    within(db.execute_batch(&ROOT, "INSERT INTO t VALUES (3); SELEKT"))
        .await
        .unwrap_err();
    assert_eq!(rows(&db).await, 2);
}

#[tokio::test]
async fn savepoints_are_free_to_use() {
    let db = database().await;
    let write = db.write(&ROOT, |tx| {
        tx.execute_batch(
            "SAVEPOINT a; INSERT INTO t VALUES (1); ROLLBACK TO a; RELEASE a; INSERT INTO t VALUES (2)",
        )
    });
    within(write).await.unwrap();
    assert_eq!(rows(&db).await, 1);
}

/// D10, on readers: a transaction that the work left open is ended with it, and holds no snapshot for the next user.
#[tokio::test]
async fn d10_a_transaction_left_open_by_a_reader_is_ended() {
    let db = database().await;
    assert_eq!(leave_a_transaction_open(&db).await, 0);
    within(db.execute(&ROOT, "INSERT INTO t VALUES (1)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 1, "the reader sees the newest state");
    assert_eq!(db.statistics().readers.discarded, 0);
}

async fn leave_a_transaction_open(db: &Database) -> i64 {
    let read = db.read(&ROOT, |conn| {
        conn.execute_batch("BEGIN")?;
        conn.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
    });
    within(read).await.unwrap()
}

#[tokio::test]
async fn readers_can_not_write() {
    let db = database().await;
    let read = db.read(&ROOT, |conn| {
        conn.execute_batch("PRAGMA query_only = OFF")?;
        conn.execute("INSERT INTO t VALUES (1)", ())
    });
    let error = within(read).await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(rows(&db).await, 0);
}
