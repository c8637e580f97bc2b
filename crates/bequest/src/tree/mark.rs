//! Marking: what a walk does to one node under its lock, and what it brings home from there.
//!
//! A mark is the end in `tail` and then `DONE`, by which it is published (invariant 2). Under the same lock whoever waits
//! is taken out of the ring (invariant 4), and a deadline disarmed. Whom to tell, what the list of live contexts is to be
//! told, and below which merged nodes nobody has looked yet, is gathered here until the walk has let go of its locks.

use std::sync::Arc;
use std::time::Instant;

use super::end::{Raw, Shares};
use super::layout::Ptr;
use super::node::disarm;
use super::stamp::Stamp;
use super::state::{
    ARMED, BEGAN, DONE, DYING, KEPT, LISTED, Locked, OWNS, PIN, SETTLED, UNARMED, pins_are_used_up,
};
use super::tell::{Run, Tell};
use super::timer::Timers;
use super::walk::Event;
use super::{Blame, NodeRef, record};
use crate::canceled::{Canceled, End, Kind, LazyId, ScopeId};
use crate::inspect;
use crate::sync::atomic::Ordering;

/// What one walk marks with, and what it brings home.
pub(super) struct Marks {
    /// When it is, once that was asked. A clock of the user's is read before the first lock is taken (invariant 6).
    now: Option<Instant>,
    /// The clock that is read; `None` for the system's. A merged context may have parents with another clock.
    timers: Option<Arc<Timers>>,
    shares: Shares,
    tell: Tell,
    /// Where listed nodes are at which an end began. Mostly one: the first needs no memory.
    first_began: Option<(usize, Canceled)>,
    began: Vec<(usize, Canceled)>,
    /// Merged nodes, marked and pinned, below which nobody has looked yet.
    pub(super) merged: Vec<Ptr>,
}

/// Why a node is marked.
enum Why<'e> {
    Event(&'e Event),
    /// A parent ended, with this end.
    Inherited(Raw),
}

impl Marks {
    /// For a walk that begins at `ptr`.
    pub(super) fn new(ptr: Ptr) -> Marks {
        let timers = ptr.timers().cloned();
        Marks {
            now: timers.as_ref().map(|timers| timers.clock().now()),
            timers,
            shares: Shares::default(),
            tell: Tell::default(),
            first_began: None,
            began: Vec::new(),
            merged: Vec::new(),
        }
    }

    /// Marks the node at which the walk begins, under its lock, if it is live.
    pub(super) fn begin(&mut self, ptr: Ptr, own: &mut Locked<'_>, event: &Event) {
        self.mark(ptr, own, Why::Event(event));
    }

    /// Marks one node under its lock with the end of a parent, if it is live.
    #[inline(always)]
    pub(super) fn inherited(&mut self, ptr: Ptr, own: &mut Locked<'_>, end: Raw) {
        if own.has(DONE | OWNS | LISTED) {
            return self.mark(ptr, own, Why::Inherited(end));
        }
        // As in `mark`, of a node that has no deadline of its own.
        let waiting = ptr.tail.load(Ordering::Relaxed);
        let end = self.shares.one_of(end);
        ptr.tail.store(end.word(), Ordering::Release);
        if !waiting.is_null() {
            self.take_waiting(ptr, own, waiting, end);
        }
        own.bits |= DONE;
    }

    /// Marks one node under its lock, if it is live.
    fn mark(&mut self, ptr: Ptr, own: &mut Locked<'_>, why: Why<'_>) {
        if own.has(DONE) {
            return;
        }
        let end = self.end_by(ptr, own, why);
        if own.has(ARMED) {
            disarm(ptr, own);
        }
        let waiting = ptr.tail.load(Ordering::Relaxed);
        // Release: pairs with the Acquire load in `end::seen`; the mark itself is published by the lock's store.
        ptr.tail.store(end.word(), Ordering::Release);
        if !waiting.is_null() {
            self.take_waiting(ptr, own, waiting, end);
        }
        own.bits = own.bits & !UNARMED | DONE;
    }

    #[cold]
    fn take_waiting(&mut self, ptr: Ptr, own: &mut Locked<'_>, first: *mut (), end: Raw) {
        let keeper = own.has(KEPT).then(|| NodeRef::own(ptr));
        own.bits &= !KEPT;
        // SAFETY: under the lock, with what the tail was.
        unsafe { record::take_all(first, &end, keeper, &mut self.tell) };
    }

    /// Marks a merged node that is reached by its stand-in, and keeps it for later if there is something below it.
    pub(super) fn merged(&mut self, node: Ptr, end: Raw) -> bool {
        let mut own = node.state.lock();
        if own.has(DYING) {
            return true;
        }
        self.mark(node, &mut own, Why::Inherited(end));
        if own.has(SETTLED) || node.kids.load(Ordering::Relaxed).is_null() || self.merged.contains(&node) {
            return true;
        }
        if pins_are_used_up(own.bits) {
            return false;
        }
        own.bits += PIN;
        self.merged.push(node);
        true
    }

    /// The end that a node is given: its own deadline's, if that has passed (invariant 9).
    #[inline]
    fn end_by(&mut self, ptr: Ptr, own: &mut Locked<'_>, why: Why<'_>) -> Raw {
        let has_passed = own.has(OWNS) && self.reads_clock_of(ptr) && ptr.deadline() <= Stamp::of(self.now());
        match why {
            Why::Inherited(end) if !has_passed => self.shares.one_of(end),
            Why::Event(Event::Canceled(blame)) if !has_passed => {
                own.bits |= BEGAN;
                self.own_end(ptr, Some(blame))
            }
            _ => {
                own.bits |= BEGAN;
                self.own_end(ptr, None)
            }
        }
    }

    /// An end that begins at this node: somebody's blame, or its own deadline.
    fn own_end(&mut self, ptr: Ptr, blame: Option<&Blame>) -> Raw {
        // SAFETY: the caller has the lock.
        let said = unsafe { ptr.said() };
        let name = said.name;
        // The list of ends shows it at once, so there is nothing to put off.
        let is_listed = ptr.state.load() & LISTED != 0;
        let scope = match said.id {
            0 if is_listed => ScopeId::next().into(),
            id => LazyId::of(id),
        };
        let at = Some(self.now());
        let end = match blame {
            None => End {
                kind: Kind::DeadlineExceeded,
                reason: said.reason,
                cause: said.cause.cloned(),
                origin: ptr.made_at(),
                was_called: false,
                scope,
                name,
                at,
            },
            Some(blame) => blame.end(scope, name, at),
        };
        let is_leaf = ptr.kids.load(Ordering::Relaxed).is_null();
        let end = if is_leaf {
            Raw::own(Canceled::with_shares(end, usize::from(is_listed)))
        } else {
            self.shares.begin(end)
        };
        if is_listed {
            let share = if is_leaf { end } else { self.shares.one_of(end) };
            let began = (ptr.place(), share.into_canceled());
            match &mut self.first_began {
                first @ None => *first = Some(began),
                Some(_) => self.began.push(began),
            }
        }
        end
    }

    /// The present instant, the same throughout the walk.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    fn reads_clock_of(&self, ptr: Ptr) -> bool {
        match (&self.timers, ptr.timers()) {
            (None, None) => true,
            (Some(read), Some(own)) => Arc::ptr_eq(read, own),
            _ => false,
        }
    }

    /// Whether nobody has to be told, and nothing is left to be looked at.
    pub(super) fn are_untold(&self) -> bool {
        self.merged.is_empty() && self.first_began.is_none() && self.tell.is_empty()
    }

    /// Tells everybody, outside every lock.
    pub(super) fn tell(mut self, run: Run) {
        if let Some(first) = self.first_began.take() {
            let now = match self.timers {
                None => self.now(),
                Some(_) => Instant::now(),
            };
            for (place, end) in std::iter::once(first).chain(self.began.drain(..)) {
                inspect::ended(place, end, now);
            }
        }
        // A share may be the last that holds a cause, whose destructor may panic: it comes after the news.
        let _later = self.shares;
        self.tell.run(run);
    }
}
