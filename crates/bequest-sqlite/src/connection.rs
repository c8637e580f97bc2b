//! One connection and everything that is done with it: opening, one job at a time, and being made clean again.
//!
//! It lives on the thread that made it. What must hold when a job has ended, however it ended: the connection is in
//! autocommit, no statement is active, its busy handler is ours; or there is no connection, and the next job opens
//! one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::Context;
use rusqlite::{Connection, DropBehavior, OpenFlags, Transaction, TransactionBehavior, ffi};

use crate::cancel::{Seen, Watch};
use crate::error::{Error, Step};
use crate::options::{SetUp, Settings};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Reader,
    Writer,
}

/// The owner of a connection.
pub(crate) struct Engine {
    role: Role,
    settings: Arc<Settings>,
    watch: Watch,
    /// `None` before the first job, and after a job that left it unclean.
    conn: Option<Connection>,
}

/// What became of a job, for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) interrupted: bool,
    pub(crate) failed: bool,
    pub(crate) panicked: bool,
    pub(crate) rolled_back: bool,
    pub(crate) discarded: bool,
    pub(crate) stop: Option<Duration>,
}

impl Engine {
    pub(crate) fn new(role: Role, settings: Arc<Settings>) -> Engine {
        Engine {
            role,
            settings,
            watch: Watch::default(),
            conn: None,
        }
    }

    /// Opens the connection now rather than at the first job, so that errors are told where they belong.
    pub(crate) fn open(&mut self, ctx: &Context) -> (Result<(), Error>, Report) {
        let answer = self.connect(ctx);
        self.conclude(ctx, answer)
    }

    /// Runs `work` outside any transaction of ours.
    pub(crate) fn read<T>(
        &mut self,
        ctx: &Context,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> (Result<T, Error>, Report) {
        let answer = self.connect(ctx).and_then(|()| {
            let conn = self.conn.as_ref().expect("just connected");
            perform(&self.watch, ctx, Step::Running, || work(conn))
        });
        self.conclude(ctx, answer)
    }

    /// Runs `work` in a transaction that holds the write lock, and commits if it ends well and is still wanted.
    pub(crate) fn write<T>(
        &mut self,
        ctx: &Context,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> (Result<T, Error>, Report) {
        let mut begun = false;
        let answer = self.connect(ctx).and_then(|()| {
            let conn = self.conn.as_ref().expect("just connected");
            transact(&self.watch, ctx, conn, &mut begun, work)
        });
        let (answer, mut report) = self.conclude(ctx, answer);
        report.rolled_back = begun && answer.is_err();
        (answer, report)
    }

    /// Moves everything from the write-ahead log into the file and empties the log.
    pub(crate) fn checkpoint(&mut self, ctx: &Context) -> (Result<(), Error>, Report) {
        let answer = match &self.conn {
            None => Ok(()), // never written through, or the file could not be opened
            Some(conn) => perform(&self.watch, ctx, Step::Closing, || {
                let blocked =
                    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, bool>(0))?;
                if blocked {
                    Err(busy("another connection still reads the write-ahead log"))
                } else {
                    Ok(())
                }
            }),
        };
        self.conclude(ctx, answer)
    }

    /// Throws the connection away; the next job opens another.
    pub(crate) fn discard(&mut self) {
        self.conn = None;
    }

    /// Makes sure of a connection with its hooks in place.
    fn connect(&mut self, ctx: &Context) -> Result<(), Error> {
        if self.conn.is_none() {
            let opened = perform(&self.watch, ctx, Step::Opening, || {
                open(self.role, &self.settings, &self.watch)
            });
            let conn = opened.map_err(|error| match error.into_sqlite() {
                Ok(error) => Error::opening(&self.settings.path, error),
                Err(error) => error,
            })?;
            self.conn = Some(conn);
        }
        Ok(())
    }

    /// Makes the connection clean, and sums up what happened.
    fn conclude<T>(&mut self, ctx: &Context, answer: Result<T, Error>) -> (Result<T, Error>, Report) {
        let error = answer.as_ref().err();
        let mut report = Report {
            interrupted: error.is_some_and(Error::is_canceled),
            panicked: error.is_some_and(Error::is_panicked),
            ..Report::default()
        };
        report.failed = error.is_some() && !report.interrupted && !report.panicked;
        report.discarded = !self.clean();
        if report.interrupted {
            let ended = ctx.err().and_then(|end| end.at());
            report.stop = ended.map(|at| Instant::now().saturating_duration_since(at));
        }
        (answer, report)
    }

    /// Brings the connection back to the state in which a job may find it, or throws it away. No context is in force
    /// here: a rollback is not up for cancellation. Returns whether the connection was kept.
    fn clean(&mut self) -> bool {
        let Some(conn) = &mut self.conn else { return true };
        // A leaked statement pins a snapshot and locks, and would still be stepped by nobody.
        let clean = (conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok())
            && !conn.is_busy()
            && self.watch.install_busy(conn, self.settings.busy_limit).is_ok();
        if !clean {
            self.discard();
        }
        clean
    }
}

/// A transaction from its `BEGIN IMMEDIATE` to its `COMMIT`. Whatever it leaves open is rolled back by
/// [`Engine::clean`], once no context is in force.
fn transact<T>(
    watch: &Watch,
    ctx: &Context,
    conn: &Connection,
    begun: &mut bool,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, Error> {
    let tx = perform(watch, ctx, Step::Waiting, || {
        let mut tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        tx.set_drop_behavior(DropBehavior::Ignore);
        Ok(tx)
    })?;
    *begun = true;
    let value = perform(watch, ctx, Step::Running, || work(&tx))?;
    if conn.is_autocommit() {
        return Err(Error::transaction_lost());
    }
    perform(watch, ctx, Step::Committing, || tx.commit())?;
    Ok(value)
}

/// Runs one step with the hooks reading `ctx`, and finds out what its end means.
fn perform<T>(
    watch: &Watch,
    ctx: &Context,
    step: Step,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> Result<T, Error> {
    let (outcome, seen) = watch.guard(ctx, step, || catch_unwind(AssertUnwindSafe(work)));
    let Seen { stopped, refused } = seen;
    match outcome {
        Err(payload) => Err(Error::panicked(step, message(&*payload))),
        // A commit that SQLite reports as done is done, whatever else was stopped on the way.
        Ok(Ok(value)) if step == Step::Committing => Ok(value),
        Ok(answer) => match stopped {
            Some(end) => Err(Error::canceled_at(step, end)),
            None if refused => Err(Error::transaction_lost()),
            None => answer.map_err(|error| Error::sqlite_at(step, error)),
        },
    }
}

/// Opens the file and brings the connection into the state that the crate page promises.
fn open(role: Role, settings: &Settings, watch: &Watch) -> rusqlite::Result<Connection> {
    let flags = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    // One thread per connection: SQLite needs no mutex of its own. No URI: a path is a path.
    let mut conn = Connection::open_with_flags(&settings.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    watch.install_busy(&mut conn, settings.busy_limit)?;
    if role == Role::Writer {
        // Where two make the log at once, one is turned away without the busy handler being asked.
        let mode: String = watch.patiently(settings.busy_limit, || {
            conn.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))
        })?;
        if mode != "wal" {
            return Err(refusal(format!(
                "no write-ahead log on this file system (journal mode {mode})"
            )));
        }
    }
    conn.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")?;
    watch.install(&mut conn, settings.busy_limit)?;
    if let Some(SetUp(set_up)) = &settings.set_up {
        set_up(&conn)?;
        // Whatever it has put in their place.
        watch.install(&mut conn, settings.busy_limit)?;
    }
    if role == Role::Reader {
        // Last, so that the set-up can make temporary tables.
        conn.execute_batch("PRAGMA query_only = ON")?;
    }
    Ok(conn)
}

fn busy(text: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), Some(text.to_owned()))
}

fn refusal(text: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(text))
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(a panic without a message)").to_owned()
}
