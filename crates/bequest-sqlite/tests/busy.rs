//! Another connection holds the file's lock: the wait for it is part of the context's budget.

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bequest::clock::{Alarm, Clock};
use bequest::{Context, Kind, Reason};
use bequest_sqlite::rusqlite::Connection;
use bequest_sqlite::{Database, Options, Step};
use common::{ROOT, database, eventually, poll_once, rows, within};

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bequest-busy-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whatever cleans the temporary folder.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Another process, as far as SQLite can tell.
fn holder(db: &Database) -> Connection {
    let conn = Connection::open(db.path()).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let db = database().await;
    let _holder = holder(&db);
    let request = ROOT.with_timeout(Duration::from_millis(30));
    let error = within(db.execute(&request, "INSERT INTO t VALUES (1)", ()))
        .await
        .unwrap_err();
    assert_eq!(
        *error.canceled().expect("not merely busy"),
        Kind::DeadlineExceeded
    );
    assert_eq!(error.step(), Step::Waiting, "nothing was begun");
    assert!(!error.is_busy());
    assert_eq!(db.statistics().running(), 0);
    assert_eq!(db.statistics().writer.rolled_back, 0, "nothing was begun");
}

#[tokio::test]
async fn a_cancel_ends_the_wait() {
    let db = database().await;
    let holder = holder(&db);
    let request = ROOT.with_cancel();
    let write = db.execute(&request, "INSERT INTO t VALUES (1)", ());
    let cancel = async {
        eventually("the writer waits for the lock", || {
            db.statistics().writer.running == 1
        })
        .await;
        request.cancel_for(Reason::ClientGone);
    };
    let (answer, ()) = within(async { tokio::join!(write, cancel) }).await;
    assert_eq!(
        answer.unwrap_err().canceled().unwrap().reason(),
        Reason::ClientGone
    );

    holder.execute_batch("COMMIT").unwrap();
    within(db.execute(&ROOT, "INSERT INTO t VALUES (2)", ()))
        .await
        .unwrap();
    assert_eq!(rows(&db).await, 1);
}

#[tokio::test]
async fn dropping_the_future_ends_the_wait() {
    let db = database().await;
    let _holder = holder(&db);
    let mut write = Box::pin(db.execute(&ROOT, "INSERT INTO t VALUES (1)", ()));
    poll_once(&mut write).await;
    eventually("the writer waits for the lock", || {
        db.statistics().writer.running == 1
    })
    .await;
    drop(write);
    eventually("nobody waits", || db.statistics().running() == 0).await;
    assert_eq!(rows(&db).await, 0);
}

#[tokio::test]
async fn the_lock_is_taken_when_it_is_let_go() {
    let db = database().await;
    let holder = holder(&db);
    let write = db.execute(&ROOT, "INSERT INTO t VALUES (1)", ());
    let release = async {
        eventually("the writer waits for the lock", || {
            db.statistics().writer.running == 1
        })
        .await;
        holder.execute_batch("COMMIT").unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(write, release) }).await;
    assert_eq!(answer.unwrap(), 1);
}

/// The control: `busy_timeout` is ended neither by an interrupt nor by a progress handler that says stop. Ours, begun
/// later on the same file, has given up while the naive one still waits.
#[tokio::test]
async fn control_busy_timeout_sits_the_wait_out() {
    let db = database().await;
    let holder = holder(&db);
    let mut naive = Connection::open(db.path()).unwrap();
    naive.busy_timeout(Duration::from_secs(60)).unwrap();
    let interrupt = naive.get_interrupt_handle();
    let (started, begun) = mpsc::channel();
    let waiting = thread::spawn(move || {
        naive.progress_handler(1000, Some(|| true)).unwrap(); // it waits without taking a step
        started.send(()).unwrap();
        let _interrupted_in_the_end = naive.execute_batch("BEGIN IMMEDIATE");
    });
    common::told(&begun).await;

    for round in 0..20 {
        if round >= 10 {
            interrupt.interrupt(); // by now the naive one waits; while idle it would be lost
        }
        let request = ROOT.with_timeout(Duration::from_millis(10));
        let error = within(db.execute(&request, "INSERT INTO t VALUES (1)", ()))
            .await
            .unwrap_err();
        assert!(error.is_canceled());
    }
    assert!(!waiting.is_finished(), "the naive wait ended by itself?");
    holder.execute_batch("COMMIT").unwrap();
    eventually("the naive wait ended with the lock", || waiting.is_finished()).await;
}

/// A context without a deadline is held by the net.
#[tokio::test]
async fn the_busy_limit_is_the_net() {
    let db = Options::temporary()
        .unwrap()
        .busy_limit(Duration::from_millis(20))
        .open(&ROOT)
        .await
        .unwrap();
    let _holder = holder(&db);
    let error = within(db.execute(&ROOT, "CREATE TABLE u (x)", ()))
        .await
        .unwrap_err();
    assert!(error.is_busy() && !error.is_canceled(), "{error}");
    assert_eq!(error.step(), Step::Waiting);
}

/// Work that takes the busy handler away does so for itself alone.
#[tokio::test]
async fn the_busy_handler_is_back_for_the_next_call() {
    let db = database().await;
    let taken = db.write(&ROOT, |tx| tx.busy_timeout(Duration::ZERO));
    within(taken).await.unwrap();
    let taken = db.write(&ROOT, |tx| {
        tx.query_row("PRAGMA busy_timeout = 0", (), |row| row.get::<_, i64>(0))
    });
    within(taken).await.unwrap();

    let _holder = holder(&db);
    let request = ROOT.with_timeout(Duration::from_millis(30));
    let error = within(db.execute(&request, "INSERT INTO t VALUES (1)", ()))
        .await
        .unwrap_err();
    assert!(error.is_canceled(), "{error}");
}

/// The lock lives in real time, whatever the clock of the context: on a clock that stands still the wait still tries again.
#[tokio::test]
async fn a_clock_that_stands_still_does_not_stop_the_trying() {
    #[derive(Debug)]
    struct Frozen(Instant);
    impl Clock for Frozen {
        fn now(&self) -> Instant {
            self.0
        }
        fn wake_at(&self, _at: Instant, _alarm: Alarm) {}
    }

    let db = database().await;
    let holder = holder(&db);
    let request = Context::with_clock(Frozen(Instant::now())).with_timeout(Duration::from_millis(1));
    let write = db.execute(&request, "INSERT INTO t VALUES (1)", ());
    let release = async {
        eventually("the writer waits for the lock", || {
            db.statistics().writer.running == 1
        })
        .await;
        holder.execute_batch("COMMIT").unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(write, release) }).await;
    assert_eq!(answer.unwrap(), 1);
}

/// Readers do not wait for a writer.
#[tokio::test]
async fn readers_do_not_wait_for_the_lock() {
    let db = database().await;
    let holder = holder(&db);
    holder.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(rows(&db).await, 0);
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&db).await, 1);
}

/// Somebody else is making the same file at the same time. SQLite does not wait there, since two who make a write-ahead log
/// could wait for each other; whoever opens waits for whoever is quicker.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_makes_a_file_at_the_same_time_waits_for_its_turn() {
    const AT_ONCE: usize = 8;
    for _ in 0..30 {
        let folder = Folder::new();
        let path = folder.0.join("new.sqlite");
        let opened = (0..AT_ONCE).map(|_| tokio::spawn(Options::new(&path).readers(1).open(&ROOT)));
        for opened in opened.collect::<Vec<_>>() {
            let db = within(opened).await.unwrap().unwrap();
            within(db.execute(&ROOT, "CREATE TABLE IF NOT EXISTS t (n INTEGER)", ()))
                .await
                .unwrap();
        }
    }
}

/// The control: the driver alone with a busy timeout, which SQLite does not ask there.
#[test]
fn control_a_busy_timeout_alone_is_not_asked() {
    const AT_ONCE: usize = 8;
    let mut locked = 0;
    for _ in 0..1000 {
        let folder = Folder::new();
        let path = folder.0.join("new.sqlite");
        let begin = Barrier::new(AT_ONCE);
        thread::scope(|scope| {
            let opening = (0..AT_ONCE).map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    let conn = Connection::open(&path)?;
                    conn.busy_timeout(Duration::from_secs(60))?;
                    conn.query_row("PRAGMA journal_mode = WAL", (), |row| row.get::<_, String>(0))
                })
            });
            let opened = opening.collect::<Vec<_>>().into_iter();
            locked += opened
                .map(|thread| thread.join().unwrap())
                .filter(Result::is_err)
                .count();
        });
        if locked > 0 {
            return;
        }
    }
    panic!("nobody was turned away");
}
