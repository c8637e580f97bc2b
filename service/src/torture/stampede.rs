//! Many readers ask for one session that is in no cache; the first of them leaves.
//!
//! The database is held until all of them wait, so that they ask at once in every run.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bequest::Context;
use ring::rand::SystemRandom;

use super::gate::{Gate, GatedCache, GatedDatabase, Step};
use super::race::LIFETIME;
use super::stores::fresh;
use super::{Failure, Scratch, Verdict};
use crate::domain::session::SessionHash;
use crate::session::Sessions;
use crate::session::cache::SessionCache;
use crate::session::cache::memory::MemoryCache;
use crate::session::database::SessionDatabase;
use crate::session::id::SessionId;
use crate::session::sessions::Lifetime;

/// What was counted.
#[derive(Debug)]
struct Counted {
    queries: usize,
    answers: usize,
}

pub(super) async fn scene(ctx: &Context, readers: usize) -> Result<Verdict, Failure> {
    let ours = play(ctx, readers, Way::Flights).await?;
    let naive = play(ctx, readers, Way::Naive).await?;
    Ok(Verdict {
        scene: "stampede of misses, the first one leaves",
        ours: format!("{} query, {} answers of {readers}", ours.queries, ours.answers),
        control: format!("without flights {} queries", naive.queries),
        holds: ours.queries == 1 && ours.answers == readers - 1,
        control_failed: naive.queries > 1,
    })
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Flights,
    /// Each for itself: the cache, then the database, then the cache again.
    Naive,
}

type Read<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

async fn play(ctx: &Context, readers: usize, way: Way) -> Result<Counted, Failure> {
    let scratch = Scratch::new()?;
    let opened = scratch.database(ctx).await?;
    let gate = Gate::new();
    let database = Arc::new(GatedDatabase {
        database: opened.clone(),
        gate: Arc::clone(&gate),
    });
    let cache = Arc::new(GatedCache {
        cache: MemoryCache::new(Duration::from_secs(60), 100),
        gate: Arc::clone(&gate),
    });
    let lifetime: Lifetime = LIFETIME;
    let sessions = Sessions::open(ctx, Arc::clone(&database) as _, Arc::clone(&cache) as _, lifetime).await?;
    let id = SessionId::generate(&SystemRandom::new())?;
    database.begin(ctx, fresh(&id, ctx.wall()), None).await?;
    let id = id.hash();

    gate.hold(Some(Step::Database));
    let first = ctx.with_cancel();
    let mut reads: Vec<Read<'_>> = Vec::new();
    for number in 0..readers {
        let ctx: &Context = if number == 0 { &first } else { ctx };
        reads.push(match way {
            Way::Flights => {
                let sessions = &sessions;
                Box::pin(async move { sessions.read(ctx, id).await.is_ok_and(|found| found.is_some()) })
            }
            Way::Naive => Box::pin(naive(ctx, &*database, &*cache, id)),
        });
    }
    for read in &mut reads {
        // Once is as far as it gets: to where it waits.
        poll_fn(|task| Poll::Ready(read.as_mut().poll(task).is_pending())).await;
    }
    gate.arrived().await;
    first.cancel();
    let mut answers = usize::from(reads.remove(0).await);
    let queries = gate
        .steps()
        .iter()
        .filter(|&&step| step == Step::Database)
        .count();
    gate.hold(None);
    for read in reads {
        answers += usize::from(read.await);
    }
    let late = gate
        .steps()
        .iter()
        .filter(|&&step| step == Step::Database)
        .count();
    sessions.drain().await;
    opened.close(ctx).await?;
    Ok(Counted {
        queries: queries + late,
        answers,
    })
}

async fn naive(
    ctx: &Context,
    database: &dyn SessionDatabase,
    cache: &dyn SessionCache,
    id: SessionHash,
) -> bool {
    if cache.get(ctx, id).await.is_err() {
        return false;
    }
    match database.find(ctx, id).await {
        Ok(Some(record)) => cache.fill(ctx, Arc::new(record)).await.is_ok(),
        Ok(None) | Err(_) => false,
    }
}
