//! The session database in PostgreSQL, which several nodes may share.
//!
//! Each call is one statement, so each is done whole or not at all. The claim is an advisory lock: shared by nodes that share a
//! cache, exclusive for one that has a cache of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bequest::Context;
use bequest_postgres::tokio_postgres::Row;
use bequest_postgres::{Database, Error, Options, Statistics};

use super::budget::StepError;
use super::cache::CacheMark;
use super::database::{Answer, Claim, Claimed, Elsewhere, SessionDatabase, TAKEN};
use super::record::{Ended, Record, from_millis, millis, span_millis};
use crate::domain::session::{Gender, Session, SessionHash, User};
use crate::store::postgres::{Held, Lock, claims, hold};

/// Sessions in a schema of a PostgreSQL database.
#[derive(Clone, Debug)]
pub(crate) struct PostgresSessions {
    database: Database,
    /// How to come by a connection for a claim.
    options: Arc<Options>,
}

const STEP: &str = "session database";

/// Times are milliseconds since 1970, as the nodes tell them. A row stays for a while after its end, so that its generation
/// is known. The lock lets nodes that start at once make it one after the other.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7091312);
    CREATE SCHEMA IF NOT EXISTS bequest;
    CREATE TABLE IF NOT EXISTS bequest.sessions (
        id bytea PRIMARY KEY CHECK (length(id) = 32),
        \"user\" text NOT NULL,
        gender text NOT NULL,
        age smallint,
        generation bigint NOT NULL,
        login_at bigint NOT NULL,
        last_seen bigint NOT NULL,
        absolute_end bigint NOT NULL,
        revoked_at bigint
    );
    CREATE TABLE IF NOT EXISTS bequest.name (one boolean PRIMARY KEY DEFAULT true CHECK (one), name text NOT NULL);
    INSERT INTO bequest.name (name) VALUES (gen_random_uuid()::text) ON CONFLICT DO NOTHING;
    CREATE INDEX IF NOT EXISTS sessions_of_user ON bequest.sessions (\"user\", login_at);
    CREATE INDEX IF NOT EXISTS sessions_by_end ON bequest.sessions (absolute_end);
";

const COLUMNS: &str = r#"id, "user", gender, age, generation, login_at, last_seen, absolute_end"#;

/// A login: a few rows whose end is a day past are cleared away, the new session is written, and the old one is ended.
const BEGIN: &str = r#"
    WITH swept AS (
        DELETE FROM bequest.sessions WHERE id IN (
            SELECT id FROM bequest.sessions WHERE absolute_end < $9 AND id IS DISTINCT FROM $11
            ORDER BY absolute_end LIMIT 8 FOR UPDATE SKIP LOCKED)
    ), begun AS (
        INSERT INTO bequest.sessions VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL)
    )
    UPDATE bequest.sessions
    SET generation = generation + (revoked_at IS NULL)::integer, revoked_at = coalesce(revoked_at, $10)
    WHERE id = $11 RETURNING generation"#;
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

const REVOKE: &str = "
    UPDATE bequest.sessions
    SET generation = generation + (revoked_at IS NULL)::integer, revoked_at = coalesce(revoked_at, $2)
    WHERE id = $1 RETURNING generation";

impl PostgresSessions {
    /// Connects to the database, making what is missing.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or refuses.
    pub(crate) async fn open(ctx: &Context, options: Options) -> Result<PostgresSessions, Error> {
        let database = options.clone().open(ctx).await?;
        database.batch_execute(ctx, SCHEMA).await?;
        Ok(PostgresSessions {
            database,
            options: Arc::new(options),
        })
    }

    /// The name of this database, which no other has: under it its sessions are in a shared cache.
    pub(crate) async fn name(&self, ctx: &Context) -> Result<String, Error> {
        let row = self
            .database
            .query_one(ctx, "SELECT name FROM bequest.name", &[])
            .await?;
        Ok(row.get(0))
    }

    /// What the pool is doing.
    pub(crate) fn statistics(&self) -> Statistics {
        self.database.statistics()
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.database.close(ctx).await
    }
}

impl SessionDatabase for PostgresSessions {
    fn find<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Record>> {
        Box::pin(async move {
            let now = ctx.wall();
            let sql = format!("SELECT {COLUMNS} FROM bequest.sessions WHERE id = $1 AND revoked_at IS NULL");
            let row = self.database.query_opt(ctx, &sql, &[&&id.0[..]]).await;
            let row = row.map_err(step_error)?;
            row.map(|row| read_record(&row, now)).transpose()
        })
    }

    fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        new: Record,
        old: Option<SessionHash>,
    ) -> Answer<'a, Option<Ended>> {
        Box::pin(async move {
            let (session, login) = (&new.session, millis(new.session.login_time));
            let swept_before = login.saturating_sub(span_millis(KEPT_AFTER_END));
            let row = self
                .database
                .query_opt(
                    ctx,
                    BEGIN,
                    &[
                        &&session.id.0[..],
                        &session.user.id,
                        &session.user.gender.as_str(),
                        &session.user.age.map(i16::from),
                        &new.generation,
                        &login,
                        &millis(new.last_seen),
                        &millis(new.absolute_end),
                        &swept_before,
                        &login,
                        &old.as_ref().map(|old| &old.0[..]),
                    ],
                )
                .await;
            let row = row.map_err(step_error)?;
            Ok(old.zip(row).map(|(id, row)| Ended {
                id,
                generation: row.get(0),
            }))
        })
    }

    fn revoke<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Ended>> {
        Box::pin(async move {
            let now = millis(ctx.wall());
            let row = self.database.query_opt(ctx, REVOKE, &[&&id.0[..], &now]).await;
            let row = row.map_err(step_error)?;
            Ok(row.map(|row| Ended {
                id,
                generation: row.get(0),
            }))
        })
    }

    fn revoke_all<'a>(&'a self, ctx: &'a Context, user: &'a str) -> Answer<'a, Vec<Ended>> {
        Box::pin(async move {
            let sql = r#"UPDATE bequest.sessions SET generation = generation + 1, revoked_at = $2
                         WHERE "user" = $1 AND revoked_at IS NULL RETURNING id, generation"#;
            let rows = self.database.query(ctx, sql, &[&user, &millis(ctx.wall())]).await;
            let rows = rows.map_err(step_error)?;
            let ended = rows.iter().map(|row| {
                Ok(Ended {
                    id: hash(row.get(0))?,
                    generation: row.get(1),
                })
            });
            ended.collect()
        })
    }

    fn list<'a>(&'a self, ctx: &'a Context, user: &'a str, most: u32) -> Answer<'a, Vec<Record>> {
        Box::pin(async move {
            let now = ctx.wall();
            let sql = format!(
                r#"SELECT {COLUMNS} FROM bequest.sessions
                   WHERE "user" = $1 AND revoked_at IS NULL AND absolute_end > $2
                   ORDER BY login_at DESC LIMIT $3"#
            );
            let rows = self
                .database
                .query(ctx, &sql, &[&user, &millis(now), &i64::from(most)])
                .await;
            let rows = rows.map_err(step_error)?;
            rows.iter().map(|row| read_record(row, now)).collect()
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
            let now = millis(now);
            let before = now.saturating_sub(span_millis(rest));
            let sql = "UPDATE bequest.sessions SET last_seen = $2
                       WHERE id = $1 AND revoked_at IS NULL AND last_seen <= $3";
            let touched = self
                .database
                .execute(ctx, sql, &[&&id.0[..], &now, &before])
                .await;
            touched.map(|rows| rows > 0).map_err(step_error)
        })
    }

    fn claim<'a>(&'a self, ctx: &'a Context, how: Claim) -> Answer<'a, Box<dyn Claimed>> {
        Box::pin(async move {
            let (lock, mark) = match how {
                Claim::Alone => (Lock::SessionsAlone, None),
                Claim::Shared(mark) => (Lock::SessionsShared, mark),
            };
            let sessions = self.hold(ctx, lock, TAKEN).await?;
            let cache = match mark {
                Some(CacheMark(mark)) => {
                    // Looked for before it is said, so that those who work hear nothing of one that has to go.
                    let is_elsewhere = claims::is_elsewhere(ctx, &self.database, mark).await;
                    if is_elsewhere.map_err(step_error)? {
                        return Err(StepError::failed(STEP, Elsewhere));
                    }
                    Some(self.hold(ctx, Lock::Cache(mark), Elsewhere).await?)
                }
                None => None,
            };
            Ok(Box::new(Advisory { sessions, cache }) as Box<dyn Claimed>)
        })
    }
}

impl PostgresSessions {
    /// Takes the lock, or says why nobody may have it.
    async fn hold(
        &self,
        ctx: &Context,
        lock: Lock,
        refusal: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<Held, StepError> {
        let held = hold(ctx, Options::clone(&self.options), lock).await;
        let held = held.map_err(step_error)?;
        match held.is_lost() {
            true => Err(StepError::failed(STEP, refusal)),
            false => Ok(held),
        }
    }
}

#[derive(Debug)]
struct Advisory {
    sessions: Held,
    /// Which cache they are in, if there is a choice.
    cache: Option<Held>,
}

impl Claimed for Advisory {
    fn is_lost(&self) -> bool {
        self.sessions.is_lost() || self.cache.as_ref().is_some_and(Held::is_lost)
    }
}

fn read_record(row: &Row, confirmed_at: SystemTime) -> Result<Record, StepError> {
    let (gender, age): (&str, Option<i16>) = (row.get(2), row.get(3));
    let user = User {
        id: row.get(1),
        // A word from another version of the service is nothing that one could act on.
        gender: Gender::parse(gender).unwrap_or(Gender::Undisclosed),
        age: age.and_then(|age| u8::try_from(age).ok()),
    };
    let session = Session {
        id: hash(row.get(0))?,
        user,
        login_time: from_millis(row.get(5)),
    };
    Ok(Record {
        session: Arc::new(session),
        generation: row.get(4),
        last_seen: from_millis(row.get(6)),
        absolute_end: from_millis(row.get(7)),
        confirmed_at,
    })
}

fn hash(bytes: &[u8]) -> Result<SessionHash, StepError> {
    let bytes = bytes.try_into();
    bytes
        .map(SessionHash)
        .map_err(|_| StepError::failed(STEP, "an id is not 32 bytes long"))
}

fn step_error(error: Error) -> StepError {
    match error.canceled() {
        Some(end) => StepError::ended(STEP, end.clone()),
        None => StepError::failed(STEP, error),
    }
}
