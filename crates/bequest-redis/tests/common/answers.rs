//! Many users on one client, calls that are given up at random instants, and every answer checked; and a client as one
//! writes it on the first day. The long run of `examples/figures.rs` uses this too.
#![allow(dead_code)] // each user uses a part

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_redis::{Client, redis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Random;

const USERS: u64 = 1_000;
const WORKERS: u64 = 64;

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answers: AtomicU64,
    pub(crate) foreign: AtomicU64,
    pub(crate) cancels: AtomicU64,
    /// How long an answer took lately, in nanoseconds: where the cancels have to fall.
    latency: AtomicU64,
}

impl Tally {
    /// Answers, foreign answers, cancels.
    pub(crate) fn read(&self) -> (u64, u64, u64) {
        let [answers, foreign, cancels] =
            [&self.answers, &self.foreign, &self.cancels].map(|counter| counter.load(Ordering::Relaxed));
        (answers, foreign, cancels)
    }

    fn took(&self, time: Duration) {
        let latency = self.latency.load(Ordering::Relaxed);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.latency
            .store(latency - latency / 16 + time / 16, Ordering::Relaxed);
    }
}

/// Asks for random users' names, `calls` times in all, and has most calls end at a random instant around the one at
/// which they would be answered: some before they are sent, some between the sending and the answer, some too late.
pub(crate) async fn torture<A, F>(calls: u64, tally: Arc<Tally>, ask: A)
where
    A: Fn(Context, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (ask, tally) = (ask.clone(), Arc::clone(&tally));
        workers.spawn(async move {
            let mut random = Random::new(worker + 1);
            for call in 0..calls / WORKERS {
                let user = random.below(USERS);
                let answer = match call % 3 {
                    0 => {
                        let began = Instant::now();
                        let answer = ask(Context::background(), user).await;
                        tally.took(began.elapsed());
                        answer
                    }
                    _ => {
                        let around = tally.latency.load(Ordering::Relaxed) * 5 / 4 + 1;
                        let limit = Duration::from_nanos(random.below(around));
                        let request = Context::background().with_timeout(limit);
                        ask(request.context(), user).await
                    }
                };
                let counter = match answer {
                    None => &tally.cancels,
                    Some(answer) if answer == name(user) => &tally.answers,
                    Some(_) => &tally.foreign,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("a worker failed");
    }
}

/// Asks `client` for a name; `None` if the call was given up.
pub(crate) async fn asked(client: Client, ctx: Context, user: u64) -> Option<String> {
    match client.get::<String>(&ctx, name(user)).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert!(error.is_canceled(), "{error}");
            None
        }
    }
}

pub(crate) fn name(user: u64) -> String {
    format!("user:{user}")
}

/// Under each key its own name.
pub(crate) async fn fill(client: &Client) {
    let mut sets = redis::pipe();
    for user in 0..USERS {
        sets.cmd("SET").arg(name(user)).arg(name(user)).ignore();
    }
    let root = Context::background();
    client.pipeline::<()>(&root, &sets).await.unwrap();
}

/// A pool as one writes it on the first day.
#[derive(Clone)]
pub(crate) struct Naive {
    address: SocketAddr,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

/// Puts its connection back when it is dropped, in whatever state.
struct Borrowed<'a> {
    pool: &'a Naive,
    socket: Option<TcpStream>,
}

impl Naive {
    /// An empty pool for the server at `address`.
    pub(crate) fn new(address: SocketAddr) -> Naive {
        Naive {
            address,
            idle: Arc::default(),
        }
    }

    /// Asks for a name; `None` if the call was given up.
    pub(crate) async fn asked(self, ctx: Context, user: u64) -> Option<String> {
        let answer = ctx.run(self.get(user)).await.ok()?;
        Some(answer.unwrap())
    }

    async fn get(&self, user: u64) -> io::Result<String> {
        let idle = self.idle.lock().unwrap().pop();
        let socket = match idle {
            Some(socket) => socket,
            None => TcpStream::connect(self.address).await?,
        };
        let mut borrowed = Borrowed {
            pool: self,
            socket: Some(socket),
        };
        let socket = borrowed.socket.as_mut().expect("it is put back at the end");
        socket
            .write_all(format!("GET {}\r\n", name(user)).as_bytes())
            .await?;
        line(socket).await?; // the length
        line(socket).await
    }
}

/// The next line, byte by byte, so that nothing after it is taken.
async fn line(socket: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(socket.read_u8().await?);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.pool.idle.lock().unwrap().extend(self.socket.take());
    }
}
