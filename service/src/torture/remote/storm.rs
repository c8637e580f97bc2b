//! A crowd leaves at once, and the server hardly notices.
//!
//! Five thousand clients, each with a query that would take ten minutes, on a pool of 64: all of them leave at one
//! instant, half by the end of their context, half by the drop of their future. Counted: cancel connections at once, by
//! the network in between; connections that were lost. Beside it clients who cancel what they drop, each at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::tokio_postgres::{CancelToken, Client, NoTls};
use bequest_postgres::{Database, Options};
use bequest_test::proxy::Proxy;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::count::told;
use super::foreign::is_whole;
use super::{HANGS, Shown, Stage, eventually};

const SCENE: &str = "storm, all clients leave at once";
const CLIENTS: u64 = 5_000;
const CONNECTIONS: usize = 64;
/// Cancel connections at once, at most. The default of the pool.
const BOUND: usize = 8;
const LONG: &str = "SELECT pg_sleep(600)";

pub(super) async fn scene(stage: &Stage) -> Result<Shown, Failure> {
    let clients = stage.count(CLIENTS).max(2 * CONNECTIONS as u64);
    let progress = Progress::new(SCENE, 2);
    let ours = ours(stage, clients).await?;
    progress.at(1);
    let naive = naive(stage, clients).await?;
    let bounded = ours.most <= BOUND && ours.own_count <= BOUND && ours.own_count > 0;
    Ok(Shown {
        verdict: Verdict {
            scene: SCENE,
            ours: format!(
                "{} cancels at once, whole in {}",
                ours.most.max(ours.own_count),
                told(ours.whole)
            ),
            control: format!("each cancels by itself: {naive} at once, of {clients} clients"),
            holds: bounded && ours.kept == CONNECTIONS && ours.active == 0,
            control_failed: naive > BOUND,
        },
        figures: json!({
            "clients": clients,
            "bound": BOUND,
            "here": {
                "most_cancels_seen_by_the_network": ours.most, "most_cancels_counted": ours.own_count,
                "pool_whole_after_ms": ours.whole.as_secs_f64() * 1e3, "connections_kept": ours.kept,
                "of_connections": CONNECTIONS, "still_active": ours.active,
            },
            "naive": { "most_cancels": naive },
        }),
    })
}

/// What was seen.
#[derive(Debug)]
struct Seen {
    /// Cancel connections at once, as the network saw them.
    most: usize,
    /// The same, as the pool counts them.
    own_count: usize,
    /// How long until the pool was whole.
    whole: Duration,
    /// Connections that it still had then.
    kept: usize,
    /// Sessions that were still at work then.
    active: i64,
}

async fn ours(stage: &Stage, clients: u64) -> Result<Seen, Failure> {
    let server = stage.postgres()?;
    let proxy = Proxy::start(server.address).await?;
    let options = Options::new(server.config("storm", proxy.address()));
    let db = options
        .connections(CONNECTIONS)
        .cancels(BOUND)
        .open(&stage.ctx)
        .await?;
    let crowd = Context::background().with_cancel();
    let mut leaving = JoinSet::new();
    for client in 0..clients {
        leaving.spawn(one(db.clone(), crowd.context(), client % 2 == 1));
    }
    let waiting = clients as usize - CONNECTIONS;
    eventually("all clients are there", || {
        let now = db.statistics();
        now.in_use == CONNECTIONS && now.waiting == waiting
    })
    .await?;
    let left = Instant::now();
    crowd.cancel();
    eventually("the pool is whole", || is_whole(&db)).await?;
    let whole = left.elapsed();
    let most = proxy.most_served().saturating_sub(CONNECTIONS);
    while let Some(client) = leaving.join_next().await {
        client??;
    }
    let now = db.statistics();
    let witness = server.plain("witness").await?;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'";
    let active = witness.query_one(sql, &[&server.name("storm")]).await?.get(0);
    db.query(&Context::background().with_timeout(HANGS), "SELECT 1", &[])
        .await?;
    db.close(&stage.ctx.cleanup(HANGS)).await?;
    Ok(Seen {
        most,
        own_count: now.most_cancels,
        whole,
        kept: now.idle,
        active,
    })
}

/// One client, who asks for what takes long and leaves with the crowd.
async fn one(db: Database, crowd: Context, drops: bool) -> Result<(), Failure> {
    let request = crowd.with_cancel();
    let answer = if drops {
        match request.run(db.query(&Context::background(), LONG, &[])).await {
            Ok(answer) => answer,
            Err(_) => return Ok(()),
        }
    } else {
        db.query(&request, LONG, &[]).await
    };
    match answer {
        Err(error) if error.is_canceled() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("it was to take ten minutes".into()),
    }
}

/// A pool of as many connections, and clients who cancel what they drop. How many cancels there were at once.
async fn naive(stage: &Stage, clients: u64) -> Result<usize, Failure> {
    let server = stage.postgres()?;
    let proxy = Proxy::start(server.address).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let config = server.config("storm_naive", proxy.address());
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        connections.push(client);
    }
    let (crowd, places) = (
        Context::background().with_cancel(),
        Arc::new(Semaphore::new(CONNECTIONS)),
    );
    let connections: Arc<[Client]> = connections.into();
    let busy = Arc::new(AtomicUsize::new(0));
    // Held by each who has yet to send a cancel.
    let sending = Arc::new(());
    let mut leaving = JoinSet::new();
    for client in 0..clients as usize {
        let sending = Arc::clone(&sending);
        let (places, connections, busy) = (Arc::clone(&places), Arc::clone(&connections), Arc::clone(&busy));
        let request = crowd.context();
        leaving.spawn(async move {
            let Ok(place) = request.run(places.acquire()).await else {
                return;
            };
            let connection = &connections[client % CONNECTIONS];
            let _cancels = CancelsOnDrop(connection.cancel_token(), sending);
            busy.fetch_add(1, Ordering::Relaxed);
            // Given up in the midst of it.
            let _ = request.run(connection.batch_execute(LONG)).await;
            drop(place);
        });
    }
    eventually("all connections are in use", || {
        busy.load(Ordering::Relaxed) == CONNECTIONS
    })
    .await?;
    crowd.cancel();
    while let Some(client) = leaving.join_next().await {
        client?;
    }
    eventually("the cancels have been sent", || Arc::strong_count(&sending) == 1).await?;
    let most = proxy.most_served().saturating_sub(CONNECTIONS);
    // A cancel that overtook its query has ended nothing: what still runs would do so for ten minutes.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    let witness = server.plain("witness").await?;
    witness.query(sql, &[&server.name("storm_naive")]).await?;
    Ok(most)
}

/// Cancels, when its future is dropped, at once and on its own.
struct CancelsOnDrop(CancelToken, Arc<()>);

impl Drop for CancelsOnDrop {
    fn drop(&mut self) {
        let (token, sending) = (self.0.clone(), Arc::clone(&self.1));
        tokio::spawn(async move {
            // Nobody is there to be told.
            let _ = token.cancel_query(NoTls).await;
            drop(sending);
        });
    }
}
