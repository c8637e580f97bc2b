//! The cache is away while a session is ended, and comes back with what it held before.
//!
//! On virtual time: the session is read every second for two minutes after the cache came back. What is counted: reads
//! that were answered with the session when a minute had passed.

use std::sync::Arc;
use std::time::Duration;

use bequest_test::Clock;

use super::race::LIFETIME;
use super::stores::{Switched, user};
use super::{Failure, Scratch, Verdict};
use crate::session::Sessions;
use crate::session::cache::memory::MemoryCache;
use crate::session::sessions::CONFIRMED_FOR;

const TTL: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

/// Reads that were answered with the session.
#[derive(Debug, Default)]
struct Counted {
    within: u32,
    after: u32,
}

pub(super) async fn scene() -> Result<Verdict, Failure> {
    let ours = play(false).await?;
    let naive = play(true).await?;
    Ok(Verdict {
        scene: "cache away during a logout, then back",
        ours: format!("{} accepted after 60 s", ours.after),
        control: format!("without confirmation {}, of 60", naive.after),
        // Within the minute it is accepted, or the cache had not kept it and the scene shows nothing.
        holds: ours.after == 0 && ours.within > 0,
        control_failed: naive.after > 0,
    })
}

async fn play(trusting: bool) -> Result<Counted, Failure> {
    let clock = Clock::new();
    let ctx = clock.context();
    let scratch = Scratch::new()?;
    let database = scratch.database(&ctx).await?;
    let cache = Arc::new(Switched::new(MemoryCache::new(TTL, 100), trusting));
    let sessions = Sessions::open(
        &ctx,
        Arc::new(database.clone()),
        Arc::clone(&cache) as _,
        LIFETIME,
    )
    .await?;
    let (id, _) = sessions.begin(&ctx, user(), None).await?;
    let id = id.hash();

    cache.set_away(true);
    let farewell = sessions.end(&ctx, id).await?;
    if farewell.at_once {
        return Err("a logout without a cache says that it holds at once".into());
    }
    cache.set_away(false);

    let mut counted = Counted::default();
    let mut passed = Duration::ZERO;
    while passed < 2 * CONFIRMED_FOR {
        let accepted = u32::from(sessions.read(&ctx, id).await?.is_some());
        if passed < CONFIRMED_FOR {
            counted.within += accepted;
        } else {
            counted.after += accepted;
        }
        clock.advance(SECOND);
        passed += SECOND;
    }
    sessions.drain().await;
    database.close(&ctx).await?;
    Ok(counted)
}
