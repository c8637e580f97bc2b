//! The service's data in PostgreSQL, in a schema of its own. How a query stops on the server with its context is
//! `bequest_postgres`'s affair.

pub(crate) mod claims;
mod jobs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bequest::Context;
use bequest_postgres::{Database, Error, Options};

pub(crate) use self::claims::{Held, Lock, hold};
use super::{Ledger, Statistics};

/// A schema in a PostgreSQL database, which several nodes may share.
#[derive(Clone, Debug)]
pub(crate) struct PostgresStore {
    database: Database,
    /// The number under which this process works on jobs.
    node: i32,
    asked: Arc<AtomicU64>,
    /// Says that this process is alive, to whoever looks for jobs that nobody works on.
    _alive: Arc<Held>,
}

/// Nodes that start at once make it one after the other: `CREATE … IF NOT EXISTS` alone would let two of them collide.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7091312);
    CREATE SCHEMA IF NOT EXISTS bequest;
    CREATE TABLE IF NOT EXISTS bequest.answers (
        key text PRIMARY KEY, answer text NOT NULL, written_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS bequest.digests (
        job bigint PRIMARY KEY, digest text NOT NULL, written_at timestamptz NOT NULL DEFAULT now());
    CREATE SEQUENCE IF NOT EXISTS bequest.nodes AS integer CYCLE;
";

/// One statement for the whole report: it goes over made-up ledger entries for as long as it is told, and nothing but
/// the context can end it before. It keeps no entry, so it needs no room.
const LEDGER: &str = "
    CREATE OR REPLACE FUNCTION bequest.ledger(span interval, OUT entries bigint, OUT balance bigint)
    LANGUAGE plpgsql AS $$
    DECLARE
        amount bigint := 17;
        over timestamptz := clock_timestamp() + span;
    BEGIN
        entries := 0;
        balance := 0;
        LOOP
            entries := entries + 1;
            balance := balance + amount % 2001 - 1000;
            amount := (amount * 1103515245 + 12345) % 2147483648;
            EXIT WHEN clock_timestamp() >= over;
        END LOOP;
    END $$;
";

impl PostgresStore {
    /// Connects to the database, making what is missing.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or refuses.
    pub(crate) async fn open(ctx: &Context, options: Options) -> Result<PostgresStore, Error> {
        let database = options.clone().open(ctx).await?;
        let script = [SCHEMA, LEDGER, jobs::SCHEMA].concat();
        database.batch_execute(ctx, &script).await?;
        let row = database
            .query_one(ctx, "SELECT nextval('bequest.nodes')::integer", &[])
            .await?;
        let node = row.get(0);
        // A number that is free on a sequence which has come round is nobody's: then the lock is, too.
        let alive = hold(ctx, options, Lock::Node(node)).await?;
        Ok(PostgresStore {
            database,
            node,
            asked: Arc::default(),
            _alive: Arc::new(alive),
        })
    }

    /// As [`super::Store::put_answer`].
    pub(crate) async fn put_answer(&self, ctx: &Context, key: String, answer: String) -> Result<(), Error> {
        let sql = "INSERT INTO bequest.answers (key, answer) VALUES ($1, $2)
                   ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, written_at = now()";
        self.database()
            .execute(ctx, sql, &[&key, &answer])
            .await
            .map(drop)
    }

    /// As [`super::Store::answer`].
    pub(crate) async fn answer(&self, ctx: &Context, key: String) -> Result<Option<String>, Error> {
        let sql = "SELECT answer FROM bequest.answers WHERE key = $1";
        let row = self.database().query_opt(ctx, sql, &[&key]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// As [`super::Store::ledger`].
    pub(crate) async fn ledger(&self, ctx: &Context, span: Duration) -> Result<Ledger, Error> {
        let sql = "SELECT entries, balance FROM bequest.ledger($1 * interval '1 second')";
        let row = self
            .database()
            .query_one(ctx, sql, &[&span.as_secs_f64()])
            .await?;
        Ok(Ledger {
            entries: row.get(0),
            balance: row.get(1),
        })
    }

    /// What runs and what was stopped, as the pool counts it: a connection that is being made clean still counts.
    pub(crate) fn statistics(&self) -> Statistics {
        let pool = self.database.statistics();
        Statistics {
            running: pool.in_use + pool.settling,
            accepted: self.asked.load(Ordering::Relaxed),
            interrupted: pool.settled,
            last_stop: pool.last_settled,
        }
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.database.close(ctx).await
    }

    fn database(&self) -> &Database {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.database
    }
}
