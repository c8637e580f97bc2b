//! The negative controls: the same promises asked of a naive service, which keeps none of them.
//!
//! A handler on `axum::serve`, with the blocking work where everybody puts it, in `spawn_blocking`. When the client
//! leaves, its future is dropped; the work hears nothing of it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::GUARD;
use crate::support::client::Client;

/// What test and handler tell each other.
#[derive(Debug, Default)]
struct Naive {
    /// The blocking work has begun.
    begun: Notify,
    /// The handler's future was dropped.
    left: Notify,
    /// Lets the blocking work come to its end.
    finish: AtomicBool,
    /// Steps the work has made.
    steps: AtomicU64,
    /// What it was all for.
    written: Notify,
}

/// Says that the handler's future is gone.
struct Leaving(Arc<Naive>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

async fn fetch(State(naive): State<Arc<Naive>>) -> &'static str {
    let _leaving = Leaving(naive.clone());
    let work = tokio::task::spawn_blocking(move || {
        naive.begun.notify_one();
        while !naive.finish.load(SeqCst) {
            naive.steps.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        naive.written.notify_one();
    });
    work.await.map_or("failed", |()| "written\n")
}

/// One statement that runs until it is told to stop, as the report's does.
async fn report(State(naive): State<Arc<Naive>>) -> String {
    let _leaving = Leaving(naive.clone());
    let work = tokio::task::spawn_blocking(move || {
        let connection = Connection::open_in_memory()?;
        let theirs = naive.clone();
        connection.create_scalar_function("within_time", 0, FunctionFlags::SQLITE_UTF8, move |_| {
            theirs.steps.fetch_add(1, SeqCst);
            Ok(!theirs.finish.load(SeqCst))
        })?;
        naive.begun.notify_one();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE within_time()) SELECT count(*) FROM n";
        let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        naive.written.notify_one();
        Ok::<_, rusqlite::Error>(count)
    });
    format!("{:?}\n", work.await)
}

async fn serve(naive: Arc<Naive>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    let router = Router::new()
        .route("/store", get(fetch))
        .route("/report", get(report))
        .with_state(naive);
    // It serves until the runtime of the test ends.
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    addr
}

async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, work)
        .await
        .unwrap_or_else(|_| panic!("waited for {what}"))
}

/// A client that leaves once the work has begun; when this returns, the handler's future has been dropped.
async fn leave(naive: &Naive, addr: SocketAddr, target: &str) {
    let client = Client::begin(addr, target);
    guard("the work to begin", naive.begun.notified()).await;
    drop(client);
    guard("the handler to be dropped", naive.left.notified()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_fetch_goes_on_and_writes_though_its_client_left() {
    let naive = Arc::new(Naive::default());
    let addr = serve(naive.clone()).await;
    leave(&naive, addr, "/store").await;
    let then = naive.steps.load(SeqCst);
    guard("the work to go on", async {
        while naive.steps.load(SeqCst) < then + 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    naive.finish.store(true, SeqCst);
    guard("what is written for nobody", naive.written.notified()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_statement_goes_on_though_its_client_left() {
    let naive = Arc::new(Naive::default());
    let addr = serve(naive.clone()).await;
    leave(&naive, addr, "/report").await;
    let then = naive.steps.load(SeqCst);
    guard("the statement to go on", async {
        while naive.steps.load(SeqCst) < then + 1000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    naive.finish.store(true, SeqCst);
    guard("the end that it had to be told", naive.written.notified()).await;
}
