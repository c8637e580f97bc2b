//! The jobs' table in PostgreSQL. Each row says which node works on it; a node that is gone has let go of its lock.

use bequest::Context;
use bequest_postgres::Listener;
use bequest_postgres::tokio_postgres::Row;

use super::PostgresStore;
use super::claims::NODES;
use crate::store::Error;
use crate::store::jobs::{Ending, Job, MOST_REMEMBERED, Starter, State, Wish};

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS bequest.jobs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        node integer NOT NULL,
        state text NOT NULL,
        detail text NOT NULL DEFAULT '',
        reason text,
        origin text,
        passages bigint NOT NULL DEFAULT 0,
        started_by text,
        \"user\" text,
        request_id text,
        trace_id text,
        begun_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    );
    CREATE TABLE IF NOT EXISTS bequest.job_ends (
        job bigint PRIMARY KEY REFERENCES bequest.jobs ON DELETE CASCADE,
        reason text NOT NULL,
        asked_by text NOT NULL
    );
";

/// Where nodes are told that jobs are to end.
const ENDS: &str = "bequest_job_ends";

/// Times as the logs have them.
const COLUMNS: &str = r#"id, state, detail, reason, origin, passages, started_by, "user", request_id, trace_id,
    to_char(begun_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#;

impl PostgresStore {
    /// As [`crate::store::Store::begin_job`].
    pub(crate) async fn begin_job(&self, ctx: &Context, starter: Starter) -> Result<i64, Error> {
        let sql = r#"WITH forgotten AS (
                         DELETE FROM bequest.jobs
                         WHERE id <= (SELECT max(id) FROM bequest.jobs) - $7 AND state <> $1)
                     INSERT INTO bequest.jobs (state, node, started_by, "user", request_id, trace_id)
                     VALUES ($1, $2, $3, $4, $5, $6) RETURNING id"#;
        let Starter {
            address,
            user,
            request_id,
            trace_id,
        } = starter;
        let running = State::Running.as_str();
        let row = self
            .database()
            .query_one(
                ctx,
                sql,
                &[
                    &running,
                    &self.node,
                    &address,
                    &user,
                    &request_id,
                    &trace_id,
                    &MOST_REMEMBERED,
                ],
            )
            .await?;
        Ok(row.get(0))
    }

    /// As [`crate::store::Store::finish_job`].
    pub(crate) async fn finish_job(
        &self,
        ctx: &Context,
        id: i64,
        digest: String,
        passages: u32,
    ) -> Result<(), Error> {
        let sql = "WITH found AS (
                       INSERT INTO bequest.digests (job, digest) VALUES ($1, $2)
                       ON CONFLICT (job) DO UPDATE SET digest = excluded.digest, written_at = now())
                   UPDATE bequest.jobs SET state = $3, detail = $2, passages = $4, ended_at = now() WHERE id = $1";
        let finished = State::Finished.as_str();
        self.database()
            .execute(ctx, sql, &[&id, &digest, &finished, &i64::from(passages)])
            .await?;
        Ok(())
    }

    /// As [`crate::store::Store::end_job`]. A job that was finished stays finished: if it was in doubt, this settles it.
    pub(crate) async fn end_job(&self, ctx: &Context, id: i64, ending: Ending) -> Result<(), Error> {
        let sql = "UPDATE bequest.jobs SET state = $2, detail = $3, reason = $4, origin = $5, passages = $6,
                   ended_at = now() WHERE id = $1 AND state <> $7";
        let Ending {
            state,
            detail,
            reason,
            origin,
            passages,
        } = ending;
        let (state, finished) = (state.as_str(), State::Finished.as_str());
        let passages = i64::from(passages);
        self.database()
            .execute(
                ctx,
                sql,
                &[&id, &state, &detail, &reason, &origin, &passages, &finished],
            )
            .await?;
        Ok(())
    }

    /// As [`crate::store::Store::interrupt_jobs`]: of every node whose lock can be had, for it is gone then.
    pub(crate) async fn interrupt_jobs(&self, ctx: &Context) -> Result<Vec<i64>, Error> {
        // The lock is asked for once a node, and given back at the end of the statement.
        let sql = "WITH gone AS MATERIALIZED (
                       SELECT node FROM (SELECT DISTINCT node FROM bequest.jobs WHERE state = $2) AS working
                       WHERE pg_try_advisory_xact_lock($3::integer, node))
                   UPDATE bequest.jobs SET state = $1, reason = 'process gone',
                       detail = 'the process was gone before the job was', ended_at = now()
                   WHERE state = $2 AND node IN (SELECT node FROM gone) RETURNING id";
        let (interrupted, running) = (State::Interrupted.as_str(), State::Running.as_str());
        let rows = self
            .database()
            .query(ctx, sql, &[&interrupted, &running, &NODES])
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// As [`crate::store::Store::ask_end`]. The word goes out with the commit, so who hears it finds what was written.
    pub(crate) async fn ask_end(&self, ctx: &Context, wish: Wish) -> Result<(), Error> {
        let sql = "WITH asked AS (
                       INSERT INTO bequest.job_ends (job, reason, asked_by)
                       SELECT id, $2, $3 FROM bequest.jobs WHERE id = $1 AND state = $4 ON CONFLICT DO NOTHING)
                   SELECT pg_notify($5, '')";
        let running = State::Running.as_str();
        self.database()
            .query_one(ctx, sql, &[&wish.job, &wish.reason, &wish.by, &running, &ENDS])
            .await?;
        Ok(())
    }

    /// As [`crate::store::Store::asked_ends`].
    pub(crate) async fn asked_ends(&self, ctx: &Context) -> Result<Vec<Wish>, Error> {
        let sql = "SELECT job, job_ends.reason, asked_by FROM bequest.job_ends JOIN bequest.jobs ON id = job
                   WHERE node = $1 AND state = $2";
        let running = State::Running.as_str();
        let rows = self.database().query(ctx, sql, &[&self.node, &running]).await?;
        let read = |row: &Row| Wish {
            job: row.get(0),
            reason: row.get(1),
            by: row.get(2),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// As [`crate::store::Store::hear_asked_ends`].
    pub(crate) async fn hear_asked_ends(&self, ctx: &Context) -> Result<Listener, Error> {
        Ok(self.database.listen(ctx, &[ENDS]).await?)
    }

    /// As [`crate::store::Store::job`].
    pub(crate) async fn job(&self, ctx: &Context, id: i64) -> Result<Option<Job>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM bequest.jobs WHERE id = $1");
        let row = self.database().query_opt(ctx, &sql, &[&id]).await?;
        row.as_ref().map(read).transpose()
    }

    /// As [`crate::store::Store::jobs`].
    pub(crate) async fn jobs(
        &self,
        ctx: &Context,
        user: Option<String>,
        most: u32,
    ) -> Result<Vec<Job>, Error> {
        let sql = format!(
            r#"SELECT {COLUMNS} FROM bequest.jobs WHERE "user" IS NULL OR "user" = $1 ORDER BY id DESC LIMIT $2"#
        );
        let rows = self
            .database()
            .query(ctx, &sql, &[&user, &i64::from(most)])
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<Job, Error> {
    let state: &str = row.get(1);
    let passages: i64 = row.get(5);
    Ok(Job {
        id: row.get(0),
        state: State::parse(state).ok_or(Error::Unreadable("a job is in a state that nobody knows"))?,
        detail: row.get(2),
        reason: row.get(3),
        origin: row.get(4),
        passages: u32::try_from(passages).unwrap_or(u32::MAX),
        starter: Starter {
            address: row.get(6),
            user: row.get(7),
            request_id: row.get(8),
            trace_id: row.get(9),
        },
        begun_at: row.get(10),
        ended_at: row.get(11),
    })
}
