//! Sessions on virtual time: which step takes how long, what is asked again when, and what ends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bequest::{Context, Kind};
use bequest_test::Clock;

use super::SessionError;
use super::cache::memory::MemoryCache;
use super::cache::{Cached, SessionCache};
use super::database::{Claim, SessionDatabase};
use super::record::Record;
use super::sessions::{ASKING, CONFIRMED_FOR, Counters, Lifetime, Sessions};
use super::sqlite::SqliteSessions;
use crate::domain::session::SessionHash;
use crate::torture::Scratch;
use crate::torture::gate::{Gate, GatedCache, GatedDatabase, Step};
use crate::torture::stores::{Switched, user};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(300);
const LIFETIME: Lifetime = Lifetime {
    idle: Duration::from_secs(1800),
    absolute: Duration::from_secs(12 * 3600),
};

/// Sessions whose database and cache have gates, on a clock of their own.
struct Stage {
    clock: Clock,
    ctx: Context,
    gate: Arc<Gate>,
    sessions: Arc<Sessions>,
    database: SqliteSessions,
    cache: Arc<GatedCache>,
    _scratch: Scratch,
}

impl Stage {
    async fn set() -> Stage {
        let (clock, scratch, gate) = (Clock::new(), Scratch::new().unwrap(), Gate::new());
        let ctx = clock.context();
        let database = scratch.database(&ctx).await.unwrap();
        let gated = Arc::new(GatedDatabase {
            database: database.clone(),
            gate: Arc::clone(&gate),
        });
        let cache = Arc::new(GatedCache {
            cache: MemoryCache::new(TTL, 1000),
            gate: Arc::clone(&gate),
        });
        let sessions = Sessions::open(&ctx, gated, Arc::clone(&cache) as _, LIFETIME)
            .await
            .unwrap();
        Stage {
            clock,
            ctx,
            gate,
            sessions,
            database,
            cache,
            _scratch: scratch,
        }
    }

    async fn begin(&self) -> SessionHash {
        let (id, _) = self.sessions.begin(&self.ctx, user(), None).await.unwrap();
        id.hash()
    }

    async fn stands(&self, id: SessionHash) -> bool {
        self.sessions.read(&self.ctx, id).await.unwrap().is_some()
    }

    /// A read in a task of its own.
    fn spawn(&self, ctx: &Context, id: SessionHash) -> tokio::task::JoinHandle<Result<bool, SessionError>> {
        let (sessions, ctx) = (Arc::clone(&self.sessions), ctx.clone());
        tokio::spawn(async move { sessions.read(&ctx, id).await.map(|found| found.is_some()) })
    }

    async fn row(&self, id: SessionHash) -> Option<Record> {
        self.database.find(&self.ctx, id).await.unwrap()
    }

    /// How often what was counted.
    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        which(self.sessions.counters()).load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_slow_cache_costs_its_budget_and_then_the_database_is_asked() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.gate.hold(Some(Step::CacheRead));
    let before = stage.clock.elapsed();
    let read = stage.spawn(&stage.ctx, id);
    stage.gate.arrived().await;
    stage.clock.advance(Duration::from_millis(19));
    assert_eq!(
        stage.gate.steps(),
        [Step::CacheRead],
        "the cache has a millisecond left"
    );
    stage.clock.advance(Duration::from_millis(1));
    assert!(read.await.unwrap().unwrap());
    assert_eq!(stage.clock.elapsed() - before, Duration::from_millis(20));
    assert_eq!(
        stage.gate.steps(),
        [Step::CacheRead, Step::Database],
        "it is not waited for again"
    );
}

/// A refill would have met the tombstone of a logout in between. Who asks without one joins no question that was put before
/// they came.
#[tokio::test]
async fn without_a_cache_no_older_question_is_joined() {
    let (clock, scratch, gate) = (Clock::new(), Scratch::new().unwrap(), Gate::new());
    let ctx = clock.context();
    let database = scratch.database(&ctx).await.unwrap();
    let gated = GatedCache {
        cache: MemoryCache::new(TTL, 100),
        gate: Arc::clone(&gate),
    };
    let cache = Arc::new(Switched::new(gated, false));
    let sessions = Sessions::open(
        &ctx,
        Arc::new(database.clone()),
        Arc::clone(&cache) as _,
        LIFETIME,
    )
    .await
    .unwrap();
    let (id, _) = sessions.begin(&ctx, user(), None).await.unwrap();
    let id = id.hash();
    gate.hold(Some(Step::CacheFill));
    let early = tokio::spawn({
        let (sessions, ctx) = (Arc::clone(&sessions), ctx.clone());
        async move { sessions.read(&ctx, id).await }
    });
    gate.arrived().await;
    // By another node. Its tombstone is where nobody can ask.
    database.revoke(&ctx, id).await.unwrap();
    cache.set_away(true);
    let late = sessions.read(&ctx, id).await.unwrap();
    assert!(late.is_none(), "it was ended before they asked");
    assert!(!early.is_finished());
    gate.hold(None);
    assert!(early.await.unwrap().unwrap().is_some(), "who asked before that");
}

#[tokio::test]
async fn a_step_gets_no_more_than_what_is_left_and_its_error_names_it() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.gate.hold(Some(Step::CacheRead));
    let request = stage.ctx.with_timeout(Duration::from_millis(5)).named("request");
    let read = stage.spawn(&request, id);
    stage.gate.arrived().await;
    stage.clock.advance(Duration::from_millis(5));
    let error = read.await.unwrap().unwrap_err();
    assert!(error.canceled().unwrap().is_from(&request));
    assert!(error.to_string().starts_with("session cache: "), "{error}");
    assert_eq!(
        stage.gate.steps(),
        [Step::CacheRead],
        "the request is over: nobody is asked"
    );

    stage.gate.hold(Some(Step::Database));
    let read = stage.spawn(&stage.ctx, id);
    stage.gate.arrived().await;
    stage.clock.advance(SECOND);
    let error = read.await.unwrap().unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert!(
        error.to_string().contains("session database: 1s budget"),
        "{error}"
    );
}

#[tokio::test]
async fn reads_are_answered_by_the_cache_and_confirmed_every_minute() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    for _ in 0..300 {
        assert!(stage.stands(id).await);
        stage.clock.advance(SECOND);
    }
    assert_eq!(
        stage.count(|counters| &counters.asked),
        4,
        "at 60, 120, 180 and 240 s"
    );
    assert_eq!(stage.count(|counters| &counters.hits), 296);
}

#[tokio::test]
async fn an_entry_that_nobody_reads_is_gone_after_the_ttl() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.clock.advance(TTL - SECOND);
    assert!(matches!(
        stage.cache.get(&stage.ctx, id).await,
        Ok(Cached::Session(_))
    ));
    stage.clock.advance(TTL - SECOND);
    assert!(
        matches!(stage.cache.get(&stage.ctx, id).await, Ok(Cached::Session(_))),
        "read in between"
    );
    stage.clock.advance(TTL);
    assert!(matches!(
        stage.cache.get(&stage.ctx, id).await,
        Ok(Cached::Nothing)
    ));
    assert!(stage.stands(id).await);
    assert!(
        matches!(stage.cache.get(&stage.ctx, id).await, Ok(Cached::Session(_))),
        "refilled"
    );
}

#[tokio::test]
async fn a_session_ends_when_nobody_uses_it_and_at_its_absolute_end() {
    let stage = Stage::set().await;
    let (idle, busy) = (stage.begin().await, stage.begin().await);
    let begun = stage.clock.elapsed();
    while stage.clock.elapsed() - begun < LIFETIME.absolute {
        assert!(stage.stands(busy).await);
        stage.sessions.drain().await;
        stage.clock.advance(Duration::from_secs(60));
    }
    assert!(!stage.stands(busy).await, "12 hours are over");
    assert!(!stage.stands(idle).await);

    let id = stage.begin().await;
    stage.clock.advance(LIFETIME.idle - SECOND);
    assert!(stage.stands(id).await);
    stage.sessions.drain().await;
    stage.clock.advance(LIFETIME.idle);
    assert!(!stage.stands(id).await);
    assert!(stage.sessions.list(&stage.ctx, "ann").await.unwrap().is_empty());
}

#[tokio::test]
async fn last_seen_is_written_once_a_minute_at_most_and_never_backwards() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    let first = stage.row(id).await.unwrap();
    for _ in 0..600 {
        assert!(stage.stands(id).await);
        stage.sessions.drain().await;
        stage.clock.advance(SECOND);
    }
    assert_eq!(stage.count(|counters| &counters.touched), 9);
    let seen = stage.row(id).await.unwrap();
    assert_eq!(seen.last_seen, first.last_seen + 540 * SECOND);
    assert_eq!(
        (seen.generation, &seen.session),
        (first.generation, &first.session)
    );

    // A note that comes late is not taken over a newer one, and none over an end.
    let late = first.last_seen + 300 * SECOND;
    assert!(
        !stage
            .database
            .touch(&stage.ctx, id, late, CONFIRMED_FOR)
            .await
            .unwrap()
    );
    stage.sessions.end(&stage.ctx, id).await.unwrap();
    let now = stage.ctx.wall() + 3600 * SECOND;
    assert!(
        !stage
            .database
            .touch(&stage.ctx, id, now, CONFIRMED_FOR)
            .await
            .unwrap()
    );
    assert!(stage.row(id).await.is_none());
}

#[tokio::test]
async fn last_seen_is_written_although_the_request_is_over() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.clock.advance(CONFIRMED_FOR);
    let request = stage.ctx.with_cancel();
    assert!(stage.sessions.read(&request, id).await.unwrap().is_some());
    request.cancel();
    stage.sessions.drain().await;
    assert_eq!(stage.count(|counters| &counters.touched), 1);
}

#[tokio::test]
async fn one_waiter_that_leaves_fails_nobody_and_all_of_them_end_the_question() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.gate.hold(Some(Step::Database));
    let (first, second) = (stage.ctx.with_cancel(), stage.ctx.with_cancel());
    let reads = [stage.spawn(&first, id), stage.spawn(&second, id)];
    stage.gate.arrived().await;
    while stage
        .gate
        .steps()
        .iter()
        .filter(|&&step| step == Step::CacheRead)
        .count()
        < 2
    {
        tokio::task::yield_now().await;
    }
    let [one, other] = reads;
    first.cancel();
    assert!(one.await.unwrap().unwrap_err().canceled().is_some());
    assert!(stage.sessions.in_flight() > 0, "the other still waits");
    second.cancel();
    assert!(other.await.unwrap().is_err());
    stage.sessions.drain().await;
    assert_eq!(stage.sessions.in_flight(), 0);
    let steps = stage.gate.steps();
    assert!(
        !steps.contains(&Step::CacheFill),
        "the next step was not begun: {steps:?}"
    );
}

#[tokio::test]
async fn a_refill_that_meets_a_tombstone_answers_with_nothing() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.gate.hold(Some(Step::CacheFill));
    let read = stage.spawn(&stage.ctx, id);
    stage.gate.arrived().await;
    let farewell = stage.sessions.end(&stage.ctx, id).await.unwrap();
    assert!(farewell.at_once && farewell.ended == 1);
    stage.gate.hold(None);
    assert!(!read.await.unwrap().unwrap());
    assert_eq!(stage.count(|counters| &counters.met_tombstone), 1);
    assert!(!stage.stands(id).await);
}

#[tokio::test]
async fn who_asks_after_the_end_joins_no_question_that_was_put_before() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    stage.gate.hold(Some(Step::CacheFill));
    let early = stage.spawn(&stage.ctx, id);
    stage.gate.arrived().await;
    stage.sessions.end(&stage.ctx, id).await.unwrap();
    // The cache, held open for misses, does not tell of the tombstone: only the table of flights is in the way.
    assert!(!stage.stands(id).await);
    assert!(!early.is_finished());
    stage.gate.hold(None);
    assert!(!early.await.unwrap().unwrap());
}

#[tokio::test]
async fn without_cache_and_database_the_answer_is_never_yes() {
    let (clock, scratch) = (Clock::new(), Scratch::new().unwrap());
    let ctx = clock.context();
    let database = scratch.database(&ctx).await.unwrap();
    let cache = Arc::new(Switched::new(MemoryCache::new(TTL, 100), false));
    let sessions = Sessions::open(
        &ctx,
        Arc::new(database.clone()),
        Arc::clone(&cache) as _,
        LIFETIME,
    )
    .await
    .unwrap();
    let (id, _) = sessions.begin(&ctx, user(), None).await.unwrap();
    cache.set_away(true);
    assert!(
        sessions.read(&ctx, id.hash()).await.unwrap().is_some(),
        "the database knows"
    );
    database.close(&ctx).await.unwrap();
    assert!(sessions.read(&ctx, id.hash()).await.is_err());
    cache.set_away(false);
    assert!(
        sessions.read(&ctx, id.hash()).await.unwrap().is_some(),
        "confirmed within the minute"
    );
    clock.advance(CONFIRMED_FOR);
    assert!(
        sessions.read(&ctx, id.hash()).await.is_err(),
        "nobody can confirm it"
    );
}

/// The cache is away, and a crowd of users asks at once: the database is asked by so many at a time and by no more, and who
/// has no turn within the step's budget is refused, with the step's name.
#[tokio::test]
async fn without_a_cache_a_crowd_is_not_a_crowd_of_questions() {
    const CROWD: usize = 3 * ASKING;
    let stage = Stage::set().await;
    let mut ids = Vec::new();
    for _ in 0..CROWD {
        ids.push(stage.begin().await);
    }
    stage.gate.hold(Some(Step::Database));
    let reads: Vec<_> = ids.iter().map(|&id| stage.spawn(&stage.ctx, id)).collect();
    let questions = || {
        let steps = stage.gate.steps();
        steps.iter().filter(|&&step| step == Step::Database).count()
    };
    while stage.sessions.in_flight() < CROWD + ASKING {
        tokio::task::yield_now().await;
    }
    assert_eq!(questions(), ASKING, "the others wait");
    stage.clock.advance(SECOND);
    for read in reads {
        let error = read.await.unwrap().unwrap_err();
        assert!(
            error.to_string().contains("session database: 1s budget"),
            "{error}"
        );
    }
    assert_eq!(questions(), ASKING, "and nobody's turn came after their end");

    // The control: with room for everybody, each is answered.
    stage.gate.hold(None);
    for id in ids {
        assert!(stage.stands(id).await);
    }
}

#[tokio::test]
async fn a_logout_is_done_although_its_client_leaves() {
    let stage = Stage::set().await;
    let id = stage.begin().await;
    let request = stage.ctx.with_cancel();
    {
        let mut end = std::pin::pin!(stage.sessions.end(&request, id));
        let begun = std::future::poll_fn(|task| std::task::Poll::Ready(end.as_mut().poll(task).is_pending()));
        assert!(begun.await);
        request.cancel();
    }
    stage.sessions.drain().await;
    assert!(stage.row(id).await.is_none());
    assert!(!stage.stands(id).await);
}

#[tokio::test]
async fn one_node_alone_or_many_that_share_a_cache() {
    let (ctx, scratch) = (Context::background(), Scratch::new().unwrap());
    let one = scratch.database(&ctx).await.unwrap();
    let other = scratch.database(&ctx).await.unwrap();
    let alone = one.claim(&ctx, Claim::Alone).await.unwrap();
    assert!(other.claim(&ctx, Claim::Alone).await.is_err());
    assert!(other.claim(&ctx, Claim::Shared(None)).await.is_err());
    drop(alone);
    let _shared = one.claim(&ctx, Claim::Shared(None)).await.unwrap();
    assert!(other.claim(&ctx, Claim::Shared(None)).await.is_ok());
    let refused = other.claim(&ctx, Claim::Alone).await.unwrap_err();
    assert!(refused.to_string().contains("another node uses it"), "{refused}");
}
