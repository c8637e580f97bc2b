//! The list of live contexts: who is running, with how much time left, and who ended what, and why.
//!
//! It is switched off by default; then making and ending a context costs one relaxed load. Switched on, every scope
//! made from then on is listed until its memory is gone, and the last ends are kept in a ring. Nothing here prints a
//! value, and nothing foreign runs under its lock.
//!
//! ```
//! use bequest::{Context, inspect};
//!
//! inspect::enable();
//! let scope = Context::background().with_cancel().named("import");
//! let rows = inspect::snapshot().live;
//! assert!(rows.iter().any(|row| row.id == scope.id() && row.name == Some("import") && row.end.is_none()));
//! # inspect::disable();
//! ```

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Context;
use crate::canceled::{Canceled, ScopeId};
use crate::tree::{Held, NodeRef, Row, panics, roughly_now, system_armed};

/// How many ends are remembered.
pub const REMEMBERED: usize = 512;

/// Lists every scope that is made from now on.
pub fn enable() {
    ON.store(true, Ordering::Relaxed);
}

/// Stops listing. Scopes that are listed stay so until they are gone.
pub fn disable() {
    ON.store(false, Ordering::Relaxed);
}

/// Whether scopes that are made now are listed.
#[inline]
pub fn is_on() -> bool {
    // Relaxed: a switch; a scope made while it is thrown may fall on either side.
    ON.load(Ordering::Relaxed)
}

/// All listed scopes and the last ends.
///
/// The rows are a picture: what is live may end while they are read. Taking it never ends a context, arms no timer,
/// and calls nothing foreign but the clocks of the contexts.
pub fn snapshot() -> Snapshot {
    let live = listed()
        .iter()
        .map(|(node, born)| Live::of(node, *born))
        .collect();
    let registry = registry();
    let (ended, ends) = (registry.ended.iter().cloned().collect(), registry.ends);
    drop(registry);
    Snapshot { live, ended, ends }
}

/// All that goes by the clock of `ctx`: for contexts under one [`Context::with_clock`], whatever was derived there.
///
/// A clock is kept even where parents are not, by [`cleanup`](Context::cleanup) and
/// [`without_cancel`](Context::without_cancel); so this is what a leak check asks, undisturbed by the rest of the
/// process.
///
/// ```
/// use bequest::{Context, clock::{Alarm, Clock}, inspect};
/// use std::time::{Duration, Instant};
///
/// #[derive(Debug)]
/// struct Frozen(Instant);
/// impl Clock for Frozen {
///     fn now(&self) -> Instant { self.0 }
///     fn wake_at(&self, _at: Instant, _alarm: Alarm) {}
/// }
///
/// inspect::enable();
/// let root = Context::with_clock(Frozen(Instant::now()));
/// let other = Context::background().with_cancel();
/// let tidy = root.cleanup(Duration::from_secs(1));
/// assert!(tidy.check().is_ok(), "a look arms the deadline");
///
/// let seen = inspect::on_clock_of(&root);
/// assert!(seen.live.iter().any(|row| row.id == tidy.id()));
/// assert!(seen.live.iter().all(|row| row.id != other.id()));
/// assert_eq!(seen.armed_deadlines, 1);
/// # inspect::disable();
/// ```
pub fn on_clock_of(ctx: &Context) -> OnClock {
    let timers = ctx.timers();
    let live = listed()
        .iter()
        .filter(|(node, _)| node.goes_by(timers))
        .map(|(node, born)| Live::of(node, *born))
        .collect();
    OnClock {
        live,
        armed_deadlines: timers.map_or_else(system_armed, |timers| timers.armed()),
    }
}

/// Counts over the whole process, whether listing is on or off.
pub fn statistics() -> Statistics {
    let (listed, ended) = {
        let registry = registry();
        (registry.live.len(), registry.ends)
    };
    Statistics {
        listed,
        ended,
        armed_deadlines: system_armed(),
        panicked_callbacks: panics(),
    }
}

/// What [`snapshot`] answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The listed scopes, oldest first.
    pub live: Vec<Live>,
    /// The last ends, oldest first; at most [`REMEMBERED`]. One event is one row, however many scopes it ended.
    pub ended: Vec<Ended>,
    /// How many ends have been seen, those included that are not remembered any more. The last of `ended` is the one of this
    /// number, so whoever looks again knows which ends are new, and how many of them were missed.
    ///
    /// ```
    /// use bequest::{Context, inspect};
    ///
    /// inspect::enable();
    /// let before = inspect::snapshot().ends;
    /// let scope = Context::background().with_cancel();
    /// scope.cancel();
    ///
    /// let now = inspect::snapshot();
    /// let new = (now.ends - before) as usize;
    /// assert!(now.ended.iter().rev().take(new).any(|row| row.id == scope.id()));
    /// # inspect::disable();
    /// ```
    pub ends: u64,
}

/// What [`on_clock_of`] answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OnClock {
    /// The listed scopes that go by the clock, oldest first.
    pub live: Vec<Live>,
    /// Deadlines armed on the clock, those of unlisted scopes and of single awaits included.
    pub armed_deadlines: usize,
}

/// A scope that still has handles or something below it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// The scope's id.
    pub id: ScopeId,
    /// The scopes it ends with. Empty for a root, and for a scope that was made after its parent had ended.
    pub parents: Vec<ScopeId>,
    /// The name it was given.
    pub name: Option<&'static str>,
    /// The source line that made it.
    pub made_at: &'static Location<'static>,
    /// How long ago it was made, to some milliseconds: a tick of the system's clock.
    pub age: Duration,
    /// The time left until its deadline; zero if that has passed.
    pub remaining: Option<Duration>,
    /// Whether the deadline is its own, and not inherited.
    pub owns_deadline: bool,
    /// How it ended, if it has, though something still holds it.
    pub end: Option<Canceled>,
    /// How many handles hold it, those of its children included.
    pub holders: usize,
    /// How many scopes are derived from it directly and have not ended.
    pub children: usize,
    /// How many wait for its end: futures and callbacks.
    pub waiting: usize,
}

/// An end that was seen: which scope, after how long, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The scope at which the end began.
    pub id: ScopeId,
    /// The name it was given.
    pub name: Option<&'static str>,
    /// How, why, by whom.
    pub end: Canceled,
    /// How long it had lived, to some milliseconds.
    pub age: Duration,
    /// When, on the system's clock.
    pub at: Instant,
}

/// Counts over the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Scopes in the list.
    pub listed: usize,
    /// Listed scopes at which an end began.
    pub ended: u64,
    /// Deadlines armed on the system's clock.
    pub armed_deadlines: usize,
    /// Callbacks and wakers that panicked; each was reported by the panic hook.
    pub panicked_callbacks: u64,
}

static ON: AtomicBool = AtomicBool::new(false);
static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    live: HashMap::with_hasher(BuildHasherDefault::new()),
    born: 0,
    ended: VecDeque::new(),
    ends: 0,
});

/// Guarded by its lock. Under it the lock of a node is taken, to hold the node, and no other; nothing foreign runs.
struct Registry {
    /// By the node's place in memory, which it has until it leaves; so a scope that is listed needs no number of its own
    /// until somebody asks for that.
    live: HashMap<usize, Entry, BuildHasherDefault<Spread>>,
    /// How many have been listed.
    born: u64,
    ended: VecDeque<Ended>,
    /// How many listed scopes have ended.
    ends: u64,
}

struct Entry {
    node: Row,
    born: Instant,
    /// Its place in the order of birth.
    number: u64,
}

/// Places in memory are multiples of eight and lie close together; this spreads them.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, place: usize) {
        // The golden ratio, rotated so that both ends of the product count.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ place as u64).wrapping_mul(GOLDEN).rotate_left(32);
    }
}

pub(crate) fn born(node: &NodeRef) {
    let (node, born) = (Row::of(node), roughly_now());
    let mut registry = registry();
    registry.born += 1;
    let number = registry.born;
    registry.live.insert(node.place(), Entry { node, born, number });
}

/// An end began at `at`, on the system's clock, at the listed scope whose node has this place. Told by the walk that
/// marked it, outside every lock.
pub(crate) fn ended(place: usize, end: Canceled, at: Instant) {
    let (name, id) = end.scope();
    let mut registry = registry();
    registry.ends += 1;
    // If its memory is gone meanwhile, it had hardly lived on; neither has who may be in its place.
    let age = registry
        .live
        .get(&place)
        .map_or(Duration::ZERO, |entry| at.saturating_duration_since(entry.born));
    registry.ended.push_back(Ended {
        id,
        name,
        end,
        age,
        at,
    });
    let forgotten = (registry.ended.len() > REMEMBERED).then(|| registry.ended.pop_front());
    drop(registry);
    // Outside the lock: it may hold the last handle to a cause.
    drop(forgotten);
}

/// The node's memory is about to go.
pub(crate) fn gone(place: usize) {
    registry().live.remove(&place);
}

impl Live {
    fn of(node: &Held, born: Instant) -> Live {
        let now = node.now();
        Live {
            id: node.id(),
            parents: node.parents(),
            name: node.name(),
            made_at: node.made_at(),
            age: born.elapsed(),
            remaining: node.deadline().map(|at| at.saturating_duration_since(now)),
            owns_deadline: node.owns_deadline(),
            end: node.known_end(),
            holders: node.holders(),
            children: node.children(),
            waiting: node.waiting(),
        }
    }
}

/// All listed scopes that are alive, held, oldest first. They are to be let go of outside the registry's lock.
fn listed() -> Vec<(Held, Instant)> {
    let mut held: Vec<_> = registry()
        .live
        .values()
        .filter_map(|entry| Some((entry.number, entry.node.hold()?, entry.born)))
        .collect();
    held.sort_unstable_by_key(|(number, ..)| *number);
    held.into_iter().map(|(_, node, born)| (node, born)).collect()
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
