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

use super::Blame;
use super::end;
use super::layout::Ptr;
use super::link::{self, List, ListLock, is_split, lists};
use super::mark::Marks;
use super::node::{self, has_come};
use super::release;
use super::stamp::Stamp;
use super::state::{
    self, DONE, DYING, Locked, ORPHAN, OWNS, PIN, SETTLED, SHARDED, is_pinned, pins_are_used_up,
};
use super::tell::Run;
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
    walk.marks.begin(ptr, &mut own, event);
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

struct Walk {
    marks: Marks,
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
        Walk {
            marks: Marks::new(ptr),
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
        let is_settled = self.marks.merged.is_empty();
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
                if !self.marks.merged(target, end) {
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
            self.marks.inherited(child, &mut own, end);
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

    /// Lets go of a pinned node. If that was the last hold on it, it is freed at the end.
    fn unpin(&mut self, ptr: Ptr) {
        if unpin(ptr) {
            self.dying.push(ptr);
        }
    }

    /// Goes below merged nodes, and then tells everybody, outside every lock.
    fn finish(mut self, top: Ptr, run: Run) {
        if self.dying.is_empty() && self.marks.are_untold() {
            return;
        }
        while !self.marks.merged.is_empty() {
            for node in std::mem::take(&mut self.marks.merged) {
                self.below(node, None);
                self.unpin(node);
            }
            // What is above them could not be settled before.
            self.below(top, None);
        }
        // Destructors are foreign, and a panic in one must not keep the news from anybody: they come last.
        let _later = Dying(self.dying);
        self.marks.tell(run);
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::Location;
    use std::thread;

    use super::*;
    use crate::Reason;
    use crate::tree::NodeRef;

    fn child(parent: Option<&NodeRef>) -> NodeRef {
        NodeRef::child(parent, Location::caller(), None)
    }

    fn cancel(node: &NodeRef) {
        node.cancel(Blame {
            reason: Reason::Shutdown,
            cause: None,
            origin: Location::caller(),
        });
    }

    /// Takes all pins of a node; how many those are.
    fn take_pins(node: &NodeRef) -> u32 {
        let ptr = node.ptr();
        let mut own = ptr.state.lock();
        let mut pins = 0;
        while !pins_are_used_up(own.bits) {
            own.bits += PIN;
            pins += 1;
        }
        pins
    }

    fn give_pins_back(node: &NodeRef, pins: u32) {
        node.ptr().state.lock().bits -= pins * PIN;
    }

    fn has_pins(node: &NodeRef) -> bool {
        is_pinned(node.ptr().state.load())
    }

    #[test]
    fn a_walk_that_finds_no_pin_below_split_lists_lets_go_of_its_own_and_begins_again() {
        let top = child(None);
        let outer = child(Some(&top));
        link::split_now(outer.ptr());
        let inner = child(Some(&outer));
        link::split_now(inner.ptr());
        let leaf = child(Some(&inner));
        let pins = take_pins(&inner);
        thread::scope(|threads| {
            threads.spawn(|| cancel(&top));
            // It marks the inner node, and can get no further.
            while !inner.is_done() {
                thread::yield_now();
            }
            assert!(!leaf.is_done());
            give_pins_back(&inner, pins);
        });
        assert!(leaf.is_done());
        assert!(![&top, &outer, &inner, &leaf].into_iter().any(has_pins));
    }

    #[test]
    fn a_walk_that_finds_neither_the_way_up_nor_a_pin_begins_again() {
        let top = child(None);
        let sibling = child(Some(&top));
        let middle = child(Some(&top));
        let leaf = child(Some(&middle));
        let pins = take_pins(&middle);
        thread::scope(|threads| {
            // The walk waits for the leaf, and holds nothing above it but the list that the leaf is in.
            let in_its_way = leaf.ptr();
            let in_its_way = in_its_way.state.lock();
            threads.spawn(|| cancel(&top));
            while !middle.is_done() {
                thread::yield_now();
            }
            let above = top.ptr();
            let above = above.state.lock();
            drop(in_its_way);
            // So it cannot go up, cannot pin the node that it comes from, and comes back from the top.
            while !leaf.is_done() || middle.ptr().state.try_lock().is_none() {
                thread::yield_now();
            }
            give_pins_back(&middle, pins);
            assert!(!sibling.is_done());
            drop(above);
        });
        assert!(sibling.is_done());
        assert!(![&top, &sibling, &middle, &leaf].into_iter().any(has_pins));
    }
}
