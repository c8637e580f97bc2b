//! The deadlines of the system's clock: a timer wheel in several parts, and the one thread that turns it.
//!
//! Arming and disarming is a matter of four pointers under a lock that few threads share, however many deadlines are
//! outstanding. The wheel is hierarchical: a level of 64 slots for each factor of 64 in the distance. A deadline is
//! entered at the level of its distance and moved down as its time comes near, at most six times. A tick is 2^16 ns;
//! a deadline rings within the tick after it, and never before.
//!
//! # Invariants
//!
//! 1. An entry is in the wheel only while whoever armed it has it: a node that is not condemned, or a bell that is not
//!    dropped. It is taken out under the part's lock; so whatever is found under that lock is alive.
//! 2. A part's lock is innermost. The thread that turns the wheel takes the lock of a node under it only by trying: if
//!    somebody has it, the entry is put back for the next tick.
//! 3. The thread holds nothing while it tells: each node is pinned, each bell shared, and the part's lock given back.
//! 4. The thread announces until when it will sleep before it looks, so that an entry made behind its back with an
//!    earlier time is seen by it or wakes it.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::bell::Bell;
use super::layout::Ptr;
use super::link::thread_number;
use super::release;
use super::stamp::Stamp;
use super::state::{ARMED, PIN, pins_are_used_up};
use super::tell::guarded;
use super::walk;
use crate::sync::relax;

/// A place in the wheel: part of a node, or of a bell.
#[repr(C)]
pub(super) struct Entry {
    /// When it rings. Never changes.
    at: Stamp,
    /// Neighbours in the slot; guarded by the part's lock.
    next: AtomicPtr<Entry>,
    prev: AtomicPtr<Entry>,
    /// Part, level and slot, if it is in the wheel. Level and slot are guarded by the part's lock.
    place: AtomicU32,
    owner: Owner,
}

#[derive(Clone, Copy)]
#[repr(u32)]
enum Owner {
    Node,
    Bell,
}

impl Entry {
    pub(super) fn of_node(at: Stamp) -> Entry {
        Entry::new(at, Owner::Node)
    }

    pub(super) fn of_bell(at: Stamp) -> Entry {
        Entry::new(at, Owner::Bell)
    }

    fn new(at: Stamp, owner: Owner) -> Entry {
        Entry {
            at,
            next: AtomicPtr::new(ptr::null_mut()),
            prev: AtomicPtr::new(ptr::null_mut()),
            place: AtomicU32::new(OUT),
            owner,
        }
    }
}

/// Nanoseconds in a tick, as a power of two.
const TICK_SHIFT: u32 = 16;
const LEVELS: usize = 7;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// The farthest that the wheel looks ahead, in ticks: four and a half years. What lies beyond is looked at again then.
const HORIZON: u64 = 1 << (SLOT_BITS * LEVELS as u32 - 1);
/// Threads are spread over so many parts.
const PARTS: usize = 8;
/// How many entries are taken out, or moved down, under one hold of a part's lock.
const BATCH: usize = 128;

/// Not in the wheel.
const OUT: u32 = u32::MAX;

struct Part {
    /// The ticks that have been dealt with.
    elapsed: u64,
    entries: usize,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    slots: [[*mut Entry; SLOTS]; LEVELS],
}

// SAFETY: the entries behind the pointers are shared under the part's lock alone (invariant 1).
unsafe impl Send for Part {}

static WHEEL: [Guarded; PARTS] = [const { Guarded::new() }; PARTS];

/// A part and its lock, on cache lines of its own. The lock is like a node's: taken by one exchange, given back by one
/// store.
#[repr(align(128))]
struct Guarded {
    taken: AtomicBool,
    part: UnsafeCell<Part>,
}

// SAFETY: the part is used under the lock alone, and can be sent.
unsafe impl Sync for Guarded {}

/// The lock of a part.
struct PartLock<'w>(&'w Guarded);

impl Guarded {
    const fn new() -> Guarded {
        Guarded {
            taken: AtomicBool::new(false),
            part: UnsafeCell::new(Part::new()),
        }
    }

    #[inline]
    fn lock(&self) -> PartLock<'_> {
        // Acquire: pairs with the Release store in `PartLock::drop`.
        for tries in 0.. {
            let exchange = self
                .taken
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
            if exchange.is_ok() {
                break;
            }
            relax(tries);
        }
        PartLock(self)
    }
}

impl Deref for PartLock<'_> {
    type Target = Part;

    fn deref(&self) -> &Part {
        // SAFETY: the lock is held.
        unsafe { &*self.0.part.get() }
    }
}

impl DerefMut for PartLock<'_> {
    fn deref_mut(&mut self) -> &mut Part {
        // SAFETY: the lock is held, and `self` is borrowed.
        unsafe { &mut *self.0.part.get() }
    }
}

impl Drop for PartLock<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the exchange in `lock`.
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Until when the thread will sleep, in nanoseconds; all of it while it looks (invariant 4).
static ASLEEP_UNTIL: AtomicI64 = AtomicI64::new(i64::MAX);
/// The earliest that the thread was woken for, until that has passed. It sleeps no longer than that even if the entry is
/// gone, so that entries which come and go as fast as the thread can look do not wake it each time.
static ANNOUNCED: AtomicI64 = AtomicI64::new(i64::MAX);
static THREAD: OnceLock<Thread> = OnceLock::new();

/// Starts the thread, before any lock is taken.
///
/// # Panics
///
/// If the system refuses a thread.
#[inline]
pub(super) fn start() {
    if THREAD.get().is_none() {
        start_thread();
    }
}

#[cold]
fn start_thread() {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if THREAD.get().is_some() {
        return;
    }
    // The next deadline shall try again if this fails, so nothing is kept.
    let thread = thread::Builder::new().name("bequest-timer".into()).spawn(turn);
    match thread {
        Ok(handle) => drop(THREAD.set(handle.thread().clone())),
        Err(refusal) => panic!("the system refused a thread for deadlines: {refusal}"),
    }
}

/// An entry was made; to be announced when the caller has let go of its locks.
#[must_use]
pub(super) struct Ring(Stamp);

impl Ring {
    /// Wakes the thread if it would sleep beyond the new entry.
    #[inline]
    pub(super) fn announce(self) {
        // Acquire: pairs with the stores in `turn`. The part's lock, taken since by this thread, orders this load after
        // the store that the thread made before it looked into that part.
        if self.0.nanos() < ASLEEP_UNTIL.load(Ordering::Acquire) {
            wake(self.0.nanos());
        }
    }
}

#[cold]
fn wake(at: i64) {
    // Relaxed: a hint, which only ever makes the thread look once more.
    ANNOUNCED.fetch_min(at, Ordering::Relaxed);
    if let Some(thread) = THREAD.get() {
        thread.unpark();
    }
}

/// Enters `entry`.
///
/// # Safety
///
/// It is in no wheel, and [`remove`] is called before it is freed.
#[inline]
pub(super) unsafe fn insert(entry: NonNull<Entry>) -> Ring {
    let number = thread_number() % PARTS;
    // SAFETY: as the caller promises.
    let at = unsafe { entry.as_ref() }.at;
    let mut part = lock(number);
    part.entries += 1;
    // SAFETY: under the part's lock.
    unsafe { part.enter(entry, number) };
    Ring(at)
}

/// Takes `entry` out, if it is in. Afterwards the thread does not know it.
///
/// # Safety
///
/// It has been entered by [`insert`].
#[inline]
pub(super) unsafe fn remove(entry: NonNull<Entry>) {
    // SAFETY: as the caller promises.
    let place = unsafe { entry.as_ref() }.place.load(Ordering::Relaxed);
    // The part never changes; an entry that has rung keeps it as well, so that this waits for a ring in progress.
    let number = Place::of(place).part;
    let mut part = lock(number);
    // SAFETY: under the part's lock.
    unsafe {
        if entry.as_ref().place.load(Ordering::Relaxed) & RUNG == 0 {
            part.entries -= 1;
            part.leave(entry);
        }
    }
}

/// How many deadlines are armed on the system's clock.
pub(crate) fn armed() -> usize {
    (0..PARTS).map(|number| lock(number).entries).sum()
}

#[inline]
fn lock(number: usize) -> PartLock<'static> {
    WHEEL[number].lock()
}

/// Set in the place of an entry that has rung.
const RUNG: u32 = 1 << 31;

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    part: usize,
    level: usize,
    slot: usize,
}

impl Place {
    fn of(word: u32) -> Place {
        Place {
            part: (word >> 16 & 0xff) as usize,
            level: (word >> 8 & 0xff) as usize,
            slot: (word & 0xff) as usize,
        }
    }

    fn word(self) -> u32 {
        (self.part as u32) << 16 | (self.level as u32) << 8 | self.slot as u32
    }
}

impl Part {
    const fn new() -> Part {
        Part {
            elapsed: 0,
            entries: 0,
            occupied: [0; LEVELS],
            slots: [[ptr::null_mut(); SLOTS]; LEVELS],
        }
    }

    /// # Safety
    ///
    /// `entry` is valid and in no slot.
    #[inline]
    unsafe fn enter(&mut self, entry: NonNull<Entry>, part: usize) {
        // SAFETY: as the caller promises.
        let this = unsafe { entry.as_ref() };
        let tick = due(this.at).clamp(self.elapsed + 1, self.elapsed + HORIZON);
        let (level, slot) = self.slot_of(tick);
        let first = &mut self.slots[level][slot];
        this.prev.store(ptr::null_mut(), Ordering::Relaxed);
        this.next.store(*first, Ordering::Relaxed);
        // SAFETY: what is in a slot is alive (invariant 1).
        if let Some(head) = unsafe { first.as_ref() } {
            head.prev.store(entry.as_ptr(), Ordering::Relaxed);
        }
        *first = entry.as_ptr();
        self.occupied[level] |= 1 << slot;
        this.place
            .store(Place { part, level, slot }.word(), Ordering::Relaxed);
    }

    /// # Safety
    ///
    /// `entry` is in this part.
    #[inline]
    unsafe fn leave(&mut self, entry: NonNull<Entry>) {
        // SAFETY: it and its neighbours are alive (invariant 1).
        unsafe {
            let this = entry.as_ref();
            let Place { level, slot, .. } = Place::of(this.place.load(Ordering::Relaxed));
            let (next, prev) = (
                this.next.load(Ordering::Relaxed),
                this.prev.load(Ordering::Relaxed),
            );
            if let Some(next) = next.as_ref() {
                next.prev.store(prev, Ordering::Relaxed);
            }
            match prev.as_ref() {
                Some(prev) => prev.next.store(next, Ordering::Relaxed),
                None => self.slots[level][slot] = next,
            }
            if self.slots[level][slot].is_null() {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }

    /// The slot of a tick that lies ahead: at the level of the highest group of bits in which it differs.
    fn slot_of(&self, tick: u64) -> (usize, usize) {
        let differing = (tick ^ self.elapsed) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
        let level = level.min(LEVELS - 1);
        (level, (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS)
    }

    /// The next slot that is not empty, and the tick at which it is to be looked at.
    fn next(&self) -> Option<(usize, usize, u64)> {
        let level = (0..LEVELS).find(|level| self.occupied[*level] != 0)?;
        let shift = level as u32 * SLOT_BITS;
        let now = (self.elapsed >> shift) as usize % SLOTS;
        let ahead = self.occupied[level].rotate_right(now as u32).trailing_zeros() as usize;
        let slot = (now + ahead) % SLOTS;
        let begin = (self.elapsed >> (shift + SLOT_BITS)) << (shift + SLOT_BITS);
        let mut tick = begin + ((slot as u64) << shift);
        if slot < now {
            // Only at the last level: once round.
            tick += (SLOTS as u64) << shift;
        }
        Some((level, slot, tick.max(self.elapsed)))
    }

    /// Takes out what is due at `now`, at most a batch of work; whether there may be more.
    fn advance(&mut self, now: u64, number: usize, due_now: &mut Vec<Due>) -> bool {
        let mut work = 0;
        while let Some((level, slot, tick)) = self.next() {
            if tick > now {
                break;
            }
            self.elapsed = tick;
            while let Some(entry) = NonNull::new(self.slots[level][slot]) {
                if work == BATCH {
                    return true;
                }
                work += 1;
                // SAFETY: in this part, under its lock.
                unsafe {
                    self.leave(entry);
                    if due(entry.as_ref().at) > tick || !self.ring(entry, due_now) {
                        // Not yet, or somebody is at work on the node: a level further down, or the next tick.
                        self.enter(entry, number);
                    }
                }
            }
        }
        self.elapsed = self.elapsed.max(now);
        false
    }

    /// Takes hold of the owner of a due entry, which leaves the wheel; `false` if that is not to be had now.
    ///
    /// # Safety
    ///
    /// Under the part's lock; the entry is this part's.
    unsafe fn ring(&mut self, entry: NonNull<Entry>, due_now: &mut Vec<Due>) -> bool {
        // SAFETY: alive (invariant 1).
        let this = unsafe { entry.as_ref() };
        match this.owner {
            // SAFETY: as above, and the lock is held.
            Owner::Bell => due_now.push(Due::Bell(unsafe { Bell::of_entry(entry) })),
            Owner::Node => {
                // SAFETY: as above; the pin will hold it.
                let node = unsafe { Ptr::of_entry(entry) };
                // Only a try: others take this part's lock under a node's (invariant 2).
                let Some(mut own) = node.state.try_lock() else {
                    return false;
                };
                if pins_are_used_up(own.bits) {
                    return false;
                }
                own.bits = (own.bits & !ARMED) + PIN;
                due_now.push(Due::Node(node));
            }
        }
        this.place.fetch_or(RUNG, Ordering::Relaxed);
        self.entries -= 1;
        true
    }
}

/// The first tick that is not before `at`.
fn due(at: Stamp) -> u64 {
    let nanos = u64::try_from(at.nanos()).unwrap_or(0);
    nanos.saturating_add((1 << TICK_SHIFT) - 1) >> TICK_SHIFT
}

/// Somebody whose time has come, held.
enum Due {
    Node(Ptr),
    Bell(Arc<Bell>),
}

impl Due {
    fn tell(self) {
        match self {
            Due::Bell(bell) => bell.ring(),
            Due::Node(node) => {
                walk::pass(node);
                if walk::unpin(node) {
                    // SAFETY: `unpin` made it ours.
                    unsafe { release::free(node) };
                }
            }
        }
    }
}

/// The thread of the system's clock.
fn turn() {
    loop {
        // Release: pairs with the load in `announce`. Before any part is looked into (invariant 4).
        ASLEEP_UNTIL.store(i64::MAX, Ordering::Release);
        let mut next = u64::MAX;
        for number in 0..PARTS {
            next = next.min(turn_part(number));
        }
        let until = i64::try_from(u128::from(next) << TICK_SHIFT).unwrap_or(i64::MAX);
        let announced = ANNOUNCED.load(Ordering::Relaxed);
        if announced <= Stamp::now().nanos() {
            ANNOUNCED.store(i64::MAX, Ordering::Relaxed);
        }
        let until = until.min(announced);
        ASLEEP_UNTIL.store(until, Ordering::Release);
        sleep_until(until);
    }
}

/// Tells all of one part that are due; the tick at which it is to be looked at next.
fn turn_part(number: usize) -> u64 {
    let mut due_now = Vec::new();
    loop {
        let now = u64::try_from(Stamp::now().nanos()).unwrap_or(0) >> TICK_SHIFT;
        let mut part = lock(number);
        let more = part.advance(now, number, &mut due_now);
        let next = part.next().map_or(u64::MAX, |(_, _, tick)| tick);
        drop(part);
        for due in due_now.drain(..) {
            // It may be the last that holds a cause: a panic in that destructor must not end the thread.
            guarded(|| due.tell());
        }
        if !more {
            return next;
        }
    }
}

fn sleep_until(until: i64) {
    if until == i64::MAX {
        return thread::park();
    }
    let left = until.saturating_sub(Stamp::now().nanos());
    if left > 0 {
        thread::park_timeout(Duration::from_nanos(left.unsigned_abs()));
    }
}
