//! Shutting down under load: no request whose handler has begun is lost within the budget, and the naive end loses some.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bequest::Context;
use bequest_http::server::{RequestBody, Server, service_fn};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::common::{Http2, TestServer, full, guard, until};

/// Clients of HTTP/1, each with one connection that is kept alive.
const ONES: usize = 40;
/// Connections of HTTP/2, and the clients on each.
const TWOS: usize = 4;
const STREAMS: usize = 10;
/// How many answers there are before the end.
const ENOUGH: usize = 500;

/// The numbers of requests.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<BTreeSet<usize>>>);

impl Numbers {
    fn insert(&self, number: usize) {
        self.0.lock().unwrap().insert(number);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Those that are missing in `other`.
    fn without(&self, other: &Numbers) -> usize {
        self.0
            .lock()
            .unwrap()
            .difference(&other.0.lock().unwrap())
            .count()
    }
}

/// Loads a server, holds its handlers, brings it to its end, and says how many requests were begun and how many of those were
/// not answered. `end` is given what lets the handlers go on.
async fn loaded(end: impl AsyncFnOnce(TestServer, watch::Sender<bool>)) -> (usize, usize) {
    let (begun, answered) = (Numbers::default(), Numbers::default());
    let (go_on, may_go_on) = watch::channel(true);
    let service = service_fn({
        let begun = begun.clone();
        move |request: Request<RequestBody>| {
            let (begun, mut may_go_on) = (begun.clone(), may_go_on.clone());
            async move {
                let number = request.uri().path()[1..].parse().expect("a number");
                begun.insert(number);
                may_go_on.wait_for(|may| *may).await.expect("the test holds it");
                full(format!("answer {number}."))
            }
        }
    });
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..ONES {
        clients.push(tokio::spawn(one(server.addr, next.clone(), answered.clone())));
    }
    for _ in 0..TWOS {
        let connection = Arc::new(Http2::connect(server.addr).await);
        for _ in 0..STREAMS {
            clients.push(tokio::spawn(two(
                connection.clone(),
                next.clone(),
                answered.clone(),
            )));
        }
    }
    until("the load", || answered.len() > ENOUGH).await;
    go_on.send_replace(false);
    // Not only counted by the server: their handlers have begun.
    until("all clients to wait for an answer", || {
        begun.without(&answered) == ONES + TWOS * STREAMS
    })
    .await;
    end(server, go_on).await;
    for client in clients {
        guard("the client to see the end", client)
            .await
            .expect("no panic");
    }
    (begun.len(), begun.without(&answered))
}

/// A client of HTTP/1: asks until its connection is closed.
async fn one(addr: SocketAddr, next: Arc<AtomicUsize>, answered: Numbers) {
    let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let request = format!("GET /{number} HTTP/1.1\r\nhost: test\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        let whole = format!("answer {number}.");
        let mut answer = Vec::new();
        while !answer.ends_with(whole.as_bytes()) {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        answered.insert(number);
    }
}

/// A client of HTTP/2: asks until its connection takes no more.
async fn two(connection: Arc<Http2>, next: Arc<AtomicUsize>, answered: Numbers) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(stream) = connection.try_request(&format!("/{number}")).await else {
            return;
        };
        match stream.answer().await {
            Ok((_, text)) if text == format!("answer {number}.") => answered.insert(number),
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_has_begun_is_lost_within_the_budget() {
    let (begun, lost) = loaded(async |server, go_on| {
        server.process.cancel();
        go_on.send_replace(true);
        let summary = server.ended().await;
        assert_eq!((summary.statistics.shut_down, summary.statistics.dropped), (0, 0));
        assert_eq!(summary.unfinished, 0);
    })
    .await;
    assert_eq!(lost, 0, "of {begun}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_the_naive_end_loses_what_is_under_way() {
    let (begun, lost) = loaded(async |server, _go_on| server.abort()).await;
    assert_eq!(lost, ONES + TWOS * STREAMS, "of {begun}");
}
