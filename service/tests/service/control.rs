//! The negative controls: the same promises asked of a naive service, which keeps none of them.
//!
//! A handler on `axum::serve`, with the blocking work where everybody puts it, in `spawn_blocking`. When the client
//! leaves, its future is dropped; the work hears nothing of it.

use std::convert::Infallible;
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use http_body::{Body, Frame};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

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

/// The body of an event stream. Its drop says that nobody reads it any more.
struct Events {
    news: mpsc::Receiver<Bytes>,
    _leaving: Leaving,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let news = self.news.poll_recv(cx);
        news.map(|news| news.map(|news| Ok(Frame::data(news))))
    }
}

/// A task looks for news, and hands on what it finds.
async fn events(State(naive): State<Arc<Naive>>) -> axum::body::Body {
    let (tell, news) = mpsc::channel(1);
    let theirs = naive.clone();
    drop(tokio::spawn(async move {
        theirs.begun.notify_one();
        while !theirs.finish.load(SeqCst) {
            theirs.steps.fetch_add(1, SeqCst);
            // Mostly there is nothing to hand on, so it does not learn that nobody is there.
            if theirs.steps.load(SeqCst) == 1 {
                tell.send(Bytes::from_static(b"data: 1\n\n")).await.ok();
            }
            tokio::task::yield_now().await;
        }
    }));
    let _leaving = Leaving(naive);
    axum::body::Body::new(Events { news, _leaving })
}

fn router(naive: Arc<Naive>) -> Router {
    Router::new()
        .route("/store", get(fetch))
        .route("/report", get(report))
        .route("/events", get(events))
        .with_state(naive)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    (listener, addr)
}

async fn serve(naive: Arc<Naive>) -> SocketAddr {
    let (listener, addr) = listen().await;
    // It serves until the runtime of the test ends.
    drop(tokio::spawn(
        async move { axum::serve(listener, router(naive)).await },
    ));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_event_stream_is_fed_though_its_reader_left() {
    let naive = Arc::new(Naive::default());
    let addr = serve(naive.clone()).await;
    leave(&naive, addr, "/events").await;
    let then = naive.steps.load(SeqCst);
    guard("the task to go on", async {
        while naive.steps.load(SeqCst) < then + 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    naive.finish.store(true, SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_shutdown_waits_for_the_reader_of_an_event_stream() {
    let naive = Arc::new(Naive::default());
    let (listener, addr) = listen().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router(naive.clone()));
    let server = server.with_graceful_shutdown(async move { drop(stopped.await) });
    let server = tokio::spawn(server.into_future());
    let client = Client::begin(addr, "/events");
    guard("the stream to begin", naive.begun.notified()).await;
    stop.send(()).expect("the server listens");
    guard("the shutdown to begin", async {
        while std::net::TcpStream::connect(addr).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let then = naive.steps.load(SeqCst);
    guard("the stream to go on", async {
        while naive.steps.load(SeqCst) < then + 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.is_finished(), "it is held up");
    naive.finish.store(true, SeqCst);
    drop(client);
    guard("the end, once nobody reads", server)
        .await
        .expect("no panic")
        .expect("no error");
}
