//! Stores that misbehave on command, and the naive ones that the controls need.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bequest::Context;
use bequest_redis::Client;

use crate::domain::session::{Gender, Session, SessionHash, User};
use crate::session::budget::StepError;
use crate::session::cache::redis::RedisCache;
use crate::session::cache::{Cached, Filled, SessionCache};
use crate::session::database::Answer;
use crate::session::id::SessionId;
use crate::session::record::{Ended, Record};

const STEP: &str = "session cache";

/// A cache at the end of a network: every call takes a while, each another one; several nodes share it.
#[derive(Debug)]
pub(crate) struct Distant<C> {
    pub(crate) cache: C,
    state: AtomicU64,
}

/// No answer of a distant cache takes longer.
const FARTHEST: u64 = 2_000_000;

impl<C> Distant<C> {
    pub(crate) fn new(cache: C) -> Distant<C> {
        Distant {
            cache,
            state: AtomicU64::new(0),
        }
    }

    async fn travel(&self, ctx: &Context) -> Result<(), StepError> {
        // One step of a Weyl sequence, mixed as in splitmix64: the same seed, the same journeys.
        let mut mixed = self
            .state
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        let journey = ctx.sleep(Duration::from_nanos(mixed % FARTHEST)).await;
        journey.map_err(|end| StepError::ended(STEP, end))
    }
}

impl<C: SessionCache> SessionCache for Distant<C> {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        Box::pin(async move {
            self.travel(ctx).await?;
            self.cache.get(ctx, id).await
        })
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move {
            self.travel(ctx).await?;
            self.cache.fill(ctx, record).await
        })
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            self.travel(ctx).await?;
            self.cache.bury(ctx, ended).await
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// The naive cache: get, set and delete, each entry for a TTL, and nothing that remembers what was deleted.
#[derive(Debug)]
pub(crate) struct NaiveCache {
    entries: Mutex<HashMap<SessionHash, (Instant, Arc<Record>)>>,
    ttl: Duration,
}

impl NaiveCache {
    pub(crate) fn new(ttl: Duration) -> NaiveCache {
        NaiveCache {
            entries: Mutex::default(),
            ttl,
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SessionHash, (Instant, Arc<Record>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionCache for NaiveCache {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        Box::pin(async move {
            let (now, mut entries) = (ctx.now(), self.entries());
            Ok(match entries.get_mut(&id) {
                Some((until, record)) if *until > now => {
                    *until = now + self.ttl;
                    Cached::Session(Arc::clone(record))
                }
                _ => Cached::Nothing,
            })
        })
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move {
            self.entries()
                .insert(record.session.id, (ctx.now() + self.ttl, record));
            Ok(Filled::Kept)
        })
    }

    fn bury<'a>(&'a self, _ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            self.entries().remove(&ended.id);
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// The naive cache in Redis: what is ended is deleted, and nothing remembers it.
#[derive(Debug)]
pub(crate) struct Forgetful {
    pub(crate) cache: RedisCache,
    pub(crate) client: Client,
}

impl SessionCache for Forgetful {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        self.cache.get(ctx, id)
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        self.cache.fill(ctx, record)
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            let deleted = self.client.del(ctx, self.cache.key(ended.id)).await;
            deleted.map(drop).map_err(|error| StepError::failed(STEP, error))
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A cache that can be away. What it holds, it still holds when it is back.
#[derive(Debug)]
pub(crate) struct Switched<C> {
    cache: C,
    away: AtomicBool,
    /// Tells of every session that the database has just confirmed it: the control, which never asks again.
    trusting: bool,
}

impl<C> Switched<C> {
    pub(crate) fn new(cache: C, trusting: bool) -> Switched<C> {
        Switched {
            cache,
            away: AtomicBool::new(false),
            trusting,
        }
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StepError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StepError::failed(STEP, "connection refused"));
        }
        Ok(())
    }
}

impl<C: SessionCache> SessionCache for Switched<C> {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        Box::pin(async move {
            self.check()?;
            match self.cache.get(ctx, id).await? {
                Cached::Session(record) if self.trusting => Ok(Cached::Session(Arc::new(Record {
                    confirmed_at: ctx.wall(),
                    ..(*record).clone()
                }))),
                cached => Ok(cached),
            }
        })
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move {
            self.check()?;
            self.cache.fill(ctx, record).await
        })
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check()?;
            self.cache.bury(ctx, ended).await
        })
    }

    fn is_shared(&self) -> bool {
        self.cache.is_shared()
    }
}

/// A user like any other.
pub(crate) fn user() -> User {
    User {
        id: "ann".into(),
        gender: Gender::Undisclosed,
        age: None,
    }
}

/// A session that is in the database and in no cache yet.
pub(crate) fn fresh(id: &SessionId, now: SystemTime) -> Record {
    Record {
        session: Arc::new(Session {
            id: id.hash(),
            user: user(),
            login_time: now,
        }),
        generation: 1,
        last_seen: now,
        absolute_end: now + Duration::from_secs(3600),
        confirmed_at: now,
    }
}
