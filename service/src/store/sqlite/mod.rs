//! The service's data in a SQLite file. How a statement stops with its context is `bequest_sqlite`'s affair.

mod jobs;

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_sqlite::{Database, Error};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension};

use super::{Ledger, Statistics};

/// A file in the data folder.
#[derive(Clone, Debug)]
pub(crate) struct SqliteStore {
    database: Database,
    /// Held for as long as this process lives, so that the next one knows which jobs nobody works on. `None`: another
    /// process has it.
    jobs_lock: Arc<Option<File>>,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, written_at TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS digests (job INTEGER PRIMARY KEY, digest TEXT NOT NULL, written_at TEXT NOT NULL) STRICT;
";

/// One statement for the whole report: it goes over made-up ledger entries for as long as it is told, and nothing but
/// the context can end it before.
const LEDGER: &str = "
    WITH RECURSIVE entry(number, amount) AS (
        SELECT 1, 17
        UNION ALL
        SELECT number + 1, (amount * 1103515245 + 12345) % 2147483648 FROM entry WHERE within_time()
    )
    SELECT count(*), sum(amount % 2001 - 1000) FROM entry
";

impl SqliteStore {
    /// Opens the database in `folder`, making what is missing.
    pub(crate) async fn open(ctx: &Context, folder: &Path) -> Result<SqliteStore, super::Error> {
        let jobs_lock = lock(folder).map_err(super::Error::Lock)?;
        let database = Database::open(ctx, folder.join("service.sqlite")).await?;
        database.execute_batch(ctx, SCHEMA).await?;
        database.execute_batch(ctx, jobs::SCHEMA).await?;
        Ok(SqliteStore {
            database,
            jobs_lock: Arc::new(jobs_lock),
        })
    }

    /// Writes an answer of the slow fetch.
    pub(crate) async fn put_answer(&self, ctx: &Context, key: String, answer: String) -> Result<(), Error> {
        let sql = "INSERT INTO answers VALUES (?1, ?2, datetime('now'))
                   ON CONFLICT (key) DO UPDATE SET answer = ?2, written_at = datetime('now')";
        self.database
            .write(ctx, move |tx| tx.execute(sql, (key, answer)).map(drop))
            .await
    }

    /// The answer written under `key`.
    pub(crate) async fn answer(&self, ctx: &Context, key: String) -> Result<Option<String>, Error> {
        let sql = "SELECT answer FROM answers WHERE key = ?1";
        self.database
            .read(ctx, move |connection| {
                connection.query_row(sql, [key], |row| row.get(0)).optional()
            })
            .await
    }

    /// The long query: one statement that runs for `span`.
    pub(crate) async fn ledger(&self, ctx: &Context, span: Duration) -> Result<Ledger, Error> {
        self.database
            .read(ctx, move |connection| {
                limit_to(connection, span)?;
                connection.query_row(LEDGER, [], |row| {
                    Ok(Ledger {
                        entries: row.get(0)?,
                        balance: row.get(1)?,
                    })
                })
            })
            .await
    }

    /// What runs and what was stopped, as the database's own threads count it.
    pub(crate) fn statistics(&self) -> Statistics {
        let counts = self.database.statistics();
        Statistics {
            running: counts.running(),
            accepted: counts.readers.accepted + counts.writer.accepted,
            interrupted: counts.readers.interrupted + counts.writer.interrupted,
            last_stop: counts.readers.last_stop,
        }
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.database.close(ctx).await
    }
}

/// The lock on the jobs of a folder; `None` if another process has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::create(folder.join("jobs.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Defines `within_time()` on this connection: true for `span` from now on.
fn limit_to(connection: &Connection, span: Duration) -> rusqlite::Result<()> {
    let begun = Instant::now();
    connection.create_scalar_function("within_time", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(begun.elapsed() < span)
    })
}
