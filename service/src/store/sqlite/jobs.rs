//! The jobs' table in SQLite.

use bequest::Context;
use bequest_sqlite::Error;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Row};

use super::SqliteStore;
use crate::store::jobs::{Ending, Job, MOST_REMEMBERED, Starter, State, Wish};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL,
        detail TEXT NOT NULL DEFAULT '',
        reason TEXT,
        origin TEXT,
        passages INTEGER NOT NULL DEFAULT 0,
        started_by TEXT,
        user TEXT,
        request_id TEXT,
        trace_id TEXT,
        begun_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
        ended_at TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS job_ends (
        job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
        reason TEXT NOT NULL,
        asked_by TEXT NOT NULL
    ) STRICT;
";

const COLUMNS: &str =
    "id, state, detail, reason, origin, passages, started_by, user, request_id, trace_id, begun_at, ended_at";

impl SqliteStore {
    /// Writes that a job is begun; its number. Forgets the oldest of those that have ended, if they are too many.
    pub(crate) async fn begin_job(&self, ctx: &Context, starter: Starter) -> Result<i64, Error> {
        let insert =
            "INSERT INTO jobs (state, started_by, user, request_id, trace_id) VALUES (?1, ?2, ?3, ?4, ?5)";
        let forget = "DELETE FROM jobs WHERE id <= ?1 AND state <> ?2";
        self.database
            .write(ctx, move |tx| {
                let Starter {
                    address,
                    user,
                    request_id,
                    trace_id,
                } = starter;
                tx.execute(insert, (State::Running, address, user, request_id, trace_id))?;
                let id = tx.last_insert_rowid();
                tx.execute(forget, (id - MOST_REMEMBERED, State::Running))?;
                Ok(id)
            })
            .await
    }

    /// Writes what a job found, and with it, in one transaction, that it is finished.
    pub(crate) async fn finish_job(
        &self,
        ctx: &Context,
        id: i64,
        digest: String,
        passages: u32,
    ) -> Result<(), Error> {
        let found = "INSERT OR REPLACE INTO digests VALUES (?1, ?2, datetime('now'))";
        let finished = "UPDATE jobs SET state = ?2, detail = ?3, passages = ?4, ended_at = strftime('%Y-%m-%dT%H:%M:%fZ')
                        WHERE id = ?1";
        self.database
            .write(ctx, move |tx| {
                tx.execute(found, (id, &digest))?;
                tx.execute(finished, (id, State::Finished, &digest, passages))
                    .map(drop)
            })
            .await
    }

    /// Writes how a job ended.
    pub(crate) async fn end_job(&self, ctx: &Context, id: i64, ending: Ending) -> Result<(), Error> {
        let sql = "UPDATE jobs SET state = ?2, detail = ?3, reason = ?4, origin = ?5, passages = ?6,
                   ended_at = strftime('%Y-%m-%dT%H:%M:%fZ') WHERE id = ?1";
        self.database
            .write(ctx, move |tx| {
                let Ending {
                    state,
                    detail,
                    reason,
                    origin,
                    passages,
                } = ending;
                tx.execute(sql, (id, state, detail, reason, origin, passages))
                    .map(drop)
            })
            .await
    }

    /// Marks as interrupted what a process left running that is gone; the numbers of those jobs.
    pub(crate) async fn interrupt_jobs(&self, ctx: &Context) -> Result<Vec<i64>, Error> {
        if self.jobs_lock.is_none() {
            // Somebody else works here, and only they know which jobs run.
            return Ok(Vec::new());
        }
        let sql = "UPDATE jobs SET state = ?1, reason = 'process gone', detail = 'the process was gone before the job was',
                   ended_at = strftime('%Y-%m-%dT%H:%M:%fZ') WHERE state = ?2 RETURNING id";
        self.database
            .write(ctx, move |tx| {
                let mut statement = tx.prepare(sql)?;
                let ids = statement.query_map((State::Interrupted, State::Running), |row| row.get(0))?;
                ids.collect()
            })
            .await
    }

    /// As [`crate::store::Store::ask_end`], but for the telling.
    pub(crate) async fn ask_end(&self, ctx: &Context, wish: Wish) -> Result<(), Error> {
        let sql = "INSERT INTO job_ends SELECT id, ?2, ?3 FROM jobs WHERE id = ?1 AND state = ?4 ON CONFLICT DO NOTHING";
        self.database
            .write(ctx, move |tx| {
                tx.execute(sql, (wish.job, wish.reason, wish.by, State::Running))
                    .map(drop)
            })
            .await
    }

    /// As [`crate::store::Store::asked_ends`].
    pub(crate) async fn asked_ends(&self, ctx: &Context) -> Result<Vec<Wish>, Error> {
        let sql =
            "SELECT job, job_ends.reason, asked_by FROM job_ends JOIN jobs ON id = job WHERE state = ?1";
        let read = |row: &Row<'_>| {
            Ok(Wish {
                job: row.get(0)?,
                reason: row.get(1)?,
                by: row.get(2)?,
            })
        };
        self.database.query(ctx, sql, [State::Running], read).await
    }

    /// The job of this number.
    pub(crate) async fn job(&self, ctx: &Context, id: i64) -> Result<Option<Job>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
        self.database
            .read(ctx, move |connection| {
                connection.query_row(&sql, [id], read).optional()
            })
            .await
    }

    /// The newest jobs of this user and of nobody in particular first, at most `most` of them.
    pub(crate) async fn jobs(
        &self,
        ctx: &Context,
        user: Option<String>,
        most: u32,
    ) -> Result<Vec<Job>, Error> {
        let sql =
            format!("SELECT {COLUMNS} FROM jobs WHERE user IS NULL OR user = ?1 ORDER BY id DESC LIMIT ?2");
        self.database.query(ctx, &sql, (user, most), read).await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: row.get(0)?,
        state: row.get(1)?,
        detail: row.get(2)?,
        reason: row.get(3)?,
        origin: row.get(4)?,
        passages: row.get(5)?,
        starter: Starter {
            address: row.get(6)?,
            user: row.get(7)?,
            request_id: row.get(8)?,
            trace_id: row.get(9)?,
        },
        begun_at: row.get(10)?,
        ended_at: row.get(11)?,
    })
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<State> {
        State::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}
