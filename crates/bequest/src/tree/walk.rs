//! Ending: the walk that marks a node and everything below it, and then tells those who wait.
//!
//! The walk goes depth first, without a stack: down by the lists, up by the parents, hand over hand. It has the lock of
//! the list in which it is, and under it takes that of one child after the other. To go below a child it keeps the
//! child's lock, which is that of its list, and gives the parent's back. To go up it has to take the parent's first; since
//! that is against the order it only tries, and if somebody has it, pins the node, lets go, and waits. So a node with
//! children takes two exchanges and a leaf one.
//!
//! Where the walk stands, nothing is freed under its feet: a node whose lock it has cannot leave its list, and what has
//! a child in its list stays (invariant 1). Where it has no such lock it has a pin: on a node whose lists are split, for
//! as long as it is below that; and on the child at which it stopped, every [`BATCH`] children, to let others in.
//!
//! Nothing is taken out of a list. So a second walk that starts further down, or meets what the first has not finished,
//! goes over the same lists and marks what it finds unmarked; it waits for nobody. A node whose lists have been walked
//! to their end is `SETTLED`, and later walks leave it aside.

use std::sync::Arc;
use std::time::Instant;

use super::end::{self, Raw, Shares};
use super::layout::Ptr;
use super::link::{self, List, ListLock, is_split, lists};
use super::node::{self, disarm, has_come};
use super::release;
use super::stamp::Stamp;
use super::state::{
    self, ARMED, BEGAN, DONE, DYING, KEPT, LISTED, Locked, ORPHAN, OWNS, PIN, SETTLED, SHARDED, UNARMED,
    is_pinned, pins_are_used_up,
};
use super::tell::{Run, Tell};
use super::timer::Timers;
use super::{Blame, NodeRef, record};
use crate::canceled::{Canceled, End, Kind, LazyId, ScopeId};
use crate::inspect;
use crate::reason::Reason;
use crate::sync::atomic::Ordering;
use crate::sync::{EXPLORED, relax};

/// What ends a node.
pub(super) enum Event {
    Canceled(Blame),
    /// The own deadline has passed.
    Deadline,
}

/// How many children are marked under one hold of a list's lock.
const BATCH: usize = if EXPLORED { 1 } else { 256 };

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
    if link::is_settled(ptr) {
        return;
    }
    let mut walk = Walk::new(ptr);
    let mut own = ptr.state.lock();
    if let Event::Canceled(blame) = event {
        if node::end_unseen_by(ptr, &mut own, blame) {
            return;
        }
    }
    walk.mark(ptr, &mut own, Why::Event(event));
    if has_below(ptr, &own) {
        // A parent reads as done no later than its children.
        ptr.state.republish(own.bits);
        walk.below(ptr, Some(own));
    } else {
        drop(own);
    }
    walk.finish(ptr, run);
}

/// Whether there may be something to mark below a marked node.
#[inline]
fn has_below(ptr: Ptr, own: &Locked<'_>) -> bool {
    !own.has(SETTLED) && !ptr.kids.load(Ordering::Relaxed).is_null()
}

/// Why a node is marked.
enum Why<'e> {
    Event(&'e Event),
    /// A parent ended, with this end.
    Inherited(Raw),
}

struct Walk {
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
    merged: Vec<Ptr>,
    /// Nodes that this walk was the last to hold.
    dying: Vec<Ptr>,
}

/// Where a look through a list has led.
enum Step<'w> {
    /// To a child, locked, below which there may be something to mark.
    Down(Ptr, Locked<'w>),
    /// To the end of the batch: the child, pinned, behind which to go on.
    Rest(Ptr),
    /// To the end of the list.
    End,
    /// A pin could not be had: from the beginning again.
    Again,
}

impl Walk {
    fn new(ptr: Ptr) -> Walk {
        let timers = ptr.timers().cloned();
        Walk {
            now: timers.as_ref().map(|timers| timers.clock().now()),
            timers,
            shares: Shares::default(),
            tell: Tell::default(),
            first_began: None,
            began: Vec::new(),
            merged: Vec::new(),
            dying: Vec::new(),
        }
    }

    /// Marks everything below `top`, which is marked and held by the caller; `own` is its lock, if the caller has it.
    fn below(&mut self, top: Ptr, own: Option<Locked<'_>>) {
        let mut own = own;
        loop {
            // SAFETY: the caller holds the node.
            let list = unsafe { List::of_marked(top, own.take()) };
            if self.through(top, list) {
                return;
            }
            // All pins of a node are in use. What was finished is settled, and is passed by now.
            relax(u32::MAX);
        }
    }

    /// Marks everything below `top`, whose first list is locked; whether it got through.
    fn through<'w>(&mut self, top: Ptr, first: List<'w>) -> bool {
        let mut list = first;
        let mut next = list.head();
        loop {
            match self.step(&list, next) {
                Step::Down(child, own) => {
                    let mut own = own;
                    if is_split(own.bits) {
                        // Its own lock will not hold it there.
                        if pins_are_used_up(own.bits) {
                            drop(own);
                            return self.abandon(top, list);
                        }
                        own.bits += PIN;
                    } else {
                        // A parent reads as done no later than its children.
                        child.state.republish(own.bits);
                    }
                    // SAFETY: held by its lock, or by the pin. The parent's lock goes with the old list.
                    list = unsafe { List::of_marked(child, Some(own)) };
                    next = list.head();
                }
                Step::Rest(child) => {
                    let (node, number) = (list.parent, list.shard);
                    drop(list);
                    // SAFETY: the pinned child is in its list.
                    list = unsafe { List::lock_of(node, number) };
                    next = list.after(child);
                    self.unpin(child);
                }
                Step::Again => return self.abandon(top, list),
                Step::End if list.shard + 1 < lists(list.parent.state.load()) => {
                    let (node, number) = (list.parent, list.shard + 1);
                    drop(list);
                    // SAFETY: a node with several lists is pinned while the walk is below it, or is the top.
                    list = unsafe { List::lock_of(node, number) };
                    next = list.head();
                }
                Step::End if list.parent == top => {
                    self.settle(list);
                    return true;
                }
                Step::End => match self.up(list) {
                    Ok((above, behind)) => (list, next) = (above, behind),
                    Err(list) => return self.abandon(top, list),
                },
            }
        }
    }

    /// Lets go of everything that the walk holds below `top`.
    #[cold]
    fn abandon(&mut self, top: Ptr, list: List<'_>) -> bool {
        let mut pinned = Vec::new();
        let mut node = list.parent;
        while node != top {
            if node.state.load() & SHARDED != 0 {
                pinned.push(node);
            }
            node = node.parent.expect("what was reached by a list has a parent");
        }
        drop(list);
        pinned.into_iter().for_each(|node| self.unpin(node));
        false
    }

    /// From the end of the last list of a node to the list that the node is in, and the child behind it. If a pin is
    /// needed and cannot be had, the list is given back.
    #[inline(always)]
    fn up<'w>(&mut self, list: List<'w>) -> Result<(List<'w>, Option<Ptr>), List<'w>> {
        let node = list.parent;
        let Some(parent) = node.parent else {
            unreachable!("what was reached by a list has a parent")
        };
        let bits = node.state.load();
        let number = state::shard(bits);
        if bits & SHARDED == 0 {
            // SAFETY: the node is in the parent's list, and stays there while its own lock is held.
            if let Some(above) = unsafe { List::try_lock_of(parent, number) } {
                let behind = above.after(node);
                self.settle(list);
                return Ok((above, behind));
            }
            let mut list = list;
            if let ListLock::Own(own) = &mut list.lock {
                if pins_are_used_up(own.bits) {
                    return Err(list);
                }
                own.bits += PIN;
            }
            self.settle(list);
        } else {
            self.settle(list);
        }
        // SAFETY: the node is pinned, so it stays in the parent's list.
        let above = unsafe { List::lock_of(parent, number) };
        let behind = above.after(node);
        self.unpin(node);
        Ok((above, behind))
    }

    /// Notes that everything below a node has been marked, whose last list has been gone through, and lets go of its lock.
    #[inline(always)]
    fn settle(&self, list: List<'_>) {
        let node = list.parent;
        // Below a merged node that is yet to be walked something may be live.
        let is_settled = self.merged.is_empty();
        match list.lock {
            ListLock::Own(mut own) => {
                if is_settled {
                    own.bits |= SETTLED;
                }
            }
            ListLock::Shard { _lock: lock } => {
                drop(lock);
                if is_settled {
                    node.state.lock().bits |= SETTLED;
                }
            }
        }
    }

    /// Marks what is in a list from `first` on, until there is something below a child or the batch is full.
    #[inline(always)]
    fn step<'w>(&mut self, list: &List<'w>, first: Option<Ptr>) -> Step<'w> {
        let end = end::of_marked(list.parent);
        let mut next = first;
        for done in 1.. {
            let Some(child) = next else { return Step::End };
            next = list.after(child);
            if let Some(target) = child.tether_target() {
                if !self.mark_merged(target, end) {
                    return Step::Again;
                }
                continue;
            }
            let is_rest = done >= BATCH && next.is_some();
            if !is_rest && link::is_settled(child) {
                continue;
            }
            // SAFETY: in a list whose lock is held until after this lock is given back, or it is what holds the child.
            let mut own = unsafe { child.node() }.state.lock();
            if own.has(DYING) {
                continue;
            }
            self.mark_inherited(child, &mut own, end);
            if has_below(child, &own) {
                return Step::Down(child, own);
            }
            if is_rest {
                if pins_are_used_up(own.bits) {
                    return Step::Again;
                }
                own.bits += PIN;
                return Step::Rest(child);
            }
        }
        unreachable!("a list has an end")
    }

    /// Marks one node under its lock with the end of a parent, if it is live.
    #[inline(always)]
    fn mark_inherited(&mut self, ptr: Ptr, own: &mut Locked<'_>, end: Raw) {
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
        let details = unsafe { ptr.details() };
        let id = details.as_ref().map_or(0, |details| details.id);
        let name = details.as_ref().and_then(|details| details.name);
        // The list of ends shows it at once, so there is nothing to put off.
        let is_listed = ptr.state.load() & LISTED != 0;
        let scope = match id {
            0 if is_listed => ScopeId::next().into(),
            id => LazyId::of(id),
        };
        let at = Some(self.now());
        let end = match blame {
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

    /// Lets go of a pinned node. If that was the last hold on it, it is freed at the end.
    fn unpin(&mut self, ptr: Ptr) {
        if unpin(ptr) {
            self.dying.push(ptr);
        }
    }

    /// Goes below merged nodes, and then tells everybody, outside every lock.
    fn finish(mut self, top: Ptr, run: Run) {
        let nothing_is_left = self.merged.is_empty() && self.dying.is_empty() && self.first_began.is_none();
        if nothing_is_left && self.tell.is_empty() {
            return;
        }
        while !self.merged.is_empty() {
            for node in std::mem::take(&mut self.merged) {
                self.below(node, None);
                self.unpin(node);
            }
            // What is above them could not be settled before.
            self.below(top, None);
        }
        if let Some(first) = self.first_began.take() {
            let now = match self.timers {
                None => self.now(),
                Some(_) => Instant::now(),
            };
            for (place, end) in std::iter::once(first).chain(self.began.drain(..)) {
                inspect::ended(place, end, now);
            }
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
