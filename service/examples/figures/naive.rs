//! The naive way: `axum::serve`, the blocking work in `spawn_blocking`, and nothing that tells it of its client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use http_body::Frame;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::Chance;
use crate::support::client::Client;
use crate::support::until;

/// What the naive service counts.
#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    /// Handlers whose future was dropped.
    dropped: AtomicUsize,
    written: AtomicUsize,
    running: AtomicUsize,
    /// Ends the statements; the measurement's own hand.
    finish: AtomicBool,
}

/// Counts the drop of the handler that holds it.
struct Dropped(Arc<Counts>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

/// How many of the fetches that `clients` leave in their first half second are written all the same.
pub(crate) fn writes_after_leaving(clients: usize) -> usize {
    let (_runtime, counts, addr) = serve();
    let open: Vec<_> = (0..clients).map(|_| Client::begin(addr, "/store")).collect();
    until_count(&counts.begun, clients);
    let mut chance = Chance(1);
    for client in open {
        thread::sleep(chance.below(Duration::from_millis(20)));
        drop(client);
    }
    until_count(&counts.dropped, clients);
    let before = counts.written.load(SeqCst);
    until_count(&counts.running, 0);
    counts.written.load(SeqCst) - before
}

/// How many statements still run 100 ms after their handler was dropped, one client after the other.
pub(crate) fn statements_after_leaving(clients: usize) -> usize {
    let (_runtime, counts, addr) = serve();
    let still_running = |n: &usize| {
        let client = Client::begin(addr, "/report");
        until_count(&counts.begun, n + 1);
        drop(client);
        until_count(&counts.dropped, n + 1);
        thread::sleep(Duration::from_millis(100));
        let runs = counts.running.load(SeqCst) > 0;
        counts.finish.store(true, SeqCst);
        until_count(&counts.running, 0);
        counts.finish.store(false, SeqCst);
        runs
    };
    (0..clients).filter(still_running).count()
}

/// What becomes of a graceful shutdown within `budget` while one request never ends.
pub(crate) fn shutdown_with_an_endless_request(budget: Duration) -> String {
    let begun = Arc::new(AtomicUsize::new(0));
    let entered = begun.clone();
    let endless = move || async move {
        entered.fetch_add(1, SeqCst);
        std::future::pending::<()>().await;
    };
    let router = Router::new().route("/", get(endless));
    format!("with one endless request: {}", shut_down(router, begun, budget))
}

/// The same while one event stream is open.
pub(crate) fn shutdown_with_an_event_stream(budget: Duration) -> String {
    let begun = Arc::new(AtomicUsize::new(0));
    let entered = begun.clone();
    let stream = move || async move {
        entered.fetch_add(1, SeqCst);
        Body::new(OneEvent(Some(Bytes::from_static(b"data: 1\n\n"))))
    };
    let router = Router::new().route("/", get(stream));
    format!("with one event stream: {}", shut_down(router, begun, budget))
}

/// An event, and no end.
struct OneEvent(Option<Bytes>);

impl http_body::Body for OneEvent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(event) => Poll::Ready(Some(Ok(Frame::data(event)))),
            None => Poll::Pending,
        }
    }
}

/// Begins a request, asks for the shutdown once it has `begun`, and waits for the end.
fn shut_down(router: Router, begun: Arc<AtomicUsize>, budget: Duration) -> String {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
        let server = tokio::spawn(async move { server.await });
        let client = tokio::task::spawn_blocking(move || {
            let client = Client::begin(addr, "/");
            until_count(&begun, 1);
            client
        });
        let _open = client.await.expect("a client");
        stop.send(()).expect("the server listens");
        match tokio::time::timeout(budget, server).await {
            Ok(_) => "exits".into(),
            Err(_) => format!("still waiting after {} s", budget.as_secs()),
        }
    })
}

fn serve() -> (Runtime, Arc<Counts>, SocketAddr) {
    let runtime = Runtime::new().expect("a runtime");
    let counts = Arc::new(Counts::default());
    let router = Router::new()
        .route("/store", get(store))
        .route("/report", get(report))
        .with_state(counts.clone());
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    runtime.spawn(async move { axum::serve(listener, router).await });
    (runtime, counts, addr)
}

/// Five seconds of pieces of 10 ms, then the write.
async fn store(State(counts): State<Arc<Counts>>) -> &'static str {
    let _dropped = Dropped(counts.clone());
    let work = tokio::task::spawn_blocking(move || {
        counts.running.fetch_add(1, SeqCst);
        counts.begun.fetch_add(1, SeqCst);
        for _ in 0..500 {
            thread::sleep(Duration::from_millis(10));
        }
        counts.written.fetch_add(1, SeqCst);
        counts.running.fetch_sub(1, SeqCst);
    });
    work.await.map_or("failed\n", |()| "written\n")
}

/// The statement of the service's own report.
async fn report(State(counts): State<Arc<Counts>>) -> String {
    let _dropped = Dropped(counts.clone());
    let work = tokio::task::spawn_blocking(move || {
        counts.running.fetch_add(1, SeqCst);
        counts.begun.fetch_add(1, SeqCst);
        let entries = statement(&counts);
        counts.running.fetch_sub(1, SeqCst);
        entries
    });
    format!("{:?}\n", work.await)
}

fn statement(counts: &Arc<Counts>) -> rusqlite::Result<i64> {
    let connection = Connection::open_in_memory()?;
    let counts = counts.clone();
    connection.create_scalar_function("within_time", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(!counts.finish.load(SeqCst))
    })?;
    let sql = "WITH RECURSIVE entry(number, amount) AS (
                   SELECT 1, 17
                   UNION ALL
                   SELECT number + 1, (amount * 1103515245 + 12345) % 2147483648 FROM entry WHERE within_time()
               ) SELECT count(*) FROM entry";
    connection.query_row(sql, [], |row| row.get(0))
}

fn until_count(counter: &AtomicUsize, value: usize) {
    until("a count of the naive service", || {
        (counter.load(SeqCst) == value).then_some(())
    });
}
