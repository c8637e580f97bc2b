//! The cache in this process: maps in shards, each under a lock of its own, whose entries die by the context's clock.
//!
//! # Invariants
//!
//! 1. Nothing foreign runs under a shard's lock, and no two locks are held at once.
//! 2. An entry whose time has passed is as good as absent, whether or not it has been cleared away.
//! 3. A shard holds at most its share of sessions. Tombstones come on top: there are as many as sessions end within
//!    [`TOMBSTONE`], and each ended session was a write in the database.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bequest::Context;

use super::super::database::Answer;
use super::super::record::{Ended, Record};
use super::{Cached, Filled, SessionCache, TOMBSTONE};
use crate::domain::session::SessionHash;

/// Sessions in this process.
#[derive(Debug)]
pub(crate) struct MemoryCache {
    shards: [Mutex<Shard>; SHARDS],
    ttl: Duration,
    /// The most sessions in one shard.
    most: usize,
}

const SHARDS: usize = 16;
/// A shard with fewer entries than this is not worth clearing.
const FEW: usize = 64;
/// Among how many the first to die is looked for when a full shard has to make room.
const SAMPLE: usize = 8;

/// What a shard's lock guards.
#[derive(Debug)]
struct Shard {
    slots: HashMap<SessionHash, Slot>,
    /// Sessions among the slots, dead ones included.
    sessions: usize,
    /// With this many slots, the dead ones are cleared away.
    clear_at: usize,
}

#[derive(Debug)]
struct Slot {
    until: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Session(Arc<Record>),
    Tombstone,
}

impl MemoryCache {
    /// A cache whose sessions stay for `ttl` after each read, at most about `most` of them.
    pub(crate) fn new(ttl: Duration, most: usize) -> MemoryCache {
        MemoryCache {
            shards: Default::default(),
            ttl,
            most: most.div_ceil(SHARDS).max(1),
        }
    }

    fn get_at(&self, now: Instant, id: SessionHash) -> Cached {
        let mut shard = self.shard(id);
        match shard.slots.get_mut(&id) {
            Some(slot) if slot.until > now => match &slot.what {
                What::Session(record) => {
                    slot.until = after(now, self.ttl);
                    Cached::Session(Arc::clone(record))
                }
                What::Tombstone => Cached::Ended,
            },
            _ => Cached::Nothing,
        }
    }

    fn fill_at(&self, now: Instant, record: Arc<Record>) -> Filled {
        let id = record.session.id;
        let mut shard = self.shard(id);
        if let Some(slot) = shard.slots.get(&id).filter(|slot| slot.until > now) {
            match &slot.what {
                What::Tombstone => return Filled::Ended,
                What::Session(known) if known.generation > record.generation => return Filled::Older,
                What::Session(_) => {}
            }
        }
        shard.make_room(now, self.most);
        shard.put(
            id,
            Slot {
                until: after(now, self.ttl),
                what: What::Session(record),
            },
        );
        Filled::Kept
    }

    fn bury_at(&self, now: Instant, id: SessionHash) {
        let mut shard = self.shard(id);
        shard.clear_if_due(now);
        shard.put(
            id,
            Slot {
                until: after(now, TOMBSTONE),
                what: What::Tombstone,
            },
        );
    }

    fn shard(&self, id: SessionHash) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(id.0[0]) % SHARDS])
    }
}

impl SessionCache for MemoryCache {
    fn get<'a>(&'a self, ctx: &'a Context, id: SessionHash) -> Answer<'a, Cached> {
        // It never waits, so it does not look at its context: that would set a timer at each read, for nothing.
        Box::pin(async move { Ok(self.get_at(ctx.now(), id)) })
    }

    fn get_now(&self, ctx: &Context, id: SessionHash) -> Option<Cached> {
        Some(self.get_at(ctx.now(), id))
    }

    fn fill<'a>(&'a self, ctx: &'a Context, record: Arc<Record>) -> Answer<'a, Filled> {
        Box::pin(async move { Ok(self.fill_at(ctx.now(), record)) })
    }

    fn bury<'a>(&'a self, ctx: &'a Context, ended: Ended) -> Answer<'a, ()> {
        Box::pin(async move {
            self.bury_at(ctx.now(), ended.id);
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        false
    }
}

impl Shard {
    /// Puts a slot in place of what was there.
    fn put(&mut self, id: SessionHash, slot: Slot) {
        self.sessions += usize::from(slot.is_session());
        let old = match self.slots.entry(id) {
            Entry::Occupied(mut place) => Some(place.insert(slot)),
            Entry::Vacant(place) => {
                place.insert(slot);
                None
            }
        };
        self.sessions -= usize::from(old.is_some_and(|old| old.is_session()));
    }

    /// Sees to it that one more session fits.
    fn make_room(&mut self, now: Instant, most: usize) {
        self.clear_if_due(now);
        if self.sessions >= most {
            self.clear(now);
        }
        if self.sessions >= most {
            let sessions = self.slots.iter().filter(|(_, slot)| slot.is_session());
            let first = sessions.take(SAMPLE).min_by_key(|(_, slot)| slot.until);
            if let Some(id) = first.map(|(&id, _)| id) {
                self.slots.remove(&id);
                self.sessions -= 1;
            }
        }
    }

    /// Clears when there are twice as many slots as the last clearing left, so that the work is shared out.
    fn clear_if_due(&mut self, now: Instant) {
        if self.slots.len() >= self.clear_at {
            self.clear(now);
            self.clear_at = FEW.max(2 * self.slots.len());
        }
    }

    fn clear(&mut self, now: Instant) {
        self.slots.retain(|_, slot| slot.until > now);
        self.sessions = self.slots.values().filter(|slot| slot.is_session()).count();
    }
}

impl Slot {
    fn is_session(&self) -> bool {
        matches!(self.what, What::Session(_))
    }
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            slots: HashMap::new(),
            sessions: 0,
            clear_at: FEW,
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Invariant 1: a panic cannot have come from within.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instant that cannot be told is one that never comes; a day is as good, since entries are confirmed every minute.
fn after(now: Instant, span: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    now + span.min(DAY)
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::record;
    use super::*;
    use std::time::SystemTime;

    const TTL: Duration = Duration::from_secs(10);

    fn slots(cache: &MemoryCache) -> usize {
        cache.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    fn session(id: u8) -> Arc<Record> {
        Arc::new(record(id, SystemTime::UNIX_EPOCH))
    }

    fn hash(id: u8) -> SessionHash {
        SessionHash([id; 32])
    }

    #[test]
    fn a_read_restarts_the_ttl() {
        let (cache, now) = (MemoryCache::new(TTL, 100), Instant::now());
        assert_eq!(cache.fill_at(now, session(1)), Filled::Kept);
        let almost = TTL - Duration::from_millis(1);
        assert_eq!(cache.get_at(now + almost, hash(1)), Cached::Session(session(1)));
        assert_eq!(
            cache.get_at(now + 2 * almost, hash(1)),
            Cached::Session(session(1))
        );
        assert_eq!(cache.get_at(now + 2 * almost + TTL, hash(1)), Cached::Nothing);
    }

    #[test]
    fn a_tombstone_refuses_every_fill_while_it_stands() {
        let (cache, now) = (MemoryCache::new(TTL, 100), Instant::now());
        cache.fill_at(now, session(1));
        cache.bury_at(now, hash(1));
        let last = now + TOMBSTONE - Duration::from_millis(1);
        assert_eq!(cache.fill_at(last, session(1)), Filled::Ended);
        assert_eq!(cache.get_at(last, hash(1)), Cached::Ended);
        assert_eq!(cache.get_at(now + TOMBSTONE, hash(1)), Cached::Nothing);
    }

    #[test]
    fn an_older_generation_takes_no_newer_ones_place() {
        let (cache, now) = (MemoryCache::new(TTL, 100), Instant::now());
        let newer = Arc::new(Record {
            generation: 2,
            ..record(1, SystemTime::UNIX_EPOCH)
        });
        cache.fill_at(now, Arc::clone(&newer));
        assert_eq!(cache.fill_at(now, session(1)), Filled::Older);
        assert_eq!(cache.get_at(now, hash(1)), Cached::Session(newer));
    }

    #[test]
    fn is_bounded_and_tombstones_are_not_given_up() {
        let (cache, now) = (MemoryCache::new(TTL, 2 * SHARDS), Instant::now());
        cache.bury_at(now, hash(0));
        for number in 0..=u16::MAX {
            let mut one = record(0, SystemTime::UNIX_EPOCH);
            let mut session = (*one.session).clone();
            // All in the shard of the tombstone.
            session.id.0[1..3].copy_from_slice(&number.to_be_bytes());
            session.id.0[3] = 1;
            one.session = Arc::new(session);
            cache.fill_at(now, Arc::new(one));
        }
        assert_eq!(slots(&cache), 3);
        assert_eq!(cache.get_at(now, hash(0)), Cached::Ended);
    }

    #[test]
    fn the_dead_are_cleared_away() {
        let (cache, mut now) = (MemoryCache::new(TTL, 1 << 20), Instant::now());
        for number in 0..10_000_u16 {
            let mut id = [0; 32];
            id[1..3].copy_from_slice(&number.to_be_bytes());
            now += Duration::from_secs(1);
            cache.bury_at(now, SessionHash(id));
        }
        assert!(slots(&cache) <= FEW);
    }
}
