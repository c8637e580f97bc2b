//! The session database in a SQLite file.
//!
//! The claim is a lock on a file beside it: the operating system lets go of it with the process, so a killed node leaves
//! nothing to be cleared away.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bequest::Context;
use bequest_sqlite::{Database, Error, Statistics};
use rusqlite::{OptionalExtension, Row, Transaction, named_params};

use super::budget::StepError;
use super::database::{Answer, Claim, Claimed, SessionDatabase, TAKEN};
use super::record::{Ended, Record, from_millis, millis, span_millis};
use crate::domain::session::{Gender, Session, SessionHash, User};

/// Sessions in a SQLite file.
#[derive(Clone, Debug)]
pub(crate) struct SqliteSessions {
    database: Database,
    lock: PathBuf,
}

const STEP: &str = "session database";

/// Times are milliseconds since 1970. A row stays for a while after its end, so that its generation is known.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS sessions (
        id BLOB PRIMARY KEY CHECK (length(id) = 32),
        user TEXT NOT NULL,
        gender TEXT NOT NULL,
        age INTEGER,
        generation INTEGER NOT NULL,
        login_at INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        absolute_end INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS name (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL) STRICT;
    INSERT OR IGNORE INTO name VALUES (1, lower(hex(randomblob(16))));
    CREATE INDEX IF NOT EXISTS sessions_of_user ON sessions (user, login_at);
    CREATE INDEX IF NOT EXISTS sessions_by_end ON sessions (absolute_end);
";

const COLUMNS: &str = "id, user, gender, age, generation, login_at, last_seen, absolute_end";

const REVOKE: &str = "
    UPDATE sessions
    SET generation = generation + (revoked_at IS NULL), revoked_at = coalesce(revoked_at, ?2)
    WHERE id = ?1 RETURNING generation";

/// What a login clears away: a few rows whose end is a day past. One is added at a time, so the table stays small.
const SWEEP: &str = "
    DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE absolute_end < ?1 ORDER BY absolute_end LIMIT 8)";
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

impl SqliteSessions {
    /// Opens the database in `folder`, making what is missing.
    pub(crate) async fn open(ctx: &Context, folder: &Path) -> Result<SqliteSessions, Error> {
        let database = Database::open(ctx, folder.join("sessions.sqlite")).await?;
        database.execute_batch(ctx, SCHEMA).await?;
        Ok(SqliteSessions {
            database,
            lock: folder.join("sessions.lock"),
        })
    }

    /// The name of this database, which no other has: under it its sessions are in a shared cache.
    pub(crate) async fn name(&self, ctx: &Context) -> Result<String, Error> {
        let read = self.database.read(ctx, |connection| {
            connection.query_row("SELECT name FROM name", [], |row| row.get(0))
        });
        read.await
    }

    /// What runs and what waits, as the database's own threads count it.
    pub(crate) fn statistics(&self) -> Statistics {
        self.database.statistics()
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.database.close(ctx).await
    }
}

impl SessionDatabase for SqliteSessions {
    fn find<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Record>> {
        Box::pin(async move {
            let now = ctx.wall();
            let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1 AND revoked_at IS NULL");
            let found = self.database.read(ctx, move |connection| {
                let mut statement = connection.prepare_cached(&sql)?;
                statement
                    .query_row([id.0], |row| read_record(row, now))
                    .optional()
            });
            found.await.map_err(step_error)
        })
    }

    fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        new: Record,
        old: Option<SessionHash>,
    ) -> Answer<'a, Option<Ended>> {
        Box::pin(async move {
            let begun = self.database.write(ctx, move |tx| {
                let now = new.session.login_time;
                tx.prepare_cached(SWEEP)?
                    .execute([millis(now).saturating_sub(span_millis(KEPT_AFTER_END))])?;
                insert(tx, &new)?;
                match old {
                    Some(old) => revoke(tx, old, now),
                    None => Ok(None),
                }
            });
            begun.await.map_err(step_error)
        })
    }

    fn revoke<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Ended>> {
        Box::pin(async move {
            let now = ctx.wall();
            let revoked = self.database.write(ctx, move |tx| revoke(tx, id, now));
            revoked.await.map_err(step_error)
        })
    }

    fn revoke_all<'a>(&'a self, ctx: &'a Context, user: &'a str) -> Answer<'a, Vec<Ended>> {
        Box::pin(async move {
            let (now, user) = (millis(ctx.wall()), user.to_string());
            let sql = "UPDATE sessions SET generation = generation + 1, revoked_at = ?2
                       WHERE user = ?1 AND revoked_at IS NULL RETURNING id, generation";
            let revoked = self.database.write(ctx, move |tx| {
                let mut statement = tx.prepare_cached(sql)?;
                let ended = statement.query_map((user, now), |row| {
                    Ok(Ended {
                        id: SessionHash(row.get(0)?),
                        generation: row.get(1)?,
                    })
                })?;
                ended.collect()
            });
            revoked.await.map_err(step_error)
        })
    }

    fn list<'a>(&'a self, ctx: &'a Context, user: &'a str, most: u32) -> Answer<'a, Vec<Record>> {
        Box::pin(async move {
            let (now, user) = (ctx.wall(), user.to_string());
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE user = ?1 AND revoked_at IS NULL AND absolute_end > ?2
                 ORDER BY login_at DESC LIMIT ?3"
            );
            let found = self.database.read(ctx, move |connection| {
                let mut statement = connection.prepare_cached(&sql)?;
                let records = statement.query_map((user, millis(now), most), |row| read_record(row, now))?;
                records.collect()
            });
            found.await.map_err(step_error)
        })
    }

    fn touch<'a>(
        &'a self,
        ctx: &'a Context,
        id: SessionHash,
        now: SystemTime,
        rest: Duration,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            let (now, rest) = (millis(now), span_millis(rest));
            let sql = "UPDATE sessions SET last_seen = ?2 WHERE id = ?1 AND revoked_at IS NULL AND last_seen <= ?2 - ?3";
            let touched = self
                .database
                .write(ctx, move |tx| tx.prepare_cached(sql)?.execute((id.0, now, rest)));
            touched.await.map(|rows| rows > 0).map_err(step_error)
        })
    }

    fn claim<'a>(&'a self, _ctx: &'a Context, how: Claim) -> Answer<'a, Box<dyn Claimed>> {
        Box::pin(async move { lock(&self.lock, how) })
    }
}

#[derive(Debug)]
struct FileLock {
    /// Locked; closing it lets go.
    _file: File,
}

impl Claimed for FileLock {}

fn lock(path: &Path, how: Claim) -> Result<Box<dyn Claimed>, StepError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|error| StepError::failed(STEP, format!("{}: {error}", path.display())))?;
    let locked = match how {
        Claim::Alone => file.try_lock(),
        // Nodes in one folder are on one machine, so nobody looks whether they mean the same cache.
        Claim::Shared(_) => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Ok(Box::new(FileLock { _file: file })),
        Err(TryLockError::WouldBlock) => Err(StepError::failed(STEP, TAKEN)),
        Err(TryLockError::Error(error)) => {
            Err(StepError::failed(STEP, format!("{}: {error}", path.display())))
        }
    }
}

fn insert(tx: &Transaction<'_>, new: &Record) -> rusqlite::Result<()> {
    let session = &new.session;
    let sql =
        "INSERT INTO sessions VALUES (:id, :user, :gender, :age, :generation, :login, :seen, :end, NULL)";
    tx.prepare_cached(sql)?
        .execute(named_params! {
            ":id": session.id.0,
            ":user": session.user.id,
            ":gender": session.user.gender.as_str(),
            ":age": session.user.age,
            ":generation": new.generation,
            ":login": millis(session.login_time),
            ":seen": millis(new.last_seen),
            ":end": millis(new.absolute_end),
        })
        .map(drop)
}

fn revoke(tx: &Transaction<'_>, id: SessionHash, now: SystemTime) -> rusqlite::Result<Option<Ended>> {
    let mut statement = tx.prepare_cached(REVOKE)?;
    let generation = statement
        .query_row((id.0, millis(now)), |row| row.get(0))
        .optional()?;
    Ok(generation.map(|generation| Ended { id, generation }))
}

fn read_record(row: &Row<'_>, confirmed_at: SystemTime) -> rusqlite::Result<Record> {
    let gender: String = row.get("gender")?;
    let user = User {
        id: row.get("user")?,
        // A word from another version of the service is nothing that one could act on.
        gender: Gender::parse(&gender).unwrap_or(Gender::Undisclosed),
        age: row.get("age")?,
    };
    let session = Session {
        id: SessionHash(row.get("id")?),
        user,
        login_time: from_millis(row.get("login_at")?),
    };
    Ok(Record {
        session: Arc::new(session),
        generation: row.get("generation")?,
        last_seen: from_millis(row.get("last_seen")?),
        absolute_end: from_millis(row.get("absolute_end")?),
        confirmed_at,
    })
}

fn step_error(error: Error) -> StepError {
    match error.canceled() {
        Some(end) => StepError::ended(STEP, end.clone()),
        None => StepError::failed(STEP, error),
    }
}
