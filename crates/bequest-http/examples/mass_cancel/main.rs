//! How long it takes until 10 000 open requests have been ended by one cancel, and whether their memory comes back: prints
//! both, beside bare hyper with handlers that listen to a watch channel, as one would build it by hand.
//!
//! Run it with `cargo run --release -p bequest-http --example mass_cancel`. The requests are streams of 100 connections of
//! HTTP/2; each handler has its request, waits for the end and counts itself out. The clients are in the same process and
//! on the same processors. Each way is run three times, in turns as to which is first. The heap is what was allocated and
//! not freed; what the allocator keeps of that is still resident.

#![allow(unsafe_code)] // An allocator is `unsafe` by its trait; this one only counts and passes on.

mod measure;

use std::convert::Infallible;
use std::fmt;
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

use measure::{Counting, Memory, processor_time};

const CONNECTIONS: usize = 100;
const STREAMS: usize = 100;
const REQUESTS: usize = CONNECTIONS * STREAMS;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    /// Until the call that cancels had returned.
    told: Duration,
    /// Until the last handler had stopped.
    stopped: Duration,
    /// What all threads did until then.
    worked: Duration,
    before: Memory,
    open: Memory,
    after: Memory,
}

/// From the cancel on.
struct Cancelling {
    asked: Instant,
    worked_before: Duration,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
async fn main() -> Result<(), BoxError> {
    println!(
        "| {REQUESTS} open requests | cancel returned after | last handler stopped after | processor time until then \
         | heap before, open, 1 s after | resident before, open, 1 s after |"
    );
    println!("|---|---|---|---|---|---|");
    for round in 1..=3 {
        let ours_first = round % 2 == 1;
        for is_ours in [ours_first, !ours_first] {
            let (name, took) = match is_ours {
                true => ("one cancel", ours().await?),
                false => ("by hand on bare hyper", by_hand().await?),
            };
            println!("| {name}, round {round} | {took} |");
        }
    }
    Ok(())
}

async fn ours() -> Result<Took, BoxError> {
    let before = Memory::now()?;
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
    let open = Memory::now()?;
    let all = told.recv()?;
    let cancelling = Cancelling::now()?;
    all.cancel();
    let took = cancelling.took(&waiting, before, open).await?;
    drop(clients);
    drop((told, all));
    process.cancel_for(Reason::Shutdown);
    server.await??;
    took.one_second_later().await
}

async fn by_hand() -> Result<Took, BoxError> {
    let before = Memory::now()?;
    let (waiting, listener) = (Waiting::default(), TcpListener::bind("127.0.0.1:0").await?);
    let addr = listener.local_addr()?;
    let (cancel, cancelled) = watch::channel(false);
    let service = hyper::service::service_fn({
        let waiting = waiting.clone();
        move |request: Request<hyper::body::Incoming>| {
            let (waiting, mut cancelled) = (waiting.clone(), cancelled.clone());
            async move {
                waiting.one_more();
                // Fails only if nobody can cancel any more, which is an end as well.
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                waiting.one_fewer();
                drop(request);
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
    let clients = open(addr).await?;
    waiting.all_wait().await;
    let open = Memory::now()?;
    let cancelling = Cancelling::now()?;
    cancel.send(true)?;
    let took = cancelling.took(&waiting, before, open).await?;
    drop(clients);
    server.abort();
    took.one_second_later().await
}

impl Cancelling {
    fn now() -> Result<Cancelling, BoxError> {
        Ok(Cancelling {
            worked_before: processor_time()?,
            asked: Instant::now(),
        })
    }

    /// To be called when the cancel has returned; waits for the handlers.
    async fn took(self, waiting: &Waiting, before: Memory, open: Memory) -> Result<Took, BoxError> {
        let told = self.asked.elapsed();
        let stopped = waiting.all_over().await.duration_since(self.asked);
        Ok(Took {
            told,
            stopped,
            worked: processor_time()? - self.worked_before,
            before,
            open,
            after: open,
        })
    }
}

impl Took {
    async fn one_second_later(self) -> Result<Took, BoxError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = Memory::now()?;
        Ok(Took { after, ..self })
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let all = [self.before, self.open, self.after];
        let heap = all.map(|memory| format!("{:.2}", memory.heap as f64 / 1024.0 / 1024.0));
        let resident = all.map(|memory| (memory.resident / 1024).to_string());
        write!(
            f,
            "{:.1} ms | {:.1} ms | {:.1} ms ",
            ms(self.told),
            ms(self.stopped),
            ms(self.worked)
        )?;
        write!(f, "| {} MiB | {} MiB", heap.join(", "), resident.join(", "))
    }
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
