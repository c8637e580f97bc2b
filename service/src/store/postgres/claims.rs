//! Advisory locks: what a node says about itself to the others, for as long as it lives.
//!
//! A lock belongs to a session of the server. So it is taken on a connection of its own, which does nothing else, and the
//! server lets go of it when the process is gone, however that ended.
//!
//! # Invariants
//!
//! 1. A lock that was lost with its connection is taken again as soon as the server answers. Nobody else could have taken it
//!    while the server was away.
//! 2. If somebody else was quicker then, [`Held::is_lost`] says so from then on, until it can be had again.
//! 3. Of two nodes that name different caches at once, each sees the other: what is said is said before others are looked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bequest::Context;
use bequest_postgres::{Database, Error, Options};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::log;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// This node uses the sessions, and nobody else may.
    SessionsAlone,
    /// This node uses the sessions together with others like it.
    SessionsShared,
    /// The node of this number is alive.
    Node(i32),
    /// This node keeps its sessions in the cache that has this mark, and nobody may be there who keeps them in another.
    Cache(i32),
}

/// A lock that is held until this is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct Held {
    /// Written by the keeper alone.
    lost: Arc<AtomicBool>,
    keeper: JoinHandle<()>,
}

/// The two halves of an advisory lock's name. Both numbers are this service's own, and mean nothing.
const SESSIONS: (i32, i32) = (7_091_310, 0);
pub(super) const NODES: i32 = 7_091_311;
const CACHES: i32 = 7_091_313;

/// How often it is looked whether the lock is still held, and how long that may take.
const EVERY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(5);
/// A connection is never too old: it would let go of the lock.
const AGE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Takes the lock. If somebody else has it, [`Held::is_lost`] says so.
///
/// # Errors
///
/// The server cannot be reached, or refuses.
pub(crate) async fn hold(ctx: &Context, options: Options, lock: Lock) -> Result<Held, Error> {
    let database = options.connections(1).max_age(AGE).open(ctx).await?;
    let is_held = take(ctx, &database, lock).await?;
    let lost = Arc::new(AtomicBool::new(!is_held));
    let keeper = tokio::spawn(keep(database, lock, Arc::clone(&lost)));
    Ok(Held { lost, keeper })
}

impl Held {
    /// Whether somebody else has the lock.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // With the task goes the last handle of its pool, and with that the connection and the lock.
        self.keeper.abort();
    }
}

/// Takes the lock, unless this connection has it already. Whether it has.
async fn take(ctx: &Context, database: &Database, lock: Lock) -> Result<bool, Error> {
    let (class, name) = match lock {
        Lock::SessionsAlone | Lock::SessionsShared => SESSIONS,
        Lock::Node(node) => (NODES, node),
        Lock::Cache(mark) => (CACHES, mark),
    };
    let function = match lock {
        Lock::SessionsShared | Lock::Cache(_) => "pg_try_advisory_lock_shared",
        Lock::SessionsAlone | Lock::Node(_) => "pg_try_advisory_lock",
    };
    let sql = format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted)
         THEN true ELSE {function}($1::integer, $2::integer) END"
    );
    let row = database.query_one(ctx, &sql, &[&class, &name]).await?;
    let has_it = row.get(0);
    match lock {
        Lock::Cache(mark) if has_it => Ok(!is_elsewhere(ctx, database, mark).await?),
        _ => Ok(has_it),
    }
}

/// Whether a node is there that keeps its sessions in another cache than the one with this mark.
pub(crate) async fn is_elsewhere(ctx: &Context, database: &Database, mark: i32) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND classid = $1::bigint::oid AND objid <> $2::bigint::oid)";
    let row = database
        .query_one(ctx, sql, &[&i64::from(CACHES), &i64::from(mark)])
        .await?;
    Ok(row.get(0))
}

async fn keep(database: Database, lock: Lock, lost: Arc<AtomicBool>) {
    let background = Context::background();
    let mut away = false;
    // A background never ends: what ends this is the drop of `Held`.
    while background.sleep(EVERY).await.is_ok() {
        let limit = background.with_timeout(LIMIT).named("claim");
        match take(&limit, &database, lock).await {
            Ok(is_held) => {
                away = false;
                if lost.swap(!is_held, Ordering::Relaxed) == is_held {
                    let what = if is_held {
                        "a claim is held again"
                    } else {
                        "a claim was lost"
                    };
                    log::event(what, &json!({ "claim": format!("{lock:?}") }));
                }
            }
            // Told once; what it means for requests, they tell themselves.
            Err(error) if !std::mem::replace(&mut away, true) => {
                let error = error.to_string();
                log::event(
                    "a claim cannot be looked after",
                    &json!({ "claim": format!("{lock:?}"), "error": error }),
                );
            }
            Err(_) => {}
        }
    }
}
