//! The service's own data, and the cache before it.
//!
//! What lives here: SQL, and nothing else that knows of it. Every function takes the context first and stops with it;
//! how is the affair of the crates for stores. Where the data is, in a file here or in a server, is told by
//! [`settings`] and known to nobody else.

pub(crate) mod cache;
pub(crate) mod jobs;
pub(crate) mod postgres;
pub(crate) mod settings;
pub(crate) mod sqlite;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bequest::{Canceled, Context};
use bequest_postgres::Options;

use self::jobs::{Ears, Ending, Job, Starter, Wish};
use self::postgres::PostgresStore;
use self::sqlite::SqliteStore;

/// The service's database.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

/// What the long query finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    pub(crate) entries: i64,
    pub(crate) balance: i64,
}

/// What the store is doing and has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    /// Statements that run, or are being stopped. If this is 0, the database does nothing for this process.
    pub(crate) running: usize,
    pub(crate) accepted: u64,
    /// Statements that had begun when their context ended, and were stopped.
    pub(crate) interrupted: u64,
    /// How long the last of them took to stop.
    pub(crate) last_stop: Option<Duration>,
}

/// Why the store did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Error {
    Sqlite(bequest_sqlite::Error),
    Postgres(bequest_postgres::Error),
    /// The context, where nothing was asked of a database.
    Ended(Canceled),
    /// The data folder takes no lock.
    Lock(io::Error),
    /// What is in the database was written by nobody that we know.
    Unreadable(&'static str),
}

/// Does the same in either.
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call.map_err(Error::from),
            Store::Postgres($inner) => $call.map_err(Error::from),
        }
    };
}

impl Store {
    /// Opens the database that `remote` leads to, or the one in `folder`, making what is missing.
    ///
    /// # Errors
    ///
    /// It does not answer, or cannot be made.
    pub(crate) async fn open(ctx: &Context, remote: Option<Options>, folder: &Path) -> Result<Store, Error> {
        Ok(match remote {
            None => Store::Sqlite(SqliteStore::open(ctx, folder).await?),
            Some(options) => Store::Postgres(PostgresStore::open(ctx, options).await?),
        })
    }

    /// Writes an answer of the slow fetch.
    pub(crate) async fn put_answer(&self, ctx: &Context, key: String, answer: String) -> Result<(), Error> {
        either!(self, store => store.put_answer(ctx, key, answer).await)
    }

    /// The answer written under `key`.
    pub(crate) async fn answer(&self, ctx: &Context, key: String) -> Result<Option<String>, Error> {
        either!(self, store => store.answer(ctx, key).await)
    }

    /// The long query: one statement that runs for `span`.
    pub(crate) async fn ledger(&self, ctx: &Context, span: Duration) -> Result<Ledger, Error> {
        either!(self, store => store.ledger(ctx, span).await)
    }

    /// Writes that a job is begun; its number. Forgets the oldest of those that have ended, if they are too many.
    pub(crate) async fn begin_job(&self, ctx: &Context, starter: Starter) -> Result<i64, Error> {
        either!(self, store => store.begin_job(ctx, starter).await)
    }

    /// Writes what a job found, and with it, in one transaction, that it is finished.
    pub(crate) async fn finish_job(
        &self,
        ctx: &Context,
        id: i64,
        digest: String,
        passages: u32,
    ) -> Result<(), Error> {
        either!(self, store => store.finish_job(ctx, id, digest, passages).await)
    }

    /// Writes how a job ended.
    pub(crate) async fn end_job(&self, ctx: &Context, id: i64, ending: Ending) -> Result<(), Error> {
        either!(self, store => store.end_job(ctx, id, ending).await)
    }

    /// Marks as interrupted what processes left running that are gone; the numbers of those jobs.
    pub(crate) async fn interrupt_jobs(&self, ctx: &Context) -> Result<Vec<i64>, Error> {
        either!(self, store => store.interrupt_jobs(ctx).await)
    }

    /// Writes down that a job is to end, if it runs, and tells the nodes. Who asked first, is asked for.
    pub(crate) async fn ask_end(&self, ctx: &Context, wish: Wish) -> Result<(), Error> {
        either!(self, store => store.ask_end(ctx, wish).await)
    }

    /// Which jobs are to end of those that run, on this node as far as nodes are told apart.
    pub(crate) async fn asked_ends(&self, ctx: &Context) -> Result<Vec<Wish>, Error> {
        either!(self, store => store.asked_ends(ctx).await)
    }

    /// What hears, from now on, that jobs are to end.
    pub(crate) async fn hear_asked_ends(&self, ctx: &Context) -> Result<Ears, Error> {
        match self {
            Store::Sqlite(_) => Ok(Ears::Untold),
            Store::Postgres(store) => Ok(Ears::Told(store.hear_asked_ends(ctx).await?)),
        }
    }

    /// The job of this number.
    pub(crate) async fn job(&self, ctx: &Context, id: i64) -> Result<Option<Job>, Error> {
        either!(self, store => store.job(ctx, id).await)
    }

    /// The newest jobs of this user and of nobody in particular first, at most `most` of them.
    pub(crate) async fn jobs(
        &self,
        ctx: &Context,
        user: Option<String>,
        most: u32,
    ) -> Result<Vec<Job>, Error> {
        either!(self, store => store.jobs(ctx, user, most).await)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        match self {
            Store::Sqlite(store) => store.statistics(),
            Store::Postgres(store) => store.statistics(),
        }
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        either!(self, store => store.close(ctx).await)
    }
}

impl Error {
    /// The end of the context, if that is why.
    pub(crate) fn canceled(&self) -> Option<&Canceled> {
        match self {
            Error::Sqlite(error) => error.canceled(),
            Error::Postgres(error) => error.canceled(),
            Error::Ended(end) => Some(end),
            Error::Lock(_) | Error::Unreadable(_) => None,
        }
    }

    /// Whether it may have been done all the same.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Error::Postgres(error) => error.is_in_doubt(),
            Error::Sqlite(_) | Error::Ended(_) | Error::Lock(_) | Error::Unreadable(_) => false,
        }
    }
}

impl From<bequest_sqlite::Error> for Error {
    fn from(error: bequest_sqlite::Error) -> Error {
        Error::Sqlite(error)
    }
}

impl From<bequest_postgres::Error> for Error {
    fn from(error: bequest_postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Sqlite(error) => error.fmt(f),
            Error::Postgres(error) => error.fmt(f),
            Error::Ended(end) => end.fmt(f),
            Error::Lock(error) => write!(f, "jobs.lock: {error}"),
            Error::Unreadable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
