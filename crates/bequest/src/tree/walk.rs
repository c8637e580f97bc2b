//! Ending: the walk that marks a node and everything below it, and then tells those who wait.
//!
//! The walk goes depth first, without a stack: down by the lists, up by the parents. One node at a time is pinned, the
//! one it stands on, and on the way down those above it, so that none is freed under its feet. It holds a list's lock
//! for at most [`BATCH`] children, and under it the lock of one child; then it lets go and goes on behind the child at
//! which it stopped, which it pinned.
//!
//! Nothing is taken out of a list. So a second walk that starts further down, or meets what the first has not finished,
//! goes over the same lists and marks what it finds unmarked; it waits for nobody. A node whose lists have been walked
//! to their end is `SETTLED`, and later walks leave it aside.

use std::sync::Arc;
use std::time::Instant;

use super::end::{self, Raw, Shares};
use super::layout::Ptr;
use super::link::{self, List, lists};
use super::node::{self, disarm, has_come};
use super::release;
use super::stamp::Stamp;
use super::state::{
    self, ARMED, BEGAN, DONE, DYING, KEPT, LISTED, Locked, ORPHAN, OWNS, PIN, SETTLED, UNARMED, is_pinned,
    pins_are_used_up,
};
use super::tell::{Run, Tell};
use super::timer::Timers;
use super::{Blame, NodeRef, record};
use crate::canceled::{Canceled, End, Kind, ScopeId};
use crate::inspect;
use crate::reason::Reason;
use crate::sync::atomic::Ordering;
use crate::sync::relax;

/// What ends a node.
pub(super) enum Event {
    Canceled(Blame),
    /// The own deadline has passed.
    Deadline,
}

/// How many children are marked under one hold of a list's lock.
#[cfg(not(loom))]
const BATCH: usize = 256;
#[cfg(loom)]
const BATCH: usize = 1;

/// The node's own deadline has passed.
pub(super) fn pass(ptr: Ptr) {
    let run = if ptr.timers().is_none() {
        Run::Beside
    } else {
        Run::Here
    };
    end_with(ptr, &Event::Deadline, run);
}

/// Ends the ancestor whose deadline this node has inherited, if that has passed and its timer is late (invariant 9).
pub(super) fn end_what_has_passed(ptr: Ptr) {
    let at = ptr.deadline();
    let bits = ptr.state.load();
    if at == Stamp::NEVER || bits & (OWNS | DONE) != 0 || !has_come(ptr, at) {
        return;
    }
    // Ancestors are held by what is below them, in the end by the caller's handle.
    let mut above = node::parents(ptr);
    while let Some(node) = above.pop() {
        if node.deadline() != at {
            continue;
        }
        if node.state.load() & OWNS == 0 {
            above.extend(node::parents(node));
        } else if has_come(node, at) {
            // Asked of its own clock: a merged context may have parents with another.
            return pass(node);
        }
    }
}

/// Ends `ptr`, which the caller holds, and everything below it.
pub(super) fn end_with(ptr: Ptr, event: &Event, run: Run) {
    // Acquire, in `load`: pairs with the store that settled the node; everything below reads as done then.
    let bits = ptr.state.load();
    let is_leaf = ptr.kids.load(Ordering::Relaxed).is_null();
    if bits & SETTLED != 0 || bits & DONE != 0 && is_leaf {
        return;
    }
    let mut walk = Walk::new(ptr);
    let mut own = ptr.state.lock();
    walk.mark(ptr, &mut own, Why::Event(event));
    let has_below = !own.has(SETTLED) && !ptr.kids.load(Ordering::Relaxed).is_null();
    drop(own);
    if has_below {
        walk.below(ptr);
    }
    walk.finish(run);
}

/// Why a node is marked.
enum Why<'e> {
    Event(&'e Event),
    /// A parent ended, with this end.
    Inherited(Raw),
}

struct Walk {
    /// Read before the first lock is taken (invariant 6).
    now: Instant,
    /// The clock that was read; `None` for the system's. A merged context may have parents with another clock.
    timers: Option<Arc<Timers>>,
    shares: Shares,
    tell: Tell,
    /// Listed nodes at which an end began.
    began: Vec<(ScopeId, Canceled)>,
    /// Merged nodes, marked and pinned, below which nobody has looked yet.
    merged: Vec<Ptr>,
    /// Nodes that this walk was the last to hold.
    dying: Vec<Ptr>,
}

/// Where a look into a list has led.
enum Step {
    /// To a child, pinned, below which there is something to mark.
    Down(Ptr),
    /// To the end of the batch: the child, pinned, behind which to go on.
    Rest(Ptr),
    /// To the end of the list.
    End,
    /// A pin could not be had: from the list's beginning again.
    Again,
}

impl Walk {
    fn new(ptr: Ptr) -> Walk {
        let timers = ptr.timers().cloned();
        Walk {
            now: timers
                .as_ref()
                .map_or_else(Instant::now, |timers| timers.clock().now()),
            timers,
            shares: Shares::default(),
            tell: Tell::default(),
            began: Vec::new(),
            merged: Vec::new(),
            dying: Vec::new(),
        }
    }

    /// Marks everything below `top`, which is marked and held by the caller.
    fn below(&mut self, top: Ptr) {
        let (mut node, mut list, mut behind) = (top, 0, None);
        loop {
            match self.step(node, list, behind) {
                Step::Down(child) => (node, list, behind) = (child, 0, None),
                Step::Rest(child) => behind = Some(child),
                Step::Again => behind = None,
                Step::End if list + 1 < lists(node.state.load()) => (list, behind) = (list + 1, None),
                Step::End => {
                    if node.state.load() & SETTLED == 0 {
                        node.state.lock().bits |= SETTLED;
                    }
                    if node == top {
                        return;
                    }
                    let Some(parent) = node.parent else {
                        unreachable!("what was reached by a list has a parent")
                    };
                    list = match lists(parent.state.load()) {
                        1 => 0,
                        _ => state::shard(node.state.load()),
                    };
                    (node, behind) = (parent, Some(node));
                }
            }
        }
    }

    /// Marks what is in one list of `node`, behind the pinned child `behind`, until there is something below a child or
    /// the batch is full.
    fn step(&mut self, node: Ptr, list: usize, behind: Option<Ptr>) -> Step {
        let end = end::of(node);
        let mut list = List::lock(&node, list);
        let mut next = match behind {
            None => list.head(),
            Some(child) => {
                let next = list.after(child);
                self.unpin(child);
                next
            }
        };
        for done in 1.. {
            let Some(child) = next else {
                list.settle_if_only();
                return Step::End;
            };
            next = list.after(child);
            if let Some(target) = child.tether_target() {
                if !self.mark_merged(target, end) {
                    return Step::Again;
                }
                continue;
            }
            let mut own = child.state.lock();
            if own.has(DYING) {
                continue;
            }
            self.mark(child, &mut own, Why::Inherited(end));
            let has_below = !own.has(SETTLED) && !child.kids.load(Ordering::Relaxed).is_null();
            let is_rest = done >= BATCH && next.is_some();
            if has_below || is_rest {
                if pins_are_used_up(own.bits) {
                    drop((own, list));
                    relax(u32::MAX);
                    return Step::Again;
                }
                own.bits += PIN;
                return if has_below {
                    Step::Down(child)
                } else {
                    Step::Rest(child)
                };
            }
        }
        unreachable!("a list has an end")
    }

    /// Marks one node under its lock, if it is live.
    #[inline]
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
        if own.has(LISTED) && own.has(BEGAN) {
            self.began.push((end.scope(), end.canceled()));
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
    fn mark_merged(&mut self, node: Ptr, end: Raw) -> bool {
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
        let has_passed = own.has(OWNS) && self.reads_clock_of(ptr) && ptr.deadline() <= Stamp::of(self.now);
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
    fn own_end(&self, ptr: Ptr, blame: Option<&Blame>) -> Raw {
        // SAFETY: the caller has the lock.
        let details = unsafe { ptr.details() };
        let id = details.as_ref().map_or(0, |details| details.id);
        let name = details.as_ref().and_then(|details| details.name);
        let (scope, at) = (ScopeId::known_or_next(id), Some(self.now));
        Raw::own(Canceled::new(match blame {
            None => End {
                kind: Kind::DeadlineExceeded,
                reason: details
                    .as_ref()
                    .map_or(Reason::Deadline, |details| details.reason),
                cause: details.and_then(|details| details.cause.clone()),
                origin: ptr.made_at(),
                was_called: false,
                scope,
                name,
                at,
            },
            Some(blame) => End {
                kind: if blame.reason.is_timeout() {
                    Kind::DeadlineExceeded
                } else {
                    Kind::Canceled
                },
                reason: blame.reason,
                cause: blame.cause.clone(),
                origin: blame.origin,
                was_called: blame.reason != Reason::ScopeEnded,
                scope,
                name,
                at,
            },
        }))
    }

    fn reads_clock_of(&self, ptr: Ptr) -> bool {
        match (&self.timers, ptr.timers()) {
            (None, None) => true,
            (Some(read), Some(own)) => Arc::ptr_eq(read, own),
            _ => false,
        }
    }

    /// Lets go of a pinned node. If that was the last hold on it, it is freed at the end.
    fn unpin(&mut self, ptr: Ptr) {
        if unpin(ptr) {
            self.dying.push(ptr);
        }
    }

    /// Goes below merged nodes, and then tells everybody, outside every lock.
    fn finish(mut self, run: Run) {
        while let Some(node) = self.merged.pop() {
            self.below(node);
            self.unpin(node);
        }
        for (scope, end) in self.began.drain(..) {
            inspect::ended(scope, end);
        }
        // Destructors are foreign, and a panic in one must not keep the news from anybody: they come last.
        let _later = (self.shares, Dying(self.dying));
        self.tell.run(run);
    }
}

/// Nodes to be freed when everybody has been told.
struct Dying(Vec<Ptr>);

impl Drop for Dying {
    fn drop(&mut self) {
        for node in self.0.drain(..) {
            // SAFETY: `unpin` made each of them this walk's alone.
            unsafe { release::free(node) };
        }
    }
}

/// Lets go of a pinned node; whether that was the last hold on it, so that the caller is to free it.
pub(super) fn unpin(ptr: Ptr) -> bool {
    let mut own = ptr.state.lock();
    own.bits -= PIN;
    let is_last = own.has(ORPHAN) && !is_pinned(own.bits) && !link::has_children(ptr, &own);
    if is_last {
        release::condemn(ptr, &mut own);
    }
    is_last
}
