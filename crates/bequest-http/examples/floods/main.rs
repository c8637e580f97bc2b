//! What floods do to the server: for each, how long until its connections are closed, how much memory grows meanwhile, how
//! many contexts are alive a second later, and the p99 of a good client during the flood beside its quiet value.
//!
//! Run it with `cargo run --release -p bequest-http --example floods`; it takes about six minutes, as the limits are the
//! defaults. Words behind `--` choose the floods that have one of them in their name. Ten attackers at once, on loopback, in this
//! process, so the growth of memory is theirs as well.

mod attacks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attacks::Attack;
use bequest::{Context, Reason};
use bequest_http::Server;
use bequest_http::server::{BoxError, RequestBody, service_fn};
use bequest_test::Leak;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

const ATTACKERS: usize = 10;

/// How long contexts that are left after a second are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the good client is measured in quiet.
const QUIET: Duration = Duration::from_secs(1);

/// Handlers that are alive, and the most there ever were.
#[derive(Clone, Default)]
struct Handlers(Arc<(AtomicUsize, AtomicUsize)>);

struct Alive(Handlers);

impl Handlers {
    fn one_more(&self) -> Alive {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Alive(self.clone())
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
async fn main() -> Result<(), BoxError> {
    println!(
        "| flood, {ATTACKERS} at once | closed after | memory grew by | most handlers | contexts before, and 1 s after | a good \
         client's p99: quiet, during |"
    );
    println!("|---|---|---|---|---|---|");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    // What an attacker does to the turns of its own runtime is no concern of the server.
    let outside = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for attack in Attack::ALL.into_iter().filter(|attack| is_chosen(attack.name())) {
        let figures = flood(attack, outside.handle()).await?;
        println!(
            "| {} | {} | {:.1} MiB | {} | {} | {:.2} ms, {:.2} ms |",
            attack.name(),
            figures.closed,
            figures.grew as f64 / 1024.0,
            figures.handlers,
            figures.contexts,
            figures.p99.0.as_secs_f64() * 1e3,
            figures.p99.1.as_secs_f64() * 1e3,
        );
    }
    outside.shutdown_background();
    Ok(())
}

struct Figures {
    closed: String,
    /// In KiB.
    grew: u64,
    handlers: usize,
    contexts: String,
    p99: (Duration, Duration),
}

async fn flood(attack: Attack, outside: &Handle) -> Result<Figures, BoxError> {
    attack.prepare();
    let handlers = Handlers::default();
    let leak = Leak::watch();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let process = leak.context().with_cancel();
    let (ctx, counted) = (process.context(), handlers.clone());
    let server = tokio::spawn(async move { Server::builder().serve(listener, service(counted), &ctx).await });

    let mut good = TcpStream::connect(addr).await?;
    let quiet = p99(latencies(&mut good, QUIET, || false).await?);
    let (contexts, memory) = (leak.left().contexts.len(), resident()?);

    let attackers: Vec<_> = (0..ATTACKERS).map(|_| outside.spawn(attack.run(addr))).collect();
    let over = || attackers.iter().all(tokio::task::JoinHandle::is_finished);
    let mut most = memory;
    let during = latencies(&mut good, Duration::MAX, || {
        most = most.max(resident().unwrap_or(0));
        over()
    })
    .await?;
    let mut closed: Vec<Duration> = Vec::new();
    for attacker in attackers {
        closed.extend(attacker.await??);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = leak.left().contexts.len();
    let over = Instant::now();
    while leak.left().contexts.len() > contexts && over.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let figures = Figures {
        closed: summary(&mut closed),
        grew: most - memory,
        handlers: handlers.most(),
        contexts: match over.elapsed() {
            _ if after <= contexts => format!("{contexts}, {after}"),
            more => format!(
                "{contexts}, {after} ({} another {more:.1?} later)",
                leak.left().contexts.len()
            ),
        },
        p99: (quiet, p99(during)),
    };
    process.cancel_for(Reason::Shutdown);
    server.await??;
    Ok(figures)
}

/// Answers `/good` at once, `/endless` without end, and everything else never: `/stubborn` does not even heed its context.
fn service(
    handlers: Handlers,
) -> impl tower_service::Service<
    Request<RequestBody>,
    Response = Response<BoxBody<Bytes, BoxError>>,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    service_fn(move |request: Request<RequestBody>| {
        let handlers = handlers.clone();
        async move {
            match request.uri().path() {
                "/good" => {}
                "/endless" => return Response::new(BoxBody::new(attacks::Endless)),
                "/stubborn" => {
                    let _alive = handlers.one_more();
                    std::future::pending::<()>().await;
                }
                _ => {
                    let _alive = handlers.one_more();
                    if let Some(ctx) = request.extensions().get::<Context>() {
                        ctx.done().await;
                    }
                }
            }
            let body = Full::new(Bytes::from_static(b"good"));
            Response::new(BoxBody::new(body.map_err(|never| match never {})))
        }
    })
}

/// How long requests of a good client take, one after the other, for this long or until it is over.
async fn latencies(
    good: &mut TcpStream,
    limit: Duration,
    mut over: impl FnMut() -> bool,
) -> Result<Vec<Duration>, BoxError> {
    let began = Instant::now();
    let mut took = Vec::new();
    while began.elapsed() < limit && !over() {
        let asked = Instant::now();
        good.write_all(b"GET /good HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"good") {
            if good.read_buf(&mut answer).await? == 0 {
                return Err("the good client was closed".into());
            }
        }
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(took)
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

fn summary(closed: &mut [Duration]) -> String {
    closed.sort_unstable();
    let (Some(first), Some(last)) = (closed.first(), closed.last()) else {
        return "-".to_owned();
    };
    format!(
        "{:.2} to {:.2} s ({} connections)",
        first.as_secs_f64(),
        last.as_secs_f64(),
        closed.len()
    )
}

/// The resident size of this process, in KiB.
fn resident() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| "no resident size".into())
}

/// What an attack says at its end: how long each of its connections was open.
pub(crate) type Outcome = std::io::Result<Vec<Duration>>;

/// Connects for an attack.
pub(crate) async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(addr).await
}
