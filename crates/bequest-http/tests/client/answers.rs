//! An answer reaches the one who asked, whoever else gives up: 64 workers behind a slow network, each asking for a random
//! user's name, and two calls in three given up at a random instant. Beside it, a client that puts a connection back
//! after a cancelled read.
//!
//! `BEQUEST_CALLS=…` makes more calls than the tests do by themselves.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_http::client::{Builder, Client, Error};
use bequest_test::proxy::{Faults, Proxy};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{behind_a_network, get, text};

const WORKERS: u64 = 64;
const USERS: u64 = 1_000;

/// What became of the calls.
#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    foreign: AtomicU64,
    cancels: AtomicU64,
    /// How long an answer took lately, in nanoseconds: where the ends have to fall.
    latency: AtomicU64,
}

/// A user's name, long enough that an end can fall into the middle of it.
fn name(user: u64) -> String {
    format!("user:{user} ").repeat(1_000)
}

/// A service that answers names, behind a network that takes its time.
async fn service() -> (Proxy, String) {
    let (proxy, url) = behind_a_network(|request| async move {
        Response::new(name(request.uri().path()[1..].parse().expect("a user")))
    })
    .await;
    proxy.both(Faults::none().latency(Duration::from_millis(1)));
    (proxy, url)
}

/// Asks for random users' names, and has two calls in three end at a random instant around the one at which they would be
/// answered: before they are sent, between the sending and the answer, in the middle of it, or too late.
async fn tortured<A, F>(ask: A) -> Tally
where
    A: Fn(Context, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let calls = std::env::var("BEQUEST_CALLS").map_or(12_000, |calls| calls.parse().expect("a number"));
    let tally = Arc::new(Tally::default());
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (ask, tally) = (ask.clone(), tally.clone());
        workers.spawn(async move {
            let mut random = worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut below = move |end: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % end
            };
            for call in 0..calls / WORKERS {
                let user = below(USERS);
                let root = Context::background();
                let answer = match call % 3 {
                    0 => {
                        let began = Instant::now();
                        let answer = ask(root, user).await;
                        tally.latency.store(began.elapsed().as_nanos() as u64, Relaxed);
                        answer
                    }
                    _ => {
                        let around = tally.latency.load(Relaxed) * 5 / 4 + 1;
                        let scope = root.with_timeout(Duration::from_nanos(below(around)));
                        ask(scope.context(), user).await
                    }
                };
                let counter = match answer {
                    None => &tally.cancels,
                    Some(answer) if answer == name(user) => &tally.answers,
                    Some(_) => &tally.foreign,
                };
                counter.fetch_add(1, Relaxed);
            }
        });
    }
    let joined = async {
        while let Some(worker) = workers.join_next().await {
            worker.expect("a worker failed");
        }
    };
    let hangs = Duration::from_secs(20 + calls / 200);
    tokio::time::timeout(hangs, joined).await.expect("they hang");
    Arc::into_inner(tally).expect("nobody counts any more")
}

/// Answers how many exchanges failed by themselves.
#[expect(clippy::print_stdout, reason = "the figure, for whoever asks for more calls")]
async fn no_answer_is_foreign(protocol: &str, builder: Builder) -> u64 {
    let (_proxy, url) = service().await;
    let client = builder.build();
    let broken = Arc::new(AtomicU64::new(0));
    let counter = broken.clone();
    let tally = tortured(move |ctx, user| {
        let (client, counter, request) = (client.clone(), counter.clone(), get(format!("{url}{user}")));
        async move {
            let answered = match client.send(&ctx, request).await {
                Ok(answer) => text(answer).await,
                Err(error) => Err(error),
            };
            let is_given_up = |error: &Error| error.is_timeout();
            counter.fetch_add(
                u64::from(!answered.as_ref().err().is_none_or(is_given_up)),
                Relaxed,
            );
            answered.ok()
        }
    })
    .await;
    let broken = broken.load(Relaxed);
    println!("{protocol}: {tally:?}, broken: {broken}");
    let [answers, foreign, cancels] =
        [&tally.answers, &tally.foreign, &tally.cancels].map(|counter| counter.load(Relaxed));
    assert_eq!(foreign, 0, "{tally:?}");
    assert!(answers > 1_000 && cancels > 1_000, "{tally:?}");
    broken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_no_answer_is_foreign_on_http1() {
    let broken = no_answer_is_foreign("HTTP/1", Client::builder()).await;
    assert_eq!(broken, 0, "what is given up is nobody else's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_no_answer_is_foreign_on_http2() {
    let broken = no_answer_is_foreign("HTTP/2", Client::builder().http2()).await;
    assert_eq!(broken, 0, "nor does giving up end a connection");
}

#[expect(clippy::print_stdout, reason = "the figure, for whoever asks for more calls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_control_a_connection_put_back_after_a_cancelled_read_hands_out_foreign_answers() {
    let (proxy, _) = service().await;
    let naive = Naive {
        addr: proxy.address(),
        idle: Arc::default(),
    };
    let tally = tortured(move |ctx, user| {
        let naive = naive.clone();
        async move { ctx.run(naive.ask(user)).await.ok() }
    })
    .await;
    println!("put back: {tally:?}");
    assert!(tally.foreign.load(Relaxed) > 0, "{tally:?}");
}

/// A pool as one writes it on the first day.
#[derive(Clone)]
struct Naive {
    addr: SocketAddr,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

/// Puts its connection back when it is dropped, in whatever state.
struct Borrowed<'a>(&'a Naive, Option<TcpStream>);

impl Naive {
    async fn ask(&self, user: u64) -> String {
        let idle = self.idle.lock().unwrap().pop();
        let stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect(self.addr).await.unwrap(),
        };
        let mut borrowed = Borrowed(self, Some(stream));
        let stream = borrowed.1.as_mut().expect("put back at the end");
        let request = format!("GET /{user} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap_or(0))];
        stream.read_exact(&mut body).await.unwrap();
        String::from_utf8_lossy(&body).into_owned()
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.0.idle.lock().unwrap().extend(self.1.take());
    }
}
