//! Every call is answered by its deadline, whatever hangs.
//!
//! Between the clients and the server is a network that swallows, delays, trickles, cuts and resets, and the server itself
//! is stopped. Told: by how much the latest answer came after its deadline. Counted beside it: calls without a deadline
//! that have no answer after four times as long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::Database;
use bequest_redis::{Client, redis};
use bequest_test::proxy::{Faults, Proxy};
use bequest_test::servers::{Postgres, Redis};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::count::{Spans, told};
use super::{HANGS, Shown, Stage};

const POSTGRES: &str = "faults on the way to Postgres";
const REDIS: &str = "faults on the way to Redis";
/// Of calls, for each fault.
const BATCHES: u64 = 20;
/// Calls at once: twice as many as there are connections.
const CALLS: usize = 16;
const CONNECTIONS: usize = 8;
const DEADLINE: Duration = Duration::from_millis(250);
/// A call that is later than this hangs, on however busy a machine. What is told is the time itself; the bar is 50 ms.
const LOOSE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing arrives, either way.
    BlackHole,
    /// What is sent arrives; no answer does.
    NoAnswer,
    Slow,
    Trickle,
    /// The connection ends in the midst of an answer.
    Cut,
    /// Slow, then reset.
    Reset,
    /// `SIGSTOP`.
    Frozen,
}

const ALL: [Fault; 7] = [
    Fault::BlackHole,
    Fault::NoAnswer,
    Fault::Slow,
    Fault::Trickle,
    Fault::Cut,
    Fault::Reset,
    Fault::Frozen,
];

/// What is called, and the network before it.
struct Store<'a> {
    stage: &'a Stage,
    proxy: Proxy,
    client: Calls,
}

#[derive(Clone)]
enum Calls {
    Postgres(Database),
    Redis(Client, Arc<str>),
}

/// What became of the calls under one fault.
#[derive(Debug, Default)]
struct Counted {
    calls: u64,
    answered: u64,
    /// Answered with the context's end.
    ended: u64,
    /// Answered with another error: a connection that was lost.
    failed: u64,
    /// By how much each came after its deadline.
    late: Spans,
    /// From the healing to the next good answer.
    recovered: Spans,
    /// Without a deadline: called, and not answered after four times as long.
    endless: u64,
    hung: u64,
}

pub(super) async fn postgres(stage: &Stage) -> Result<Shown, Failure> {
    let witness = stage.postgres()?.plain("witness").await?;
    witness.batch_execute("CREATE TABLE faults (n int)").await?;
    scene(stage, POSTGRES, async || Store::postgres(stage).await).await
}

pub(super) async fn redis(stage: &Stage) -> Result<Shown, Failure> {
    scene(stage, REDIS, async || Store::redis(stage).await).await
}

async fn scene<'a>(
    stage: &'a Stage,
    scene: &'static str,
    open: impl AsyncFn() -> Result<Store<'a>, Failure>,
) -> Result<Shown, Failure> {
    let batches = stage.count(BATCHES);
    let progress = Progress::new(scene, ALL.len() * batches as usize);
    let (mut all, mut figures) = (Counted::default(), Map::new());
    for (number, fault) in ALL.into_iter().enumerate() {
        let store = open().await?;
        if stage.ctx.is_done() || (fault == Fault::Frozen && !store.can_freeze()) {
            continue;
        }
        let mut counted = Counted::default();
        for batch in 0..batches {
            if stage.ctx.is_done() {
                break;
            }
            batch_under(&store, fault, &mut counted).await?;
            progress.at(number * batches as usize + batch as usize + 1);
        }
        without_deadline(&store, fault, &mut counted).await?;
        store.close().await?;
        figures.insert(fault.name().into(), counted.figures());
        all.add(counted);
    }
    let worst = all.late.quantile(1.0);
    Ok(Shown {
        verdict: Verdict {
            scene,
            ours: format!("latest {} past due, of {}", told(worst), all.calls),
            control: format!(
                "no deadline: {} of {} unanswered after 1 s",
                all.hung, all.endless
            ),
            holds: worst < LOOSE,
            control_failed: all.hung > 0,
        },
        figures: json!({ "deadline_ms": DEADLINE.as_millis() as u64, "all": all.figures(), "by_fault": figures }),
    })
}

/// Calls under the fault, then the healing, and how long it takes.
async fn batch_under(store: &Store<'_>, fault: Fault, counted: &mut Counted) -> Result<(), Failure> {
    let root = Context::background();
    store.warm().await?;
    store.strike(fault);
    let mut calls = JoinSet::new();
    for call in 0..CALLS {
        let client = store.client.clone();
        let request = root.with_timeout(DEADLINE);
        calls.spawn(async move {
            let due = request.deadline();
            let answer = tokio::time::timeout(HANGS, client.call(&request, call)).await;
            (
                answer,
                due.map(|due| Instant::now().saturating_duration_since(due)),
            )
        });
    }
    if fault == Fault::Reset {
        root.sleep(DEADLINE / 2).await?;
        store.proxy.reset();
    }
    while let Some(call) = calls.join_next().await {
        let (answer, late) = call?;
        counted.calls += 1;
        counted.late.extend(late);
        match answer {
            Ok(Ok(())) => counted.answered += 1,
            Ok(Err(Missed::Ended)) => counted.ended += 1,
            Ok(Err(Missed::Failed)) => counted.failed += 1,
            Err(_) => return Err(format!("{}: a call hangs in spite of its deadline", fault.name()).into()),
        }
    }
    store.heal(fault);
    let healed = Instant::now();
    // One that answers at once, not the one that blocks.
    while store.client.call(&root.with_timeout(DEADLINE), 0).await.is_err() {
        if healed.elapsed() > HANGS {
            return Err(format!("{}: healed, and no answer comes", fault.name()).into());
        }
    }
    counted.recovered.add(healed.elapsed());
    Ok(())
}

/// The control: the same calls with nobody who ends them.
async fn without_deadline(store: &Store<'_>, fault: Fault, counted: &mut Counted) -> Result<(), Failure> {
    store.strike(fault);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS / 2 {
        let client = store.client.clone();
        // The call that would be answered at once.
        calls.spawn(async move { client.call(&Context::background(), 0).await });
    }
    Context::background().sleep(4 * DEADLINE).await?;
    counted.endless += calls.len() as u64;
    while calls.try_join_next().is_some() {}
    counted.hung += calls.len() as u64;
    calls.shutdown().await;
    store.heal(fault);
    Ok(())
}

impl<'a> Store<'a> {
    async fn postgres(stage: &'a Stage) -> Result<Store<'a>, Failure> {
        let server = stage.postgres()?;
        let proxy = Proxy::start(server.address).await?;
        let options = bequest_postgres::Options::new(server.config("faults", proxy.address()));
        let db = options.connections(CONNECTIONS).open(&stage.ctx).await?;
        let client = Calls::Postgres(db);
        Ok(Store { stage, proxy, client })
    }

    async fn redis(stage: &'a Stage) -> Result<Store<'a>, Failure> {
        let server = stage.redis()?;
        let proxy = Proxy::start(server.address).await?;
        let options = bequest_redis::Options::new(server.url_through(proxy.address()));
        let client = options.blocking_connections(CONNECTIONS).open()?;
        let key: Arc<str> = server.key("faults").into();
        let client = Calls::Redis(client, key);
        Ok(Store { stage, proxy, client })
    }

    /// Has every connection made that the calls will use, so that the fault meets them at work.
    async fn warm(&self) -> Result<(), Failure> {
        let mut calls = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let client = self.client.clone();
            calls.spawn(async move { client.warm().await });
        }
        while let Some(call) = calls.join_next().await {
            call??;
        }
        Ok(())
    }

    /// Whether the server is ours to stop.
    fn can_freeze(&self) -> bool {
        match self.client {
            Calls::Postgres(_) => self.stage.postgres().is_ok_and(|server| server.private.is_some()),
            Calls::Redis(..) => self.stage.redis().is_ok_and(|server| server.private.is_some()),
        }
    }

    fn strike(&self, fault: Fault) {
        let none = Faults::none();
        match fault {
            Fault::BlackHole => self.proxy.both(none.black_hole()),
            Fault::NoAnswer => self.proxy.to_client(none.black_hole()),
            Fault::Slow | Fault::Reset => self.proxy.both(none.latency(4 * DEADLINE)),
            Fault::Trickle => self.proxy.both(none.slice(1, DEADLINE / 10)),
            Fault::Cut => self.proxy.to_client(none.cut_after(3)),
            Fault::Frozen => self.freeze(true),
        }
    }

    fn heal(&self, fault: Fault) {
        self.proxy.both(Faults::none());
        if fault == Fault::Frozen {
            self.freeze(false);
        }
    }

    fn freeze(&self, frozen: bool) {
        let postgres = || self.stage.postgres().ok()?.private.as_ref();
        let redis = || self.stage.redis().ok()?.private.as_ref();
        match self.client {
            Calls::Postgres(_) if frozen => _ = postgres().map(Postgres::freeze),
            Calls::Postgres(_) => _ = postgres().map(Postgres::thaw),
            Calls::Redis(..) if frozen => _ = redis().map(Redis::freeze),
            Calls::Redis(..) => _ = redis().map(Redis::thaw),
        }
    }

    async fn close(self) -> Result<(), Failure> {
        let ctx = self.stage.ctx.cleanup(HANGS);
        match self.client {
            Calls::Postgres(db) => db.close(&ctx).await?,
            Calls::Redis(client, _) => client.settle(&ctx).await?,
        }
        Ok(())
    }
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug)]
enum Missed {
    Ended,
    Failed,
}

impl Calls {
    /// A call that goes well, and takes so long that others need connections of their own meanwhile.
    async fn warm(&self) -> Result<(), Failure> {
        let root = Context::background();
        match self {
            Calls::Postgres(db) => {
                db.query(&root, "SELECT pg_sleep(0.02)", &[]).await?;
            }
            Calls::Redis(client, key) => {
                client.get::<Option<String>>(&root, &**key).await?;
                let mut pop = redis::cmd("BLPOP");
                client
                    .cmd::<redis::Value>(&root, pop.arg(&**key).arg(0.02))
                    .await?;
            }
        }
        Ok(())
    }

    /// One call: a simple one, or by every second number one that takes several steps or waits.
    async fn call(&self, ctx: &Context, number: usize) -> Result<(), Missed> {
        match self {
            Calls::Postgres(db) => {
                let answer = if number.is_multiple_of(2) {
                    db.query(ctx, "SELECT 1", &[]).await.map(drop)
                } else {
                    insert(db, ctx).await
                };
                answer.map_err(|error| Missed::of(error.is_canceled()))
            }
            Calls::Redis(client, key) => {
                let answer = if number.is_multiple_of(2) {
                    client.get::<Option<String>>(ctx, &**key).await.map(drop)
                } else {
                    let mut pop = redis::cmd("BLPOP");
                    client
                        .cmd::<redis::Value>(ctx, pop.arg(&**key).arg(0))
                        .await
                        .map(drop)
                };
                answer.map_err(|error| Missed::of(error.is_canceled()))
            }
        }
    }
}

async fn insert(db: &Database, ctx: &Context) -> Result<(), bequest_postgres::Error> {
    let mut tx = db.transaction(ctx).await?;
    tx.execute(ctx, "INSERT INTO faults VALUES (1)", &[]).await?;
    tx.commit(ctx).await
}

impl Missed {
    fn of(ended: bool) -> Missed {
        if ended { Missed::Ended } else { Missed::Failed }
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::BlackHole => "black hole",
            Fault::NoAnswer => "no answer arrives",
            Fault::Slow => "slow",
            Fault::Trickle => "trickle",
            Fault::Cut => "cut in an answer",
            Fault::Reset => "reset",
            Fault::Frozen => "server stopped",
        }
    }
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.ended += other.ended;
        self.failed += other.failed;
        self.endless += other.endless;
        self.hung += other.hung;
        self.late.extend(other.late.sorted());
        self.recovered.extend(other.recovered.sorted());
    }

    fn figures(&self) -> Value {
        json!({
            "calls": self.calls, "answered": self.answered, "ended": self.ended, "failed": self.failed,
            "after_the_deadline": self.late.figures(), "recovered_after": self.recovered.figures(),
            "without_deadline": { "calls": self.endless, "hung": self.hung },
        })
    }
}
