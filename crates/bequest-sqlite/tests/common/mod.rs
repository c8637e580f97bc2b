//! What every test here uses: a query without an end, and waiting by condition.
#![allow(dead_code)] // each test binary uses a part

use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use bequest::Context;
use bequest_sqlite::rusqlite::{self, Connection};
use bequest_sqlite::{Database, Options};

/// Counts for ever.
pub(crate) const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

/// The context of whoever has nothing to do with the cancel.
pub(crate) static ROOT: Context = Context::background();

/// A test that takes this long hangs.
const HANGS: Duration = Duration::from_secs(20);

/// A database with one reader, so that who uses the connection next is certain, and a table `t (x)`.
pub(crate) async fn database() -> Database {
    let db = Options::temporary()
        .unwrap()
        .readers(1)
        .open(&ROOT)
        .await
        .unwrap();
    db.execute_batch(&ROOT, "CREATE TABLE t (x)").await.unwrap();
    db
}

/// How many rows `t` has, read by a user of their own.
pub(crate) async fn rows(db: &Database) -> i64 {
    let count = db.query_one(&ROOT, "SELECT count(*) FROM t", (), |row| row.get(0));
    within(count).await.unwrap()
}

/// Runs the query without an end, telling `started` from the thread that runs it.
pub(crate) fn endless(
    started: mpsc::Sender<()>,
) -> impl FnOnce(&Connection) -> rusqlite::Result<i64> + Send + 'static {
    move |conn| {
        started.send(()).unwrap();
        conn.query_row(ENDLESS, (), |row| row.get(0))
    }
}

/// `future`, which does not hang.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANGS, future).await.expect("it hangs")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits for news from another thread without blocking this one.
pub(crate) async fn told<T>(news: &mpsc::Receiver<T>) -> T {
    let mut got = None;
    eventually("news from the other thread", || {
        got = news.try_recv().ok();
        got.is_some()
    })
    .await;
    got.unwrap()
}

/// Polls `future` once; it must not be ready.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) {
    std::future::poll_fn(|task| {
        assert!(
            std::pin::Pin::new(&mut *future).poll(task).is_pending(),
            "ready too early"
        );
        std::task::Poll::Ready(())
    })
    .await;
}
