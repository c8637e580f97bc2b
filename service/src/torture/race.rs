//! One logout, and eight readers on two nodes that race it.
//!
//! Each round begins with an empty cache, and the logout begins when the first reader asks the database. What is counted: reads that began after the logout had answered, and were answered with the session all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bequest::Context;
use bequest_postgres::Options;
use bequest_redis::Client;
use bequest_test::servers::{Postgres, Redis};
use ring::rand::SystemRandom;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::stores::{Distant, Forgetful, NaiveCache, fresh};
use super::{Failure, Progress, Scratch, Verdict, say};
use crate::domain::session::SessionHash;
use crate::session::Sessions;
use crate::session::cache::SessionCache;
use crate::session::cache::memory::MemoryCache;
use crate::session::cache::redis::RedisCache;
use crate::session::database::SessionDatabase;
use crate::session::id::SessionId;
use crate::session::postgres::PostgresSessions;
use crate::session::sessions::Lifetime;

const SCENE: &str = "8 readers race one logout, 2 nodes";
const ON_SERVERS: &str = "the same, PostgreSQL and Redis, 2 nodes";
const READERS: usize = 8;
/// Reads of each reader after the logout.
const PROBES: usize = 6;
const TTL: Duration = Duration::from_millis(50);

pub(crate) const LIFETIME: Lifetime = Lifetime {
    idle: Duration::from_secs(1800),
    absolute: Duration::from_secs(12 * 3600),
};

pub(super) async fn scene(ctx: &Context, rounds: usize) -> Result<Verdict, Failure> {
    let progress = Progress::new(SCENE, 2 * rounds);
    let ours: Arc<dyn SessionCache> = Arc::new(Distant::new(MemoryCache::new(TTL, 1000)));
    let ours = embedded(ctx, rounds, ours, |done| progress.at(done)).await?;
    let naive: Arc<dyn SessionCache> = Arc::new(Distant::new(NaiveCache::new(TTL)));
    let naive = embedded(ctx, rounds, naive, |done| progress.at(rounds + done)).await?;
    Ok(verdict(SCENE, &ours, &naive))
}

/// The same on PostgreSQL and Redis, each node with connections of its own.
pub(super) async fn on_servers(ctx: &Context, rounds: usize) -> Result<Option<Verdict>, Failure> {
    let starting = tokio::task::spawn_blocking(|| (Postgres::start(), Redis::start()));
    let (postgres, redis) = match starting.await? {
        (Ok(postgres), Ok(redis)) => (postgres, redis),
        (Err(error), _) | (_, Err(error)) if error.is_not_installed() => {
            say(&format!("{ON_SERVERS:<44} left out: {error}\n"));
            return Ok(None);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let progress = Progress::new(ON_SERVERS, 2 * rounds);
    let options = Options::from_url(&postgres.url())?;
    let database = PostgresSessions::open(ctx, options.clone()).await?;
    let shared = || {
        let client = Client::open(redis.url())?;
        Ok::<_, Failure>((RedisCache::new(client.clone(), "torture", TTL), client))
    };
    let mut counted = Vec::new();
    for is_naive in [false, true] {
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let (cache, client) = shared()?;
            let cache: Arc<dyn SessionCache> = match is_naive {
                false => Arc::new(Distant::new(cache)),
                true => Arc::new(Distant::new(Forgetful { cache, client })),
            };
            let store = PostgresSessions::open(ctx, options.clone()).await?;
            nodes.push(Sessions::open(ctx, Arc::new(store), cache, LIFETIME).await?);
        }
        let before = counted.len() * rounds;
        counted.push(play(ctx, rounds, &nodes, &database, |done| progress.at(before + done)).await?);
    }
    database.close(ctx).await?;
    Ok(Some(verdict(ON_SERVERS, &counted[0], &counted[1])))
}

fn verdict(scene: &'static str, ours: &Counted, naive: &Counted) -> Verdict {
    Verdict {
        scene,
        ours: format!("{} accepted after, of {}", ours.accepted, ours.probes),
        control: format!(
            "without tombstones {}, in {} rounds",
            naive.accepted, naive.rounds
        ),
        holds: ours.accepted == 0 && ours.probes > 0,
        control_failed: naive.accepted > 0,
    }
}

/// What was counted.
#[derive(Debug, Default)]
struct Counted {
    /// Reads that began after the logout had answered.
    probes: u64,
    /// Those of them that were answered with the session.
    accepted: u64,
    /// Rounds in which that happened.
    rounds: u64,
}

async fn embedded(
    ctx: &Context,
    rounds: usize,
    cache: Arc<dyn SessionCache>,
    progress: impl FnMut(usize),
) -> Result<Counted, Failure> {
    let scratch = Scratch::new()?;
    let database = scratch.database(ctx).await?;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(database.clone());
        nodes.push(Sessions::open(ctx, store, Arc::clone(&cache), LIFETIME).await?);
    }
    let counted = play(ctx, rounds, &nodes, &database, progress).await?;
    database.close(ctx).await?;
    Ok(counted)
}

async fn play(
    ctx: &Context,
    rounds: usize,
    nodes: &[Arc<Sessions>],
    database: &dyn SessionDatabase,
    mut progress: impl FnMut(usize),
) -> Result<Counted, Failure> {
    let (random, mut counted) = (SystemRandom::new(), Counted::default());
    for done in 0..rounds {
        let id = SessionId::generate(&random)?;
        let (probes, accepted) = round(ctx, nodes, database, &id).await?;
        counted.probes += probes;
        counted.accepted += accepted;
        counted.rounds += u64::from(accepted > 0);
        progress(done + 1);
    }
    for node in nodes {
        node.drain().await;
    }
    Ok(counted)
}

/// What the readers of one round share.
#[derive(Debug)]
struct Race {
    id: SessionHash,
    begin: Barrier,
    /// A reader has been answered.
    answered: AtomicBool,
    /// The logout has answered.
    ended: AtomicBool,
    probes: AtomicU64,
    accepted: AtomicU64,
}

async fn round(
    ctx: &Context,
    nodes: &[Arc<Sessions>],
    database: &dyn SessionDatabase,
    id: &SessionId,
) -> Result<(u64, u64), Failure> {
    database.begin(ctx, fresh(id, ctx.wall()), None).await?;
    let race = Arc::new(Race {
        id: id.hash(),
        begin: Barrier::new(READERS + 1),
        answered: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        probes: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
    });
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let node = Arc::clone(&nodes[reader % nodes.len()]);
        readers.spawn(read(ctx.clone(), node, Arc::clone(&race)));
    }
    race.begin.wait().await;
    // The moment at which it is most dangerous: somebody is asking the database, or has been answered just now.
    while nodes.iter().all(|node| node.in_flight() == 0) && !race.answered.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let farewell = nodes[0].end(ctx, race.id).await?;
    race.ended.store(true, Ordering::SeqCst);
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    // A logout that could not reach the cache promises something else, and says so.
    let counts = farewell.at_once && farewell.ended == 1;
    let load = |counter: &AtomicU64| if counts { counter.load(Ordering::SeqCst) } else { 0 };
    Ok((load(&race.probes), load(&race.accepted)))
}

async fn read(ctx: Context, node: Arc<Sessions>, race: Arc<Race>) -> Result<(), Failure> {
    race.begin.wait().await;
    let mut probes = 0;
    while probes < PROBES {
        let began_after = race.ended.load(Ordering::SeqCst);
        let accepted = node.read(&ctx, race.id).await?.is_some();
        race.answered.store(true, Ordering::SeqCst);
        if began_after {
            probes += 1;
            race.probes.fetch_add(1, Ordering::SeqCst);
            race.accepted.fetch_add(u64::from(accepted), Ordering::SeqCst);
        }
    }
    Ok(())
}
