//! Giving up the right to cancel: what nobody can end any more lets go of its detached callbacks.
//!
//! A detached callback keeps its node until the node ends. Once that cannot happen, because nobody has the right to cancel
//! it, it has no deadline of its own, and all its parents are roots or in the same case, it could never run, and would keep
//! the node for ever. So the node is marked `ENDLESS` and lets go. A parent may get there after its children were given
//! up; then they are gone through, and theirs.
//!
//! Two that are given up at once do not miss each other: a child notes that it is given up before it looks at its parents,
//! a parent that it is endless before it looks at its children, each under its own lock, and the parent looks at a child
//! under the child's lock. Whichever takes that lock last sees what the other has noted.

use super::NodeRef;
use super::layout::Ptr;
use super::link::{List, lists};
use super::node::{adopt_under, parents};
use super::state::{DONE, DYING, ENDLESS, GIVEN_UP, KEPT, OWNS, ROOT};
use crate::sync::EXPLORED;

/// How many children are looked at under one hold of a list's lock.
const BATCH: usize = if EXPLORED { 1 } else { 256 };

/// Notes that nobody has the right to cancel `node` any more.
pub(super) fn give_up(node: &NodeRef) {
    let ptr = node.ptr();
    let mut own = ptr.state.lock();
    if own.has(DONE) {
        return;
    }
    own.bits |= GIVEN_UP;
    drop(own);
    let mut spread = Spread::default();
    spread.look_at(ptr);
    while let Some(next) = spread.open.pop() {
        spread.look_at(next.ptr());
        spread.held.push(next);
    }
}

#[derive(Default)]
struct Spread {
    /// Given up, and to be looked at: a parent of theirs has become endless.
    open: Vec<NodeRef>,
    /// What was looked at, and the handles that nodes had of themselves for a callback. Let go of last and outside every
    /// lock: callbacks have foreign destructors.
    held: Vec<NodeRef>,
}

impl Spread {
    /// Marks a node that nothing can end, which is held, and takes hold of those below that may be in the same case now.
    fn look_at(&mut self, ptr: Ptr) {
        let can_end = |node: &Ptr| node.state.load() & (ROOT | ENDLESS) == 0;
        if parents(ptr).iter().any(can_end) {
            return;
        }
        let mut own = ptr.state.lock();
        if own.has(OWNS | DONE | ENDLESS) {
            return;
        }
        let was_kept = own.has(KEPT);
        own.bits = own.bits & !KEPT | ENDLESS;
        drop(own);
        if was_kept {
            // The handle that `detach_callback` left with the node.
            self.held.push(NodeRef::own(ptr));
        }
        for list in 0..lists(ptr.state.load()) {
            let mut behind = None;
            loop {
                let rest = self.through(ptr, list, behind.as_ref());
                self.held.extend(behind.take());
                match rest {
                    Some(child) => behind = Some(child),
                    None => break,
                }
            }
        }
    }

    /// Takes hold of what is given up in one list, from behind the child `behind`; the child behind which to go on, if
    /// there are more than are looked at in one go. What has a handle stays in its list.
    fn through(&mut self, parent: Ptr, list: usize, behind: Option<&NodeRef>) -> Option<NodeRef> {
        let list = List::lock(&parent, list);
        let mut next = match behind {
            None => list.head(),
            Some(child) => list.after(child.ptr()),
        };
        for looks in 1.. {
            let child = next?;
            next = list.after(child);
            // A stand-in has no handles; the walk rests at the next child that may have one.
            let is_rest = looks >= BATCH && next.is_some() && child.tether_target().is_none();
            let target = child.tether_target().unwrap_or(child);
            let mut own = target.state.lock();
            if own.has(DYING) {
                continue;
            }
            if own.has(GIVEN_UP) && !own.has(DONE | OWNS | ENDLESS) {
                self.open.push(adopt_under(target, &mut own));
            }
            if is_rest {
                return Some(adopt_under(child, &mut own));
            }
        }
        unreachable!("a list has an end")
    }
}
