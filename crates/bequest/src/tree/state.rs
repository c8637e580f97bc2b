//! The state word of a node: one `u32` that says all that a check asks for and is the node's lock besides.
//!
//! The lock is a bit. It is taken by one compare-and-swap and given back by one plain store, which works because nobody
//! else writes the word meanwhile: whoever wants to must have the lock. So the holder carries the bits in its hand, in
//! [`Locked`], and puts them back. Sections are short and bounded, and nothing foreign runs in them; a thread that finds
//! the lock taken for longer than a few hundred instructions is waiting for a holder that lost its core, and gives its
//! own away: it yields, then sleeps.

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{EXPLORED, relax};

/// Somebody has the node's lock.
pub(super) const LOCKED: u32 = 1 << 0;
/// The node has ended; its end can be read (invariant 2).
pub(super) const DONE: u32 = 1 << 1;
/// Everything below an ended node has been marked; a walk need not look.
pub(super) const SETTLED: u32 = 1 << 2;
/// It has a deadline of its own that nobody has looked at (invariant 8).
pub(super) const UNARMED: u32 = 1 << 3;
/// Its own deadline is armed.
pub(super) const ARMED: u32 = 1 << 4;
/// No handle is left, but children or pins: whoever takes the last of them away frees the node.
pub(super) const ORPHAN: u32 = 1 << 5;
/// The node is being freed; a walk passes it by.
pub(super) const DYING: u32 = 1 << 6;
/// `kids` is a table of lists, each with a lock of its own.
pub(super) const SHARDED: u32 = 1 << 7;
/// The lists of a sharded node are guarded by its own lock again: it has become an orphan.
pub(super) const CLOSED: u32 = 1 << 8;
/// A detached callback keeps the node: one handle is the node's own.
pub(super) const KEPT: u32 = 1 << 9;
/// The registry of live contexts knows the node.
pub(super) const LISTED: u32 = 1 << 10;
/// Nothing can end the node any more; a callback must not keep it.
pub(super) const ENDLESS: u32 = 1 << 11;
/// A root: nobody has the right to end it.
pub(super) const ROOT: u32 = 1 << 12;
/// The deadline is the node's own, and earlier than its parents'.
pub(super) const OWNS: u32 = 1 << 13;
/// The node's end began here and not further out.
pub(super) const BEGAN: u32 = 1 << 14;

/// The three bits of the [`Kind`]. A deadline follows the node.
pub(super) const HAS_AT: u32 = 1 << 15;
/// A place in the wheel follows the deadline.
pub(super) const HAS_ENTRY: u32 = 1 << 16;
/// It is a [`Full`](Kind::Full) node or a tether, which the short ways leave to the long ones.
pub(super) const RARE: u32 = 1 << 17;
const KIND_MASK: u32 = HAS_AT | HAS_ENTRY | RARE;
const SHARD_SHIFT: u32 = 18;
const SHARD_MASK: u32 = 0b1111 << SHARD_SHIFT;
/// The lowest bit of a count of lock attempts that met another thread; under exploration the only one.
const CONTENDED: u32 = if EXPLORED { CROWDED } else { 1 << 22 };
/// Its highest bit: after eight, a node's list of children is split.
pub(super) const CROWDED: u32 = 1 << 25;
/// Nobody has the right to cancel the node any more.
pub(super) const GIVEN_UP: u32 = 1 << 26;
const PIN_SHIFT: u32 = 27;
const PIN_MASK: u32 = 0b1_1111 << PIN_SHIFT;

/// What memory follows a node. Part of the state word, since it says how to read the rest; never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    /// Nothing: no deadline.
    Plain = 0,
    /// An inherited deadline.
    Heir = HAS_AT,
    /// A deadline and a place in the wheel.
    Timed = HAS_AT | HAS_ENTRY,
    /// A stand-in, in one parent's list, for a node with several.
    Tether = RARE,
    /// All of it, and a clock, and links to several parents.
    Full = HAS_AT | HAS_ENTRY | RARE,
}

impl Kind {
    pub(super) const fn bits(self) -> u32 {
        self as u32
    }
}

/// Whether the node has a clock's place, links to several parents, and the rest.
#[inline]
pub(super) const fn is_full(bits: u32) -> bool {
    bits & KIND_MASK == KIND_MASK
}

#[inline]
pub(super) const fn kind(bits: u32) -> Kind {
    match bits & KIND_MASK {
        0 => Kind::Plain,
        HAS_AT => Kind::Heir,
        TIMED => Kind::Timed,
        RARE => Kind::Tether,
        _ => Kind::Full,
    }
}

const TIMED: u32 = HAS_AT | HAS_ENTRY;

/// In which list of the pool the memory of a node is kept that is neither full nor a tether.
#[inline]
pub(super) const fn list(bits: u32) -> usize {
    ((bits & TIMED) / HAS_AT) as usize
}

/// In which of its parent's lists the node is entered, if the parent has several.
pub(super) const fn shard(bits: u32) -> usize {
    ((bits & SHARD_MASK) >> SHARD_SHIFT) as usize
}

pub(super) const fn with_shard(bits: u32, shard: usize) -> u32 {
    bits & !SHARD_MASK | (shard as u32) << SHARD_SHIFT
}

/// Whether a walk or the timers' thread has its finger on the node, which must then not be freed.
pub(super) const fn is_pinned(bits: u32) -> bool {
    bits & PIN_MASK != 0
}

pub(super) const fn pins_are_used_up(bits: u32) -> bool {
    bits & PIN_MASK == PIN_MASK
}

pub(super) const PIN: u32 = 1 << PIN_SHIFT;

/// The state word of a node, or the lock of one of its lists.
pub(super) struct Word(AtomicU32);

/// The lock of a [`Word`], with its bits in hand. Given back on drop.
pub(super) struct Locked<'w> {
    word: &'w Word,
    pub(super) bits: u32,
}

impl Word {
    pub(super) fn new(bits: u32) -> Word {
        Word(AtomicU32::new(bits))
    }

    /// The bits as they are. Acquire: pairs with the Release store that gives the lock back, so that whatever was
    /// written under it is there to be read.
    #[inline]
    pub(super) fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn lock(&self) -> Locked<'_> {
        match self.lock_from(self.guess()) {
            Some(locked) => locked,
            None => self.lock_slowly(),
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        self.lock_from(self.guess())
    }

    #[inline]
    #[cfg(not(loom))]
    fn guess(&self) -> u32 {
        // Relaxed: the exchange confirms it.
        self.0.load(Ordering::Relaxed)
    }

    /// By an exchange that cannot succeed, which reads the newest value: guesses that are out of date only make the model
    /// checker go round more often.
    #[cfg(loom)]
    fn guess(&self) -> u32 {
        match self
            .0
            .compare_exchange(u32::MAX, u32::MAX, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(bits) | Err(bits) => bits,
        }
    }

    /// The lock, if nobody has it and the word still is `bits`: so what was read in them holds under the lock as well.
    #[inline]
    pub(super) fn lock_from(&self, bits: u32) -> Option<Locked<'_>> {
        if bits & LOCKED != 0 {
            return None;
        }
        // Acquire: pairs with the Release store in `Locked::drop`.
        self.0
            .compare_exchange(bits, bits | LOCKED, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Locked { word: self, bits })
    }

    #[cold]
    fn lock_slowly(&self) -> Locked<'_> {
        for tries in 0.. {
            relax(tries);
            if let Some(mut locked) = self.try_lock() {
                locked.count_contention();
                return locked;
            }
        }
        unreachable!("there is no last try")
    }

    /// Makes the bits visible to those who wait, without giving the lock back. Under the lock.
    pub(super) fn republish(&self, bits: u32) {
        // Release: as in `Locked::drop`.
        self.0.store(bits | LOCKED, Ordering::Release);
    }

    /// Without the lock, for a node that nobody else can reach any more, or not yet.
    pub(super) fn set(&self, bits: u32) {
        // Relaxed: whoever reaches the node later does so through a lock or a handle that is passed on.
        self.0.store(bits, Ordering::Relaxed);
    }
}

impl Locked<'_> {
    fn count_contention(&mut self) {
        if !self.has(CROWDED) {
            self.bits += CONTENDED;
        }
    }

    pub(super) fn has(&self, bits: u32) -> bool {
        self.bits & bits != 0
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire of `lock_from` and `load`. A plain store: nobody else writes while it is locked.
        self.word.0.store(self.bits, Ordering::Release);
    }
}
