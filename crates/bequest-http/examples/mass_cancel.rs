//! How long it takes until 10 000 open requests have been ended by one cancel, and whether their memory comes back: prints
//! both, beside bare hyper with handlers that listen to a watch channel, as one would build it by hand.
//!
//! Run it with `cargo run --release -p bequest-http --example mass_cancel`. The requests are streams of 100 connections of
//! HTTP/2; each handler waits for the end and counts itself out. Memory is the resident size of the whole process, clients
//! included; each way is run three times, as what is kept for the next time is no leak, and what grows is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bequest::{Context, Reason};
use bequest_http::Server;
use bequest_http::server::{BoxError, Limits, RequestBody, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const CONNECTIONS: usize = 100;
const STREAMS: usize = 100;
const REQUESTS: usize = CONNECTIONS * STREAMS;

/// The handlers that wait.
#[derive(Clone, Default)]
struct Waiting(Arc<Handlers>);

#[derive(Default)]
struct Handlers {
    waiting: AtomicUsize,
    /// When the last one stopped.
    over: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Waiting {
    fn one_more(&self) {
        if self.0.waiting.fetch_add(1, Ordering::SeqCst) + 1 == REQUESTS {
            self.0.changed.notify_one();
        }
    }

    fn one_fewer(&self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.0.over.lock().expect("no panic") = Some(Instant::now());
            self.0.changed.notify_one();
        }
    }

    async fn all_wait(&self) {
        self.0.changed.notified().await;
    }

    async fn all_over(&self) -> Instant {
        self.0.changed.notified().await;
        self.0.over.lock().expect("no panic").expect("set before")
    }
}

/// What one way took.
struct Took {
    stopped: Duration,
    before: u64,
    open: u64,
    after: u64,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
async fn main() -> Result<(), BoxError> {
    println!("| {REQUESTS} open requests | last handler stopped after | memory before | open | 1 s after |");
    println!("|---|---|---|---|---|");
    for round in 1..=3 {
        for (name, took) in [
            ("one cancel", ours().await?),
            ("by hand on bare hyper", by_hand().await?),
        ] {
            println!(
                "| {name}, round {round} | {:.1} ms | {} MiB | {} MiB | {} MiB |",
                took.stopped.as_secs_f64() * 1e3,
                took.before,
                took.open,
                took.after
            );
        }
    }
    Ok(())
}

async fn ours() -> Result<Took, BoxError> {
    let before = resident()?;
    let (waiting, listener) = (Waiting::default(), TcpListener::bind("127.0.0.1:0").await?);
    let addr = listener.local_addr()?;
    let service = service_fn({
        let waiting = waiting.clone();
        move |request: Request<RequestBody>| {
            let waiting = waiting.clone();
            async move {
                let ctx = request.extensions().get::<Context>().expect("a context");
                waiting.one_more();
                ctx.done().await;
                waiting.one_fewer();
                Response::new(Full::<Bytes>::default())
            }
        }
    });
    // The one cancel is that of a scope above all requests.
    let (tell, told) = std::sync::mpsc::channel();
    let limits = Limits {
        request: Duration::from_secs(3600),
        ..Limits::default()
    };
    let builder = Server::builder().limits(limits).base_context(move |ctx, _| {
        let all = ctx.with_cancel();
        tell.send(all.canceller()).expect("listened to");
        all.into_context()
    });
    let process = Context::background().with_cancel();
    let ctx = process.context();
    let server = tokio::spawn(async move { builder.serve(listener, service, &ctx).await });
    let clients = open(addr).await?;
    waiting.all_wait().await;
    let open = resident()?;
    let asked = Instant::now();
    told.recv()?.cancel();
    let stopped = waiting.all_over().await.duration_since(asked);
    drop(clients);
    process.cancel_for(Reason::Shutdown);
    server.await??;
    finish(before, open, stopped).await
}

async fn by_hand() -> Result<Took, BoxError> {
    let before = resident()?;
    let (waiting, listener) = (Waiting::default(), TcpListener::bind("127.0.0.1:0").await?);
    let addr = listener.local_addr()?;
    let (cancel, cancelled) = watch::channel(false);
    let service = hyper::service::service_fn({
        let waiting = waiting.clone();
        move |_: Request<hyper::body::Incoming>| {
            let (waiting, mut cancelled) = (waiting.clone(), cancelled.clone());
            async move {
                waiting.one_more();
                // Fails only if nobody can cancel any more, which is an end as well.
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                waiting.one_fewer();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        }
    });
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    let clients = open_all(addr, &waiting).await?;
    let open = resident()?;
    let asked = Instant::now();
    cancel.send(true)?;
    let stopped = waiting.all_over().await.duration_since(asked);
    drop(clients);
    server.abort();
    finish(before, open, stopped).await
}

async fn open_all(addr: SocketAddr, waiting: &Waiting) -> Result<Clients, BoxError> {
    let clients = open(addr).await?;
    waiting.all_wait().await;
    Ok(clients)
}

async fn finish(before: u64, open: u64, stopped: Duration) -> Result<Took, BoxError> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident()?;
    Ok(Took {
        stopped,
        before,
        open,
        after,
    })
}

type Clients = Vec<(h2::client::SendRequest<Bytes>, Vec<h2::client::ResponseFuture>)>;

/// Opens all requests.
async fn open(addr: SocketAddr) -> Result<Clients, BoxError> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(addr).await?;
        let (send, connection) = h2::client::handshake(stream).await?;
        // Ends with its clients.
        tokio::spawn(async move { drop(connection.await) });
        let mut send = send.ready().await?;
        let mut responses = Vec::new();
        for _ in 0..STREAMS {
            let request = Request::get("http://test/").body(())?;
            send = send.ready().await?;
            responses.push(send.send_request(request, true)?.0);
        }
        clients.push((send, responses));
    }
    Ok(clients)
}

/// The resident size of this process, in MiB.
fn resident() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or("no resident size")?;
    Ok(kib / 1024)
}
