//! An answer reaches the one who asked, whoever else gives up.
//!
//! A thousand users, each of whose keys has the user's own name as its value; 64 workers who ask for random ones through a
//! network that delays each way; a third of the calls given up at a random instant of their time, by the end of their
//! context or by the drop of their future. Counted: answers that are somebody else's.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::Database;
use bequest_redis::redis;
use bequest_test::proxy::{Faults, Proxy};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::naive::{self, NaivePool};
use super::{Shown, Stage, eventually};

const USERS: u64 = 1_000;
const WORKERS: u64 = 64;
const ANSWERS: u64 = 1_000_000;
/// Of the control: as many as it takes to see.
const NAIVE_ANSWERS: u64 = 20_000;
/// Each way.
const DELAY: Duration = Duration::from_millis(1);
/// Twice as many as workers, so that who gives up does so while the server is at work, not while waiting for a place.
const CONNECTIONS: usize = 128;
/// Cancels on their way at once: each is a process of the server.
const CANCELS: usize = 48;

/// How long it goes on.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    answers: u64,
    cancels: u64,
}

/// What became of the calls. Every number is only ever added to: Relaxed throughout.
#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    foreign: AtomicU64,
    cancels: AtomicU64,
    /// How long an answer took lately, in nanoseconds: where the cancels have to fall.
    latency: AtomicU64,
}

pub(super) async fn postgres(stage: &Stage) -> Result<Shown, Failure> {
    const SCENE: &str = "foreign answers, Postgres";
    let server = stage.postgres()?;
    let proxy = Proxy::start(server.address).await?;
    proxy.both(Faults::none().latency(DELAY));

    let db = bequest_postgres::Options::new(server.config("foreign", proxy.address()))
        .connections(CONNECTIONS)
        .cancels(CANCELS)
        .open(&stage.ctx)
        .await?;
    db.batch_execute(
        &stage.ctx,
        &format!(
            "CREATE TABLE who (id int8 PRIMARY KEY, name text NOT NULL);
             INSERT INTO who SELECT id, 'user:' || id FROM generate_series(0, {}) id",
            USERS - 1
        ),
    )
    .await?;
    let asking = db.clone();
    let ours = play(stage, SCENE, Wanted::ours(stage), move |ctx, user| {
        ask_postgres(asking.clone(), ctx, user)
    })
    .await?;
    eventually("the pool is whole", || is_whole(&db)).await?;
    let now = db.statistics();
    let pool = json!({
        "connections_opened": now.opened, "connections_discarded": now.discarded, "connections_settled": now.settled,
        "left_while_waiting_for_one": now.abandoned, "cancels_sent": now.cancels_sent, "most_cancels": now.most_cancels,
    });
    db.close(&stage.ctx.cleanup(super::HANGS)).await?;

    let pool_of_naive = NaivePool::new(naive::Postgres::of(
        server.config("foreign_naive", proxy.address()),
    )?);
    let naive = play(stage, SCENE, Wanted::naive(stage), move |ctx, user| {
        let pool = Arc::clone(&pool_of_naive);
        async move {
            given_up(
                ctx.run(pool.ask(&format!("SELECT name FROM who WHERE id = {user}")))
                    .await,
            )
        }
    })
    .await?;
    Ok(shown(stage, SCENE, &ours, &naive, pool))
}

pub(super) async fn redis(stage: &Stage) -> Result<Shown, Failure> {
    const SCENE: &str = "foreign answers, Redis";
    let server = stage.redis()?;
    let proxy = Proxy::start(server.address).await?;
    proxy.both(Faults::none().latency(DELAY));

    let client = bequest_redis::Client::open(server.url_through(proxy.address()))?;
    let keys: Vec<String> = (0..USERS).map(|user| server.key(&name(user))).collect();
    let mut fill = redis::cmd("MSET");
    for user in 0..USERS {
        fill.arg(&keys[user as usize]).arg(name(user));
    }
    client.cmd::<()>(&stage.ctx, &fill).await?;
    let asked: Arc<[String]> = keys.into();
    let (asking, keys) = (client.clone(), Arc::clone(&asked));
    let ours = play(stage, SCENE, Wanted::ours(stage), move |ctx, user| {
        let (client, keys) = (asking.clone(), Arc::clone(&keys));
        async move {
            match client.get::<String>(&ctx, &keys[user as usize]).await {
                Ok(answer) => Ok(Some(answer)),
                Err(error) if error.is_canceled() => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    })
    .await?;
    let now = client.statistics();
    let connection = json!({ "sent": now.sent, "given_up": now.given_up, "connected": now.connected });

    let (pool, keys) = (
        NaivePool::new(naive::Redis::new(proxy.address())),
        Arc::clone(&asked),
    );
    let naive = play(stage, SCENE, Wanted::naive(stage), move |ctx, user| {
        let (pool, keys) = (Arc::clone(&pool), Arc::clone(&keys));
        async move { given_up(ctx.run(pool.ask(&keys[user as usize])).await) }
    })
    .await?;
    Ok(shown(stage, SCENE, &ours, &naive, connection))
}

impl Wanted {
    /// Three cancels to ten answers.
    fn ours(stage: &Stage) -> Wanted {
        let answers = stage.count(ANSWERS);
        Wanted {
            answers,
            cancels: answers * 3 / 10,
        }
    }

    /// Who hands out foreign answers is quick, and hardly ever cancelled in time.
    fn naive(stage: &Stage) -> Wanted {
        Wanted {
            answers: stage.count(NAIVE_ANSWERS).max(1_000),
            cancels: 1,
        }
    }
}

impl Tally {
    fn read(&self) -> [u64; 3] {
        [&self.answers, &self.foreign, &self.cancels].map(|counter| counter.load(Ordering::Relaxed))
    }

    fn has(&self, wanted: Wanted) -> bool {
        let [answers, foreign, cancels] = self.read();
        answers + foreign >= wanted.answers && cancels >= wanted.cancels
    }

    fn count(&self, user: u64, answer: Option<&str>) {
        let counter = match answer {
            None => &self.cancels,
            Some(answer) if answer == name(user) => &self.answers,
            Some(_) => &self.foreign,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn took(&self, time: Duration) {
        let latency = self.latency.load(Ordering::Relaxed);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.latency
            .store(latency - latency / 16 + time / 16, Ordering::Relaxed);
    }

    fn figures(&self) -> Value {
        let [answers, foreign, cancels] = self.read();
        json!({ "answers": answers + foreign, "foreign": foreign, "cancels": cancels })
    }
}

/// Has 64 workers call until `wanted` is counted, or until the stage's context ends.
async fn play<A, F>(stage: &Stage, scene: &'static str, wanted: Wanted, ask: A) -> Result<Tally, Failure>
where
    A: Fn(Context, u64) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Option<String>, Failure>> + Send,
{
    let progress = Progress::new(scene, wanted.answers as usize);
    let tally = Arc::new(Tally::default());
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (ask, tally, running) = (ask.clone(), Arc::clone(&tally), stage.ctx.clone());
        let mut chance = stage.chance(scene, worker);
        workers.spawn(async move {
            while !tally.has(wanted) && !running.is_done() {
                let user = chance.u64(..USERS);
                let answer = call(&ask, user, &tally, &mut chance).await?;
                tally.count(user, answer.as_deref());
            }
            Ok::<(), Failure>(())
        });
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(worker) => worker??,
                None => break,
            },
            _ = ticks.tick() => progress.at((tally.read()[0] + tally.read()[1]) as usize),
        }
    }
    // Only the workers had the other handles.
    Arc::into_inner(tally).ok_or_else(|| "a worker is left".into())
}

/// One call; every third is given up after a random share of the time that an answer takes.
async fn call<A, F>(
    ask: &A,
    user: u64,
    tally: &Tally,
    chance: &mut fastrand::Rng,
) -> Result<Option<String>, Failure>
where
    A: Fn(Context, u64) -> F + Sync,
    F: Future<Output = Result<Option<String>, Failure>>,
{
    let root = Context::background();
    let (gives_up, share, drops) = (chance.u8(..3) == 0, chance.f64(), chance.bool());
    let latency = Duration::from_nanos(tally.latency.load(Ordering::Relaxed));
    if !gives_up || latency.is_zero() {
        let began = Instant::now();
        let answer = ask(root, user).await;
        tally.took(began.elapsed());
        return answer;
    }
    let limit = root.with_timeout(latency.mul_f64(share));
    if drops {
        given_up(limit.run(ask(root, user)).await)
    } else {
        ask(limit.context(), user).await
    }
}

/// `None` for a call whose context ended.
fn given_up<T, E>(answer: Result<Result<T, E>, bequest::Canceled>) -> Result<Option<String>, Failure>
where
    T: Into<Option<String>>,
    Failure: From<E>,
{
    match answer {
        Ok(answer) => Ok(answer?.into()),
        Err(_) => Ok(None),
    }
}

async fn ask_postgres(db: Database, ctx: Context, user: u64) -> Result<Option<String>, Failure> {
    let sql = "SELECT name FROM who WHERE id = $1";
    match db.query_one(&ctx, sql, &[&(user as i64)]).await {
        Ok(row) => Ok(Some(row.get(0))),
        Err(error) if error.is_canceled() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Nobody is in it, nothing is being tidied up.
pub(super) fn is_whole(db: &Database) -> bool {
    let now = db.statistics();
    now.in_use + now.settling + now.connecting + now.waiting + now.cancels == 0 && now.idle == now.connections
}

fn name(user: u64) -> String {
    format!("user:{user}")
}

fn shown(stage: &Stage, scene: &'static str, ours: &Tally, naive: &Tally, client: Value) -> Shown {
    let ([answers, foreign, cancels], [right, wrong, _]) = (ours.read(), naive.read());
    Shown {
        verdict: Verdict {
            scene,
            ours: format!("{foreign} of {} answers, {cancels} cancels", answers + foreign),
            control: format!("naive pool {wrong} of {}", right + wrong),
            holds: foreign == 0 && (cancels > 0 || stage.ctx.is_done()),
            control_failed: wrong > 0,
        },
        figures: json!({ "here": ours.figures(), "client": client, "naive": naive.figures() }),
    }
}
