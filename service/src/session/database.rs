//! The session database: the truth about which sessions stand.
//!
//! Here is what any database has to offer; [`sqlite`](super::sqlite) is the one built in, [`postgres`](super::postgres) the
//! one for several nodes. Each call takes the context
//! first and stops with it.
//!
//! # Invariants, which every implementation keeps
//!
//! 1. A session that was ended never stands again: `revoke` raises its generation, and nothing lowers it.
//! 2. `touch` writes `last_seen` and nothing else, forwards only, and not to a session that was ended.
//! 3. `begin` is one transaction: the new session stands and the old one is ended, or neither.

use std::error::Error;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bequest::Context;

use super::budget::StepError;
use super::cache::CacheMark;
use super::record::{Ended, Record};
use crate::domain::session::SessionHash;

/// What a store answers: a future that stops with its context.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StepError>> + Send + 'a>>;

/// A database of sessions.
pub(crate) trait SessionDatabase: Debug + Send + Sync {
    /// The session under `id`, if it stands: it was begun and not ended. Whether it has expired is the caller's to say.
    fn find<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Record>>;

    /// Begins a session and ends the one that it takes the place of, if that one stands.
    fn begin<'a>(
        &'a self,
        ctx: &'a Context,
        new: Record,
        old: Option<SessionHash>,
    ) -> Answer<'a, Option<Ended>>;

    /// Ends a session. Ending an ended one changes nothing and answers the same. `None`: there is none.
    fn revoke<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Option<Ended>>;

    /// Ends all sessions of a user; those that this call has ended.
    fn revoke_all<'a>(&'a self, ctx: &'a Context, user: &'a str) -> Answer<'a, Vec<Ended>>;

    /// The sessions of a user that stand, the last begun first, at most `most`.
    fn list<'a>(&'a self, ctx: &'a Context, user: &'a str, most: u32) -> Answer<'a, Vec<Record>>;

    /// Notes that a session was used at `now`, if the last note is older than `rest`. Whether it was noted.
    fn touch<'a>(
        &'a self,
        ctx: &'a Context,
        id: SessionHash,
        now: SystemTime,
        rest: Duration,
    ) -> Answer<'a, bool>;

    /// Says that this node uses the database, alone or together with others, until what it answers is dropped.
    ///
    /// # Errors
    ///
    /// Another node uses it, and the two share no cache: what is ended on one would live on in the other.
    fn claim<'a>(&'a self, ctx: &'a Context, how: Claim) -> Answer<'a, Box<dyn Claimed>>;
}

/// How a node uses the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Its cache is its own, so nobody else may end sessions.
    Alone,
    /// Its cache is shared with whoever else claims it with the same mark.
    Shared(Option<CacheMark>),
}

/// A claim, held until it is dropped or its process ends, however that ends.
pub(crate) trait Claimed: Debug + Send + Sync {
    /// Whether somebody else has taken it meanwhile: then the cache is not to be believed.
    fn is_lost(&self) -> bool {
        false
    }
}

/// Why a claim is refused.
pub(super) const TAKEN: &str =
    "another node uses it, and without a shared cache what is ended there would live on here";

/// The same, of a node that has a shared cache as well, but not this one.
#[derive(Debug)]
pub(crate) struct Elsewhere;

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "another node uses it with another cache, and without a shared one what is ended there would live on here",
        )
    }
}

impl Error for Elsewhere {}
