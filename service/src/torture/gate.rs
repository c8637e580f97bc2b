//! Stores that hold whoever comes to a chosen step, until they are let on or their context ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bequest::Context;
use tokio::sync::{Notify, watch};

use crate::domain::session::SessionHash;
use crate::session::budget::StepError;
use crate::session::cache::memory::MemoryCache;
use crate::session::cache::{Cached, Filled, SessionCache};
use crate::session::database::{Answer, Claim, Claimed, SessionDatabase};
use crate::session::record::{Ended, Record};
use crate::session::sqlite::SqliteSessions;

/// The steps of a request that finds nothing in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CacheRead,
    Database,
    CacheFill,
    Handler,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::CacheRead | Step::CacheFill => "session cache",
            Step::Database => "session database",
            Step::Handler => "handler",
        }
    }
}

/// Where to hold, and who has come by.
#[derive(Debug)]
pub(crate) struct Gate {
    held: watch::Sender<Option<Step>>,
    entered: Mutex<Vec<Step>>,
    arrived: Notify,
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        Arc::new(Gate {
            held: watch::channel(None).0,
            entered: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    /// Holds at this step from now on, and forgets who came by before.
    pub(crate) fn hold(&self, step: Option<Step>) {
        self.entered().clear();
        self.held.send_replace(step);
    }

    /// Waits until somebody is held.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The steps that were begun since the last `hold`.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.entered().clone()
    }

    /// Comes to a step.
    pub(crate) async fn pass(&self, ctx: &Context, step: Step) -> Result<(), StepError> {
        self.entered().push(step);
        let mut held = self.held.subscribe();
        if *held.borrow_and_update() != Some(step) {
            return Ok(());
        }
        self.arrived.notify_one();
        let let_on = ctx.run(held.wait_for(|held| *held != Some(step))).await;
        // The gate outlives whoever is held at it, so the only way to fail is the context's end.
        let_on.map(drop).map_err(|end| StepError::ended(step.name(), end))
    }

    fn misses(&self) -> bool {
        self.held.borrow().is_some_and(|held| held != Step::CacheRead)
    }

    fn entered(&self) -> MutexGuard<'_, Vec<Step>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cache with a gate before it. While somewhere behind it is held, it finds nothing.
#[derive(Debug)]
pub(crate) struct GatedCache {
    pub(crate) cache: MemoryCache,
    pub(crate) gate: Arc<Gate>,
}

impl SessionCache for GatedCache {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        Box::pin(async move {
            self.gate.pass(ctx, Step::CacheRead).await?;
            if self.gate.misses() {
                return Ok(Cached::Nothing);
            }
            self.cache.get(ctx, id).await
        })
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move {
            self.gate.pass(ctx, Step::CacheFill).await?;
            self.cache.fill(ctx, record).await
        })
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        self.cache.bury(ctx, ended)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A database with a gate before its look-up.
#[derive(Debug)]
pub(crate) struct GatedDatabase {
    pub(crate) database: SqliteSessions,
    pub(crate) gate: Arc<Gate>,
}

impl SessionDatabase for GatedDatabase {
    fn find<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Record>> {
        Box::pin(async move {
            self.gate.pass(ctx, Step::Database).await?;
            self.database.find(ctx, id).await
        })
    }

    fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        new: Record,
        old: Option<SessionHash>,
    ) -> Answer<'a, Option<Ended>> {
        self.database.begin(ctx, new, old)
    }

    fn revoke<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Ended>> {
        self.database.revoke(ctx, id)
    }

    fn revoke_all<'a>(&'a self, ctx: &'a Context, user: &'a str) -> Answer<'a, Vec<Ended>> {
        self.database.revoke_all(ctx, user)
    }

    fn list<'a>(&'a self, ctx: &'a Context, user: &'a str, most: u32) -> Answer<'a, Vec<Record>> {
        self.database.list(ctx, user, most)
    }

    fn touch<'a>(
        &'a self,
        ctx: &'a Context,
        id: SessionHash,
        now: SystemTime,
        rest: Duration,
    ) -> Answer<'a, bool> {
        self.database.touch(ctx, id, now, rest)
    }

    fn claim<'a>(&'a self, ctx: &'a Context, how: Claim) -> Answer<'a, Box<dyn Claimed>> {
        self.database.claim(ctx, how)
    }
}
