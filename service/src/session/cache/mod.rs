//! The session cache: what reads are answered from.
//!
//! Here is what any cache has to offer; [`memory`] is the one in this process, [`redis`]
//! the one for several nodes. A cache may lose any entry at any time; it
//! may be slow or away; it may be shared by several nodes.
//!
//! # Invariants, which every implementation keeps
//!
//! 1. While a tombstone stands, no fill is kept, and a read finds the tombstone. Leaving one removes the entry in the
//!    same step.
//! 2. A fill never takes the place of a newer generation.
//! 3. A tombstone stands for [`TOMBSTONE`] at least, and is not given up for want of room.
//!
//! Whoever reads the database just before a session is ended may come to fill the cache just after. The tombstone is
//! there to meet them; so it has to outlive the longest way from that read to that fill.

pub(crate) mod memory;
pub(crate) mod redis;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bequest::Context;

use super::database::Answer;
use super::record::{Ended, Record};
use crate::domain::session::SessionHash;

/// How long a tombstone stands. The way that it has to outlive is limited by [`super::sessions::REFILL`].
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(30);

/// A cache of sessions.
pub(crate) trait SessionCache: Debug + Send + Sync {
    /// What is cached under `id`. A session that is found stays for another TTL.
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached>;

    /// The same if it can be told here and now, and `None` if it takes a wait: then there is something to limit.
    fn get_now(&self, _ctx: &Context, _id: SessionHash) -> Option<Cached> {
        None
    }

    /// Caches a session for a TTL, unless a tombstone or a newer generation is in the way.
    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled>;

    /// Leaves a tombstone and removes the session.
    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()>;

    /// Whether other nodes see what this one does to it.
    fn is_shared(&self) -> bool;

    /// By which nodes tell whether they share this cache or another one; made by whoever asks first. `None`: it has none.
    fn mark<'a>(&'a self, _ctx: &'a Context) -> Answer<'a, Option<CacheMark>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Leaves the mark again that this node has found here, should it be gone.
    fn keep_mark<'a>(&'a self, _ctx: &'a Context, _mark: CacheMark) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A number that one cache has and no other, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheMark(pub(crate) i32);

/// What a read finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    Nothing,
    Session(Arc<Record>),
    /// A tombstone: the session was ended just now.
    Ended,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    Kept,
    /// A newer generation is there already.
    Older,
    /// A tombstone stands.
    Ended,
}
