//! A running statement ends with its context: by cancel, by deadline, by the drop of its future. Beside each, the way
//! that does not work.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_sqlite::rusqlite::{Connection, Error, ErrorCode};
use bequest_sqlite::{Database, Step};
use common::{ENDLESS, ROOT, database, endless, eventually, poll_once, rows, told, within};

/// The next user of the only reader is answered.
async fn next_user_is_answered(db: &Database) {
    let answer = db.query_one(&ROOT, "SELECT 42", (), |row| row.get::<_, i64>(0));
    assert_eq!(within(answer).await.unwrap(), 42);
}

#[tokio::test]
async fn d5_a_cancel_stops_the_statement() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let (started, begun) = mpsc::channel();
    let query = tokio::spawn({
        let (db, ctx) = (db.clone(), request.context());
        async move { db.read(&ctx, endless(started)).await }
    });
    told(&begun).await;
    assert_eq!(db.statistics().readers.running, 1);

    request.cancel_for(Reason::ClientGone);
    let error = within(query).await.unwrap().unwrap_err();
    // The thread lowered the number before it answered.
    assert_eq!(db.statistics().running(), 0);
    let end = error
        .canceled()
        .expect("the context's error, not the interrupt's");
    assert_eq!(*end, Kind::Canceled);
    assert_eq!(end.reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Running);
    assert!(
        error
            .to_string()
            .starts_with("sqlite, running: context canceled: client disconnected"),
        "{error}"
    );
    assert_eq!(db.statistics().readers.interrupted, 1);
    next_user_is_answered(&db).await;
}

#[tokio::test]
async fn a_cause_survives_the_stop() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let (started, begun) = mpsc::channel();
    let query = db.read(&request, endless(started));
    let cancel = async {
        told(&begun).await;
        request.cancel_with("quota used up");
    };
    let (answer, ()) = within(async { tokio::join!(query, cancel) }).await;
    let error = answer.unwrap_err();
    assert_eq!(
        error.canceled().unwrap().cause().unwrap().to_string(),
        "quota used up"
    );
    assert!(error.canceled().unwrap().is_from(&request));
}

#[tokio::test]
async fn a_deadline_stops_the_statement() {
    let db = database().await;
    let request = Context::background().with_timeout(Duration::from_millis(30));
    let (started, _begun) = mpsc::channel();
    let error = within(db.read(&request, endless(started))).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert!(error.canceled().unwrap().is_from(&request));
    assert_eq!(db.statistics().running(), 0);
    next_user_is_answered(&db).await;
}

#[tokio::test]
async fn dropping_the_future_stops_the_statement() {
    let db = database().await;
    let (started, begun) = mpsc::channel();
    let mut query = Box::pin(db.read(&ROOT, endless(started)));
    poll_once(&mut query).await;
    told(&begun).await;
    assert_eq!(db.statistics().readers.running, 1);

    drop(query);
    eventually("nothing runs any more", || db.statistics().running() == 0).await;
    assert_eq!(db.statistics().readers.interrupted, 1);
    next_user_is_answered(&db).await;
}

/// The control of the three above: the same statement on a blocking thread goes on after its future was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_spawn_blocking_runs_on_after_the_drop() {
    let running = Arc::new(AtomicUsize::new(0));
    let conn = Connection::open_in_memory().unwrap();
    let interrupt = conn.get_interrupt_handle();
    let (started, begun) = mpsc::channel();
    let query = tokio::task::spawn_blocking({
        let running = Arc::clone(&running);
        move || {
            running.fetch_add(1, Ordering::SeqCst);
            let answer = endless(started)(&conn);
            running.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    told(&begun).await;
    query.abort();
    drop(query); // the client left

    // Ours would have stopped long since: it needs a thousand steps. The naive one outlives a hundred thousand of ours.
    let other = database().await;
    let busy_work =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT max(i) FROM n";
    let work = other.query_one(&ROOT, busy_work, (), |row| row.get::<_, i64>(0));
    assert_eq!(within(work).await.unwrap(), 100_000);
    assert_eq!(running.load(Ordering::SeqCst), 1, "it stopped by itself?");

    interrupt.interrupt();
    eventually("the naive statement stopped when told by hand", || {
        running.load(Ordering::SeqCst) == 0
    })
    .await;
}

/// Each small statement counts its steps anew, so the progress handler never fires; the next one must not be prepared.
#[tokio::test]
async fn a_loop_of_small_statements_ends() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let (started, begun) = mpsc::channel();
    let looping = db.write(&request, move |tx| {
        started.send(()).unwrap();
        loop {
            tx.execute("INSERT INTO t VALUES (1)", ())?;
        }
        #[expect(unreachable_code, reason = "gives the closure its type")]
        Ok(())
    });
    let cancel = async {
        told(&begun).await;
        request.cancel();
    };
    let (answer, ()) = within(async { tokio::join!(looping, cancel) }).await;
    assert!(answer.unwrap_err().is_canceled());
    assert_eq!(rows(&db).await, 0);
}

/// A statement prepared once and run again and again adds its steps up.
#[tokio::test]
async fn a_loop_over_one_prepared_statement_ends() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let (started, begun) = mpsc::channel();
    let looping = db.write(&request, move |tx| {
        let mut insert = tx.prepare("INSERT INTO t VALUES (?1)")?;
        started.send(()).unwrap();
        for number in 0_i64.. {
            insert.execute([number])?;
        }
        Ok(())
    });
    let cancel = async {
        told(&begun).await;
        request.cancel();
    };
    let (answer, ()) = within(async { tokio::join!(looping, cancel) }).await;
    assert!(answer.unwrap_err().is_canceled());
    assert_eq!(rows(&db).await, 0);
}

/// The control: with a progress handler alone the loop of small statements goes on.
#[test]
fn control_a_progress_handler_alone_misses_small_statements() {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    conn.progress_handler(1000, Some(|| true)).unwrap(); // the context has ended, whenever it is looked at
    for _ in 0..5000 {
        conn.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    }
    let error = conn
        .query_row(ENDLESS, (), |row| row.get::<_, i64>(0))
        .unwrap_err();
    assert_eq!(
        error.sqlite_error_code(),
        Some(ErrorCode::OperationInterrupted),
        "the handler is in place"
    );
}

/// `filter_map(Result::ok)` turns an interrupted list into a shorter one. It must not pass for the whole.
#[tokio::test]
async fn a_cut_result_is_no_result_even_if_the_work_swallows_the_error() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let answer = db.read(&request, move |conn| {
        let mut numbers =
            conn.prepare("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")?;
        let rows = numbers.query_map((), |row| row.get::<_, i64>(0))?;
        let counted = rows.map_while(Result::ok).inspect(|number| {
            if *number == 10 {
                client.cancel();
            }
        });
        Ok(counted.count())
    });
    let error = within(answer).await.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(db.statistics().readers.interrupted, 1);
}

/// D6: the query's context governs the reading of its rows too, and the rows end with the context's error.
#[tokio::test]
async fn d6_rows_end_with_the_context() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let answer = db.query(&request, sql, (), move |row| {
        let number = row.get::<_, i64>(0)?;
        if number == 3 {
            client.cancel_for(Reason::StreamReset);
        }
        Ok(number)
    });
    let error = within(answer).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::StreamReset);
    assert_eq!(
        db.statistics().readers.discarded,
        0,
        "the connection is returned, not thrown away"
    );
    next_user_is_answered(&db).await;
}

/// D7: a cancel after the natural end does not taint the answer.
#[tokio::test]
async fn d7_success_wins() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let answer = db.read(&request, move |conn| {
        let answer = conn.query_row("SELECT 7", (), |row| row.get::<_, i64>(0))?;
        client.cancel();
        Ok(answer)
    });
    assert_eq!(within(answer).await.unwrap(), 7);
    assert!(request.is_done());
    assert_eq!(db.statistics().readers.interrupted, 0);
}

/// D7: an error of the work's own is not renamed because the context happened to end beside it.
#[tokio::test]
async fn d7_a_failure_of_its_own_stays_one() {
    let db = database().await;
    let request = Context::background().with_cancel();
    let client = request.canceller();
    let answer = db.read(&request, move |_| {
        client.cancel();
        Err::<(), _>(Error::InvalidQuery)
    });
    let error = within(answer).await.unwrap_err();
    assert!(!error.is_canceled());
    assert!(matches!(error.sqlite(), Some(Error::InvalidQuery)));
}
