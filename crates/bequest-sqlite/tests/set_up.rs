//! What is set up for every connection: pragmas, functions; also for one that replaces another.

mod common;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bequest_sqlite::rusqlite::{self, Connection};
use bequest_sqlite::{Options, Step};
use common::{ENDLESS, ROOT, within};

fn cache_size(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA cache_size", (), |row| row.get(0))
}

#[tokio::test]
async fn it_is_done_once_for_every_connection() {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    let options = Options::temporary().unwrap().readers(1).set_up(move |conn| {
        counted.fetch_add(1, Ordering::Relaxed);
        conn.execute_batch("PRAGMA cache_size = -4321; CREATE TEMP TABLE own (x)")
    });
    let db = within(options.open(&ROOT)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(within(db.read(&ROOT, cache_size)).await.unwrap(), -4321);
        assert_eq!(within(db.write(&ROOT, |tx| cache_size(tx))).await.unwrap(), -4321);
        within(db.execute(&ROOT, "INSERT INTO temp.own VALUES (1)", ()))
            .await
            .unwrap();
    }
    assert_eq!(times.load(Ordering::Relaxed), 2, "a reader and the writer");
    // And for one that takes the place of one that was left unclean.
    let leak = db.read(&ROOT, |conn| {
        let mut leaked = ManuallyDrop::new(conn.prepare("VALUES (1), (2)")?);
        ManuallyDrop::new(leaked.query(())?).next().map(drop)
    });
    within(leak).await.unwrap();
    assert_eq!(db.statistics().readers.discarded, 1);
    assert_eq!(within(db.read(&ROOT, cache_size)).await.unwrap(), -4321);
    assert_eq!(times.load(Ordering::Relaxed), 3);
}

/// The naive way: a pragma is told to whichever connection happens to be there.
#[tokio::test]
async fn control_a_pragma_in_a_call_is_one_connections() {
    let options = Options::temporary().unwrap().readers(1);
    let db = within(options.open(&ROOT)).await.unwrap();
    within(db.read(&ROOT, |conn| conn.execute_batch("PRAGMA cache_size = -4321")))
        .await
        .unwrap();
    assert_ne!(within(db.write(&ROOT, |tx| cache_size(tx))).await.unwrap(), -4321);
}

#[cfg(feature = "functions")]
#[tokio::test]
async fn functions_are_there_for_all() {
    use bequest_sqlite::rusqlite::functions::FunctionFlags;
    let options = Options::temporary().unwrap().readers(2).set_up(|conn| {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        conn.create_scalar_function("twice", 1, flags, |call| Ok(2 * call.get::<i64>(0)?))
    });
    let db = within(options.open(&ROOT)).await.unwrap();
    let twice = |conn: &Connection| conn.query_row("SELECT twice(21)", (), |row| row.get::<_, i64>(0));
    assert_eq!(within(db.read(&ROOT, twice)).await.unwrap(), 42);
    assert_eq!(within(db.write(&ROOT, move |tx| twice(tx))).await.unwrap(), 42);
}

#[tokio::test]
async fn one_that_fails_fails_the_opening() {
    let options = Options::temporary().unwrap();
    let failing = options.set_up(|conn| conn.execute_batch("no such statement"));
    let error = within(failing.open(&ROOT)).await.unwrap_err();
    assert_eq!(error.step(), Step::Opening);
    assert!(error.to_string().contains("database.sqlite"), "{error}");

    // Of a reader's, it is the error of the call that needs it; of each.
    let options = Options::temporary().unwrap().readers(1);
    let failing = options.set_up(|conn| match conn.is_readonly("main")? {
        true => conn.execute_batch("no such statement"),
        false => Ok(()),
    });
    let db = within(failing.open(&ROOT)).await.unwrap();
    for _ in 0..2 {
        let error = within(db.read(&ROOT, cache_size)).await.unwrap_err();
        assert_eq!(error.step(), Step::Opening);
    }
    let options = Options::temporary().unwrap();
    let error = within(options.set_up(|_| panic!("at once")).open(&ROOT))
        .await
        .unwrap_err();
    assert!(error.is_panicked(), "{error}");
}

#[tokio::test]
async fn it_ends_with_the_context_and_leaves_the_hooks_in_place() {
    let options = Options::temporary().unwrap();
    let endless = options.set_up(|conn| conn.query_row(ENDLESS, (), |row| row.get::<_, i64>(0)).map(drop));
    let request = ROOT.with_timeout(Duration::from_millis(30));
    let error = within(endless.open(&request)).await.unwrap_err();
    assert!(error.canceled().unwrap().is_from(&request));
    assert_eq!(error.step(), Step::Opening);

    // A wait for locks that the set-up ordered would outlast the context.
    let options = Options::temporary().unwrap().readers(1);
    let stubborn = options.set_up(|conn| conn.busy_timeout(Duration::from_secs(600)));
    let db = within(stubborn.open(&ROOT)).await.unwrap();
    let other = Connection::open(db.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let request = ROOT.with_timeout(Duration::from_millis(30));
    let error = within(db.execute(&request, "CREATE TABLE t (x)", ()))
        .await
        .unwrap_err();
    assert!(error.is_canceled(), "{error}");
}
