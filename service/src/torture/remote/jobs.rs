//! A job is delivered once or still in the list, whoever gives up waiting for it.
//!
//! Eight workers wait for jobs with `BLPOP` and give up at random instants, by the end of their context or by the drop of
//! their future, while jobs are pushed in bursts about as fast. Counted: jobs that nobody got and that are in no list, and
//! those that two got.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bequest::Context;
use bequest_redis::redis::aio::MultiplexedConnection;
use bequest_redis::{Client, redis};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::{HANGS, Shown, Stage};

const SCENE: &str = "jobs popped by who gives up";
const JOBS: u64 = 10_000;
const NAIVE_JOBS: u64 = 1_000;
const WORKERS: u64 = 8;
/// A worker waits for so long at most, in microseconds.
const PATIENCE: u64 = 800;

/// What became of the jobs.
#[derive(Debug, Default)]
struct Counted {
    pushed: u64,
    /// Pops that were begun, and those that were given up.
    pops: u64,
    given_up: u64,
    /// Delivered once, or in the list.
    safe: u64,
    lost: u64,
    twice: u64,
}

pub(super) async fn scene(stage: &Stage) -> Result<Shown, Failure> {
    let server = stage.redis()?;
    let jobs = stage.count(JOBS);
    let naive_jobs = stage.count(NAIVE_JOBS).max(200);
    let progress = Progress::new(SCENE, (jobs + naive_jobs) as usize);

    // Patient with a busy server: what is not answered in time would be in doubt, and nothing could be said of it.
    let client = server
        .options()
        .blocking_connections(WORKERS as usize)
        .grace(HANGS)
        .unblock_limit(HANGS)
        .open()?;
    let (popping, list) = (client.clone(), server.key("jobs"));
    let ours = deliver(stage, &client, &list, jobs, |done| progress.at(done as usize), {
        let list = list.clone();
        move |chance| pop(popping.clone(), list.clone(), chance)
    })
    .await?;
    let blocking = client.statistics().blocking;

    let (driver, list) = (
        Driver::connect(&server.url_through(server.address)).await?,
        server.key("jobs_naive"),
    );
    let naive = deliver(
        stage,
        &client,
        &list,
        naive_jobs,
        |done| progress.at((jobs + done) as usize),
        {
            let list = list.clone();
            move |chance| driver.clone().pop(list.clone(), chance)
        },
    )
    .await?;
    let nothing_lost = ours.lost == 0 && ours.twice == 0 && blocking.lost == 0;
    Ok(Shown {
        verdict: Verdict {
            scene: SCENE,
            ours: format!("{} lost, {} twice of {}", ours.lost, ours.twice, ours.pushed),
            control: format!(
                "futures of redis-rs dropped: {} lost of {}",
                naive.lost, naive.pushed
            ),
            holds: nothing_lost && (ours.given_up > 0 || stage.ctx.is_done()),
            control_failed: naive.lost > 0,
        },
        figures: json!({
            "here": ours.figures(),
            "client": {
                "unblocked": blocking.unblocked, "put_back": blocking.put_back, "lost": blocking.lost,
                "closed": blocking.closed,
            },
            "naive": naive.figures(),
        }),
    })
}

/// Has jobs pushed while eight workers pop as often; `pop` waits for one and gives up at a random instant.
async fn deliver<P, F>(
    stage: &Stage,
    client: &Client,
    list: &str,
    jobs: u64,
    progress: impl Fn(u64),
    pop: P,
) -> Result<Counted, Failure>
where
    P: Fn(fastrand::Rng) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Option<String>, Failure>> + Send,
{
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (pop, running) = (pop.clone(), stage.ctx.clone());
        let mut chance = stage.chance(SCENE, worker);
        workers.spawn(async move {
            let (mut pops, mut delivered) = (0, Vec::new());
            while pops < jobs.div_ceil(WORKERS) && !running.is_done() {
                pops += 1;
                delivered.extend(pop(chance.fork()).await?);
            }
            Ok::<_, Failure>((pops, delivered))
        });
    }
    // Jobs are pushed, looked for and removed even when the scene is stopped: what was given out is to be accounted for.
    let ctx = stage.ctx.without_cancel();
    let (mut counted, mut bursts) = (Counted::default(), stage.chance(SCENE, WORKERS));
    while counted.pushed < jobs && !stage.ctx.is_done() {
        for _ in 0..bursts.u64(..12).min(jobs - counted.pushed) {
            let mut push = redis::cmd("RPUSH");
            client.cmd::<()>(&ctx, push.arg(list).arg(counted.pushed)).await?;
            counted.pushed += 1;
        }
        progress(counted.pushed);
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    let mut seen = HashMap::<String, u64>::new();
    while let Some(worker) = workers.join_next().await {
        let (pops, delivered) = worker??;
        counted.pops += pops;
        counted.given_up += pops - delivered.len() as u64;
        for job in delivered {
            *seen.entry(job).or_default() += 1;
        }
    }
    client.settle(&ctx).await?;
    let left: Vec<String> = client
        .cmd(&ctx, redis::cmd("LRANGE").arg(list).arg(0).arg(-1))
        .await?;
    for job in left {
        *seen.entry(job).or_default() += 1;
    }
    for job in 0..counted.pushed {
        match seen.get(&job.to_string()) {
            Some(1) => counted.safe += 1,
            Some(_) => counted.twice += 1,
            None => counted.lost += 1,
        }
    }
    Ok(counted)
}

/// One pop of ours, given up by the end of its context, or by the drop of its future.
async fn pop(client: Client, list: String, mut chance: fastrand::Rng) -> Result<Option<String>, Failure> {
    let (root, pop) = (Context::background(), blpop(&list));
    let (drops, limit) = (chance.bool(), Duration::from_micros(chance.u64(..PATIENCE)));
    let limit = root.with_timeout(limit);
    let answer = if drops {
        match limit.run(client.cmd::<(String, String)>(&root, &pop)).await {
            Ok(answer) => answer,
            Err(_) => return Ok(None),
        }
    } else {
        client.cmd::<(String, String)>(&limit, &pop).await
    };
    match answer {
        Ok((_, job)) => Ok(Some(job)),
        Err(error) if error.is_canceled() && !error.is_in_doubt() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The driver alone, with a connection for each of a few pops.
#[derive(Clone)]
struct Driver(Vec<MultiplexedConnection>);

impl Driver {
    async fn connect(url: &str) -> Result<Driver, Failure> {
        let driver = redis::Client::open(url)?;
        let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connections = Vec::new();
        for _ in 0..WORKERS {
            connections.push(
                driver
                    .get_multiplexed_async_connection_with_config(&settings)
                    .await?,
            );
        }
        Ok(Driver(connections))
    }

    /// One pop, given up by the drop of its future.
    async fn pop(self, list: String, mut chance: fastrand::Rng) -> Result<Option<String>, Failure> {
        let mut connection = self.0[chance.usize(..self.0.len())].clone();
        let limit = Context::background().with_timeout(Duration::from_micros(chance.u64(..PATIENCE)));
        let pop = blpop(&list);
        match limit
            .run(pop.query_async::<(String, String)>(&mut connection))
            .await
        {
            Ok(answer) => Ok(Some(answer?.1)),
            Err(_) => Ok(None),
        }
    }
}

fn blpop(list: &str) -> redis::Cmd {
    redis::cmd("BLPOP").arg(list).arg(0).take()
}

impl Counted {
    fn figures(&self) -> Value {
        json!({
            "pushed": self.pushed, "pops": self.pops, "given_up": self.given_up,
            "safe": self.safe, "lost": self.lost, "twice": self.twice,
        })
    }
}
