//! The figures of this crate, each beside its peer or its negative control, on a private server:
//!
//! - `GET` throughput beside the driver alone;
//! - from the cancel of a blocked `BLPOP` to its answer;
//! - jobs lost, when those who wait for them give up;
//! - foreign answers with a third of the calls given up, beside a naive client.
//!
//! Run it with `cargo run --release -p bequest-redis --example figures`; with `get` for the first alone; or with a number of
//! calls for the last one; the default is 2 400 000, of which more than a million are answered.

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_redis::redis::IntoConnectionInfo;
use bequest_redis::redis::io::tcp::TcpSettings;
use bequest_redis::{Client, redis};
use bequest_test::proxy::{Faults, Proxy};
use bequest_test::servers::Redis;
use common::answers::{Naive, Tally, asked, fill, torture};
use common::jobs::{Driver, deliver, popped};
use common::{ROOT, blpop, patient, until_blocked};

type Failure = Box<dyn std::error::Error>;

/// How many tasks at a time, and how many calls of theirs make a slice. Short slices, many rounds: whatever else the
/// machine does meets all alike.
const LOADS: [(u64, u64); 2] = [(64, 32_000), (1, 2_000)];
const ROUNDS: usize = 41;
const POPS: usize = 2_000;
const JOBS: u64 = 10_000;
const CALLS: u64 = 2_400_000;
const NAIVE_CALLS: u64 = 100_000;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Failure> {
    let asked = std::env::args().nth(1);
    let calls = match asked.as_deref() {
        Some("get") | None => CALLS,
        Some(text) => text.parse()?,
    };
    let Some(server) = Redis::start_or_leave_out() else {
        return Ok(());
    };
    let client = Client::open(server.url())?;
    fill(&client).await;
    for (tasks, calls) in LOADS {
        throughput(&server, &client, tasks, calls).await?;
    }
    if asked.as_deref() == Some("get") {
        return Ok(());
    }
    pops(&client).await?;
    jobs(&server).await?;
    foreign(&server, &client, calls).await
}

/// In turns, so that whatever else the machine does meets all alike.
async fn throughput(server: &Redis, client: &Client, tasks: u64, calls: u64) -> Result<(), Failure> {
    let driver = redis::Client::open(server.url())?;
    let default = driver.get_multiplexed_async_connection().await?;
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let unlimited = driver
        .get_multiplexed_async_connection_with_config(&settings)
        .await?;
    // As ours: small packets leave at once.
    let info = server.url().into_connection_info()?;
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let nodelay = redis::Client::open(info)?
        .get_multiplexed_async_connection_with_config(&settings)
        .await?;
    let request = Context::background().with_timeout(Duration::from_secs(3600));
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let ours = |ctx: Context| {
            let client = client.clone();
            gets(tasks, calls, move || {
                let (client, ctx) = (client.clone(), ctx.clone());
                async move {
                    client
                        .get::<String>(&ctx, "user:1")
                        .await
                        .map(drop)
                        .map_err(Failure::from)
                }
            })
        };
        rates[0].push(ours(request.context()).await?);
        rates[1].push(ours(ROOT.clone()).await?);
        for (place, connection) in [(2, &default), (3, &unlimited), (4, &nodelay)] {
            let connection = connection.clone();
            let theirs = gets(tasks, calls, move || {
                let mut connection = connection.clone();
                async move {
                    let mut get = redis::cmd("GET");
                    get.arg("user:1");
                    get.query_async::<String>(&mut connection)
                        .await
                        .map(drop)
                        .map_err(Failure::from)
                }
            });
            rates[place].push(theirs.await?);
        }
    }
    say(format_args!(
        "GET per second, {tasks} at a time, median of {ROUNDS} rounds of {calls}; the ratio is the median of the rounds' own:"
    ))?;
    let [limited, free, default, unlimited, nodelay] = &rates;
    let rows = [
        ("redis-rs, its 500 ms limit", default, default),
        ("ours, with a deadline", limited, default),
        ("redis-rs, no limit", unlimited, unlimited),
        ("ours, no deadline", free, unlimited),
        ("redis-rs, no limit, no delay", nodelay, nodelay),
        ("ours, no deadline", free, nodelay),
    ];
    for (whose, rates, beside) in rows {
        let ratios = rates.iter().zip(beside).map(|(ours, theirs)| ours / theirs);
        let (rate, ratio) = (median(rates.clone()), median(ratios.collect()));
        say(format_args!("  {whose:<30} {rate:>9.0}  ratio {ratio:.2}"))?;
    }
    Ok(())
}

/// Calls per second.
async fn gets<G, F>(tasks: u64, calls: u64, get: G) -> Result<f64, Failure>
where
    G: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send,
{
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let get = get.clone();
        running.spawn(async move {
            for _ in 0..calls / tasks {
                get().await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(task) = running.join_next().await {
        task??;
    }
    Ok(calls as f64 / began.elapsed().as_secs_f64())
}

/// From the cancel to the answer, which comes when the server has let go.
async fn pops(client: &Client) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..POPS {
        let request = Context::background().with_cancel();
        let pop = tokio::spawn({
            let (client, ctx) = (client.clone(), request.context());
            async move {
                let answer = client.cmd::<redis::Value>(&ctx, &blpop("jobs", 0.0)).await;
                (Instant::now(), answer)
            }
        });
        until_blocked(client, 1).await;
        let canceled = Instant::now();
        request.cancel();
        let (answered, answer) = pop.await?;
        assert!(answer.is_err_and(|error| error.is_canceled() && !error.is_in_doubt()));
        times.push(answered - canceled);
    }
    times.sort();
    let (p50, p99) = (times[POPS / 2], times[POPS * 99 / 100]);
    say(format_args!(
        "cancelled BLPOP to answered, {POPS} of them: p50 {p50:.0?}, p99 {p99:.0?}"
    ))
}

/// Near, and through a proxy that delays each way, so that a cancel falls between the sending and the answer.
async fn foreign(server: &Redis, client: &Client, calls: u64) -> Result<(), Failure> {
    let ours = client.clone();
    counted("ours, near", calls, move |ctx, user| {
        asked(ours.clone(), ctx, user)
    })
    .await?;
    let naive = Naive::new(server.address());
    counted("naive, near", NAIVE_CALLS, move |ctx, user| {
        naive.clone().asked(ctx, user)
    })
    .await?;

    let proxy = Proxy::start(server.address()).await?;
    proxy.both(Faults::none().latency(Duration::from_millis(1)));
    let ours = Client::open(server.url_through(proxy.address()))?;
    counted("ours, far", calls, move |ctx, user| {
        asked(ours.clone(), ctx, user)
    })
    .await?;
    let naive = Naive::new(proxy.address());
    counted("naive, far", NAIVE_CALLS, move |ctx, user| {
        naive.clone().asked(ctx, user)
    })
    .await
}

/// What became of jobs whose workers give up at random instants.
async fn jobs(server: &Redis) -> Result<(), Failure> {
    let client = patient(server).blocking_connections(8).open()?;
    let popping = client.clone();
    let ours = deliver(&client, JOBS, move |random| popped(popping.clone(), random)).await;
    say(format_args!(
        "ours, {JOBS} jobs and as many pops: {ours:?}, {:?}",
        client.statistics().blocking
    ))?;
    let driver = Driver::connect(&server.url()).await;
    let theirs = deliver(&client, JOBS, move |random| driver.clone().popped(random)).await;
    say(format_args!("redis-rs alone: {theirs:?}"))
}

async fn counted<A, F>(whose: &str, calls: u64, ask: A) -> Result<(), Failure>
where
    A: Fn(Context, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let tally = Arc::new(Tally::default());
    let began = Instant::now();
    let work = torture(calls, Arc::clone(&tally), ask);
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = &mut work => break,
            _ = ticks.tick() => progress(&tally, calls, began.elapsed())?,
        }
    }
    let (answers, foreign, cancels) = tally.read();
    say(format_args!(
        "{whose}: {foreign} foreign of {} answers, with {cancels} cancels, in {:.1?}",
        answers + foreign,
        began.elapsed()
    ))
}

fn progress(tally: &Tally, calls: u64, elapsed: Duration) -> Result<(), Failure> {
    let (answers, foreign, cancels) = tally.read();
    let done = answers + foreign + cancels;
    if done > 0 {
        let left = elapsed.mul_f64(calls.saturating_sub(done) as f64 / done as f64);
        writeln!(
            io::stderr(),
            "  {done} of {calls} calls, {foreign} foreign, {left:.0?} left"
        )?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
