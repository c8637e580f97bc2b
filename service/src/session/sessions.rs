//! The sessions of this node: begin, read, end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bequest::{CancelScope, Canceled, Context};
use ring::rand::SystemRandom;
use tokio::sync::{Semaphore, oneshot};

use super::background::Background;
use super::budget::{Budget, StepError};
use super::cache::{CacheMark, Cached, Filled, SessionCache, TOMBSTONE};
use super::database::{Claim, Claimed, Elsewhere, SessionDatabase};
use super::flight::{Flights, Mark, NoAnswer};
use super::id::SessionId;
use super::record::{Ended, Record, since};
use crate::domain::session::{Session, SessionHash, User};

/// How long a confirmation by the database is relied on.
pub(crate) const CONFIRMED_FOR: Duration = Duration::from_secs(60);
/// `last_seen` is written no more often than this.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

const CACHE: Budget = Budget::new("session cache", Duration::from_millis(20));
const DATABASE: Budget = Budget::new("session database", Duration::from_secs(1));
/// A tombstone is worth waiting for: without it, what is ended lives on in the cache for up to a minute.
const BURY: Budget = Budget::new("session tombstone", Duration::from_secs(1));
/// Ending sessions, once begun, is not called off; this is its limit.
const ENDING: Budget = Budget::new("ending sessions", Duration::from_secs(5));
const TOUCH: Budget = Budget::new("session last seen", Duration::from_secs(2));

/// The longest way from a read of the database to the fill of the cache that follows: both run within a flight.
pub(crate) const REFILL: Duration = DATABASE.limit;
const _: () = assert!(
    TOMBSTONE.as_secs() >= 10 * REFILL.as_secs(),
    "a tombstone outlives every refill"
);

/// How often the cache is given its mark, should it have lost it.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Questions to the database at a time, whatever the cache does.
pub(super) const ASKING: usize = 64;
/// The most sessions of one user that are listed.
const LISTED: u32 = 100;

/// The sessions of this node.
#[derive(Debug)]
pub(crate) struct Sessions {
    database: Arc<dyn SessionDatabase>,
    cache: Arc<dyn SessionCache>,
    lifetime: Lifetime,
    flights: Flights<SessionHash, Confirmed>,
    /// A permit for each question to the database.
    asking: Semaphore,
    background: Background,
    random: SystemRandom,
    counters: Counters,
    /// Held for as long as this node may end and confirm sessions.
    claim: Box<dyn Claimed>,
}

/// How long sessions last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// Unused for this long, a session is over; up to a minute earlier, since that is how far `last_seen` is behind.
    pub(crate) idle: Duration,
    /// It is over after this long in any case.
    pub(crate) absolute: Duration,
}

/// What the cache said.
enum Looked {
    Up(Cached),
    /// Nothing within its budget. It is not waited for a second time, so there is no refill, which would have met a tombstone; the
    /// database has to be asked after this instant.
    Silent(Mark),
}

/// What a flight brings home: the session, if it stands.
type Confirmed = Result<Option<Arc<Record>>, SessionError>;

/// Why it is not known whether a session stands. It is never taken for a yes.
#[derive(Clone, Debug)]
pub(crate) struct SessionError(Arc<StepError>);

/// What has been ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Farewell {
    pub(crate) ended: usize,
    /// The cache knows of all of them. If not, what it holds is confirmed within [`CONFIRMED_FOR`], and then gone.
    pub(crate) at_once: bool,
}

/// What has happened so far, for metrics and tests.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Reads answered by the cache.
    pub(crate) hits: AtomicU64,
    /// Questions put to the database.
    pub(crate) asked: AtomicU64,
    /// Times when the cache was too slow, or away.
    pub(crate) cache_failed: AtomicU64,
    /// Fills that met a tombstone.
    pub(crate) met_tombstone: AtomicU64,
    /// Times when `last_seen` was written.
    pub(crate) touched: AtomicU64,
    pub(crate) touch_failed: AtomicU64,
}

impl Sessions {
    /// Sessions in `database` with `cache` before it.
    ///
    /// # Errors
    ///
    /// Another node uses the database, and the two share no cache; or the database does not answer.
    pub(crate) async fn open(
        ctx: &Context,
        database: Arc<dyn SessionDatabase>,
        cache: Arc<dyn SessionCache>,
        lifetime: Lifetime,
    ) -> Result<Arc<Sessions>, SessionError> {
        let (claim, mark) = claim(ctx, &*database, &*cache).await?;
        let sessions = Arc::new(Sessions {
            database,
            cache,
            lifetime,
            flights: Flights::new(),
            asking: Semaphore::new(ASKING),
            background: Background::default(),
            random: SystemRandom::new(),
            counters: Counters::default(),
            claim,
        });
        if let Some(mark) = mark {
            tokio::spawn(keep_mark(Arc::downgrade(&sessions), mark));
        }
        Ok(sessions)
    }

    /// The session under `id`, if it stands.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or ending `ctx`, stops the present step, and the next is not begun. A question to the
    /// database for which others wait goes on for them.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; or neither the cache nor the database could tell.
    pub(crate) async fn read(
        self: &Arc<Self>,
        ctx: &Context,
        id: SessionHash,
    ) -> Result<Option<Arc<Session>>, SessionError> {
        let looked = match self.claim.is_lost() {
            false => self.look_up(ctx, id).await?,
            true => Looked::Up(Cached::Nothing),
        };
        let silent_since = match looked {
            Looked::Up(Cached::Ended) => return Ok(None),
            Looked::Up(Cached::Session(record)) if record.is_confirmed(ctx.wall(), CONFIRMED_FOR) => {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(Arc::clone(&record.session)));
            }
            Looked::Up(Cached::Session(_) | Cached::Nothing) => None,
            Looked::Silent(since) => Some(since),
        };
        let confirmed = self.confirm(ctx, id, silent_since).await?;
        Ok(confirmed.map(|record| Arc::clone(&record.session)))
    }

    /// Begins a session for `user` in place of `old`, if the client brought one: the new id, and what it stands for.
    ///
    /// # Cancel safety
    ///
    /// Until the database has committed, nothing was done. After that, the old session is ended everywhere, even if
    /// nobody waits; the new one then expires unused.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; or the database did not take it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        ctx: &Context,
        user: User,
        old: Option<SessionHash>,
    ) -> Result<(SessionId, Arc<Session>), SessionError> {
        let id = SessionId::generate(&self.random).map_err(|error| StepError::failed("session id", error))?;
        let now = whole_millis(ctx.wall());
        let session = Arc::new(Session {
            id: id.hash(),
            user,
            login_time: now,
        });
        let record = Record {
            session: Arc::clone(&session),
            generation: 1,
            last_seen: now,
            absolute_end: now + self.lifetime.absolute,
            confirmed_at: now,
        };
        let ended = {
            let step = DATABASE.scope(ctx);
            self.database.begin(&step, record.clone(), old).await?
        };
        let this = Arc::clone(self);
        self.detached(ctx, move |limit| async move {
            // A cache that has not taken the one is not waited for again.
            if this.bury(&limit, ended.as_slice()).await.at_once {
                this.fill(&limit, Arc::new(record)).await;
            }
        })
        .await?;
        Ok((id, session))
    }

    /// Ends one session. From the answer on, no read is answered with it; see [`Farewell::at_once`].
    ///
    /// # Cancel safety
    ///
    /// Once begun it is done, within a limit of its own, whether or not anybody waits.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; or the database did not take it, and the session stands.
    pub(crate) async fn end(
        self: &Arc<Self>,
        ctx: &Context,
        id: SessionHash,
    ) -> Result<Farewell, SessionError> {
        let this = Arc::clone(self);
        self.detached(ctx, move |limit| async move {
            let ended = this.database.revoke(&limit, id).await?;
            Ok(this.bury(&limit, ended.as_slice()).await)
        })
        .await?
    }

    /// Ends all sessions of a user, as [`end`](Sessions::end) ends one.
    ///
    /// # Cancel safety
    ///
    /// As [`end`](Sessions::end).
    ///
    /// # Errors
    ///
    /// As [`end`](Sessions::end).
    pub(crate) async fn end_all(
        self: &Arc<Self>,
        ctx: &Context,
        user: &str,
    ) -> Result<Farewell, SessionError> {
        let (this, user) = (Arc::clone(self), user.to_string());
        self.detached(ctx, move |limit| async move {
            let ended = this.database.revoke_all(&limit, &user).await?;
            Ok(this.bury(&limit, &ended).await)
        })
        .await?
    }

    /// The sessions of a user that stand, the last begun first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the query.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; or the database did not answer.
    pub(crate) async fn list(&self, ctx: &Context, user: &str) -> Result<Vec<Record>, SessionError> {
        let step = DATABASE.scope(ctx);
        let mut records = self.database.list(&step, user, LISTED).await?;
        let now = ctx.wall();
        records.retain(|record| record.is_live(now, self.lifetime.idle));
        Ok(records)
    }

    /// Waits for what goes on in the background. Everything there has a limit of its own.
    pub(crate) async fn drain(&self) {
        self.background.drain().await;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Questions to the database that are under way, or wait for their turn.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len() + (ASKING - self.asking.available_permits())
    }

    /// What the cache says within its budget.
    async fn look_up(&self, ctx: &Context, id: SessionHash) -> Result<Looked, SessionError> {
        ctx.check().map_err(|end| StepError::ended(CACHE.step, end))?;
        if let Some(cached) = self.cache.get_now(ctx, id) {
            return Ok(Looked::Up(cached));
        }
        let begun = self.flights.mark();
        let step = CACHE.scope(ctx);
        match self.cache.get(&step, id).await {
            Ok(cached) => Ok(Looked::Up(cached)),
            // The request itself is over: the database is not asked.
            Err(error) if ctx.is_done() => Err(error.into()),
            Err(_) => {
                self.counters.cache_failed.fetch_add(1, Ordering::Relaxed);
                Ok(Looked::Silent(begun))
            }
        }
    }

    /// What the database says, together with everybody else who wants to know. If the cache has said nothing since an
    /// instant, together with those alone who have asked since then, and the cache is left alone.
    async fn confirm(
        self: &Arc<Self>,
        ctx: &Context,
        id: SessionHash,
        silent_since: Option<Mark>,
    ) -> Confirmed {
        let step = DATABASE.scope(ctx);
        let take_off = || {
            let flight = DATABASE.scope(&ctx.without_cancel());
            let canceller = flight.canceller();
            let refills = silent_since.is_none();
            (Some(canceller), Arc::clone(self).ask(flight, id, refills))
        };
        let since = silent_since.unwrap_or(Mark::BEGINNING);
        let waiter = self
            .flights
            .join(id, since, take_off, |work| self.background.spawn(work));
        match waiter.wait(&step).await {
            Ok(confirmed) => confirmed,
            Err(NoAnswer::Ended(end)) => Err(StepError::ended(DATABASE.step, end).into()),
            Err(NoAnswer::Crashed) => Err(StepError::failed(DATABASE.step, "the question was lost").into()),
        }
    }

    /// One flight: the database, then the cache, if it `refills` that.
    async fn ask(self: Arc<Self>, flight: CancelScope, id: SessionHash, refills: bool) -> Confirmed {
        let ended = |end| StepError::ended(DATABASE.step, end);
        let found = {
            let permit = flight.run(self.asking.acquire()).await.map_err(ended)?;
            let _permit = permit.map_err(|closed| StepError::failed(DATABASE.step, closed))?;
            self.counters.asked.fetch_add(1, Ordering::Relaxed);
            self.database.find(&flight, id).await?
        };
        let Some(record) = found.filter(|record| record.is_live(flight.wall(), self.lifetime.idle)) else {
            return Ok(None);
        };
        flight.check().map_err(ended)?;
        let record = Arc::new(record);
        if refills && self.fill(&flight, Arc::clone(&record)).await == Some(Filled::Ended) {
            self.counters.met_tombstone.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        flight.check().map_err(ended)?;
        self.touch(&flight, &record);
        Ok(Some(record))
    }

    /// Fills the cache within its budget. `None`: it did not say.
    async fn fill(&self, ctx: &Context, record: Arc<Record>) -> Option<Filled> {
        let step = CACHE.scope(ctx);
        let filled = self.cache.fill(&step, record).await;
        if filled.is_err() {
            self.counters.cache_failed.fetch_add(1, Ordering::Relaxed);
        }
        filled.ok()
    }

    /// Tells the cache of sessions that the database has ended, and lets nobody join a question that was put before.
    async fn bury(&self, ctx: &Context, ended: &[Ended]) -> Farewell {
        let mut at_once = true;
        for &session in ended {
            let step = BURY.scope(ctx);
            if self.cache.bury(&step, session).await.is_err() {
                self.counters.cache_failed.fetch_add(1, Ordering::Relaxed);
                at_once = false;
            }
            self.flights.forget(&session.id);
        }
        Farewell {
            ended: ended.len(),
            at_once,
        }
    }

    /// Notes that a session is used, if the last note is a minute old. Nobody waits for it.
    fn touch(self: &Arc<Self>, ctx: &Context, record: &Record) {
        let now = ctx.wall();
        if since(record.last_seen, now) < TOUCH_EVERY {
            return;
        }
        let (this, id, detached) = (Arc::clone(self), record.session.id, ctx.without_cancel());
        self.background.spawn(async move {
            let limit = TOUCH.scope(&detached);
            let counter = match this.database.touch(&limit, id, now, TOUCH_EVERY).await {
                Ok(true) => &this.counters.touched,
                // Another node was first.
                Ok(false) => return,
                Err(_) => &this.counters.touch_failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Does `work` in the background, on a context that keeps the values of `ctx` and not its end, and waits under `ctx`.
    async fn detached<T, F, W>(&self, ctx: &Context, work: F) -> Result<T, SessionError>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> W + Send + 'static,
        W: Future<Output = T> + Send,
    {
        ctx.check().map_err(|end| StepError::ended(ENDING.step, end))?;
        let (send, answer) = oneshot::channel();
        let kept = ctx.without_cancel();
        self.background.spawn(async move {
            let limit = ENDING.scope(&kept);
            let answer = work(limit.context()).await;
            // If nobody waits any more, it was done all the same.
            let _ = send.send(answer);
        });
        let answer = ctx.run(answer).await;
        let answer = answer.map_err(|end| StepError::ended(ENDING.step, end))?;
        answer.map_err(|_| StepError::failed(ENDING.step, "it was cut off").into())
    }
}

impl SessionError {
    /// The end of the context, if that is why.
    pub(crate) fn canceled(&self) -> Option<&Canceled> {
        self.0.canceled()
    }
}

impl From<StepError> for SessionError {
    fn from(error: StepError) -> SessionError {
        SessionError(Arc::new(error))
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SessionError {}

/// Claims the database for a node with this cache.
///
/// A cache that has forgotten everything, its mark included, is given it back by the nodes that know it. So who finds
/// another mark than they have, looks again for a while.
async fn claim(
    ctx: &Context,
    database: &dyn SessionDatabase,
    cache: &dyn SessionCache,
) -> Result<(Box<dyn Claimed>, Option<CacheMark>), SessionError> {
    if !cache.is_shared() {
        return Ok((database.claim(ctx, Claim::Alone).await?, None));
    }
    let patience = ctx.with_timeout(3 * MARK_EVERY).named("claim");
    loop {
        let mark = cache.mark(ctx).await?;
        match database.claim(ctx, Claim::Shared(mark)).await {
            Ok(claim) => return Ok((claim, mark)),
            Err(refused) if !refused.is::<Elsewhere>() => return Err(refused.into()),
            Err(refused) => {
                if patience.sleep(MARK_EVERY / 4).await.is_err() {
                    return Err(refused.into());
                }
            }
        }
    }
}

/// Leaves the mark in the cache for as long as the sessions are there.
async fn keep_mark(sessions: Weak<Sessions>, mark: CacheMark) {
    let background = Context::background();
    while background.sleep(MARK_EVERY).await.is_ok() {
        let Some(sessions) = sessions.upgrade() else {
            return;
        };
        let step = CACHE.scope(&background);
        // A cache that is away is told next time; what that means for requests, they tell themselves.
        let _ = sessions.cache.keep_mark(&step, mark).await;
    }
}

/// As the database keeps it.
fn whole_millis(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}
