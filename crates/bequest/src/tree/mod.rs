//! The cancellation tree: the only locks, atomics and raw pointers of the crate that matter to a context.
//!
//! What lives here: nodes, the links between them, those who wait on them, and the timers that end them. What does not:
//! values (they travel in the handle and never touch the tree), futures (they hold a place in a node's ring, no more),
//! and every public type but the error that a node ends with.
//!
//! There are two trees of one interface. This is the fast one: intrusive, one state word per node. The other, in
//! `plain/`, is `Arc`, `Weak` and a mutex per node, chosen to be easy to be sure of; `--cfg bequest_plain` builds the
//! crate on it, and the same tests pass on both.
//!
//! # Reading order
//!
//! [`layout`] (what a node is), [`state`] (its word and lock), [`link`] (lists of children), [`derive`] (making),
//! [`walk`] and [`mark`] (ending), [`record`] (waiting), [`release`] (freeing), [`endless`] (giving up); beside them
//! [`end`] (the error in one word), [`wheel`] and [`bell`] (time), [`pool`] (memory), [`tell`] (wakers and callbacks).
//!
//! # Invariants
//!
//! 1. **What is linked is alive, both ways.** A node in its parent's list keeps the parent in memory, and is taken out
//!    under the list's lock before it is freed. So a child may follow `parent` at any time, and a walk whatever it finds
//!    under the list's lock. No count is kept for it. A node's `parent` never changes; a node that is in no list has none.
//! 2. **The end is written once.** `tail` is set under the node's lock, before the `Release` store that sets `DONE`.
//!    Whoever reads `DONE` with `Acquire` finds the end, with no lock.
//! 3. **Linking and ending exclude each other.** A child is entered under a list's lock, after a look at the parent's
//!    state. The walk sets `DONE` before it takes the first list's lock. So either the walk finds the child, or the child
//!    finds `DONE` and is born ended.
//! 4. **A waiter is entered under the node's lock, after a look at the state**, and the ring is emptied under it before
//!    `DONE` is published. So no wake-up is lost, and whoever reads `DONE` has been taken out.
//! 5. **Mark, then tell.** A walk first marks every node below it, and only then runs wakers and callbacks. It takes
//!    nothing out of the lists of children, so a second walk need not wait for the first: it marks what it finds
//!    unmarked, and tells whom it has marked. Below a `SETTLED` node everything is marked.
//! 6. **Nothing foreign runs under a lock:** no waker, callback, destructor, clock or `Debug`.
//! 7. **Nothing recurses.** Walking down and freeing upwards are loops.
//! 8. **`UNARMED` is left by the first look.** A node with a deadline of its own, earlier than its parents', starts
//!    there; a look reads the clock once and either ends it or arms its timer. A child, a waiter or a callback that
//!    depends on the deadline looks first. So an unarmed node has no waiters, no callbacks, and no children but those
//!    with earlier deadlines of their own.
//! 9. **The first event wins, by the clock.** A deadline that has passed before somebody cancels wins over the cancel,
//!    even if nobody had looked.
//! 10. **Exactly one thread frees a node.** It is freed when it has no handle, no child and no pin. The last handle is
//!     counted down under a lock; from then on the node is freed at once, or is an `ORPHAN`, and whoever takes away its
//!     last child or pin finds that under the same lock.
//!
//! # Order of locks
//!
//! From the top downwards, at most one of each: the list of a parent, or its own lock for that list; the lock of one
//! child in it; the part of the wheel, or the queue of a clock, where that child is armed. A node with several parents is
//! reached from each of their lists, and is younger than all of them, so that the order is still one. Who comes from the
//! other end only tries, and lets go if that fails: the timers' thread for a node's lock under its part's, and a walk on
//! its way up for the lock of a parent's list under that of the child. The registry of [`inspect`](crate::inspect) takes
//! the lock of a node under its own, and none is taken the other way about.

#![cfg_attr(not(bequest_plain), allow(unsafe_code))]

#[cfg(bequest_plain)]
mod plain;
mod tell;

#[cfg(not(bequest_plain))]
mod bell;
#[cfg(not(bequest_plain))]
mod derive;
#[cfg(not(bequest_plain))]
mod end;
#[cfg(not(bequest_plain))]
mod endless;
#[cfg(not(bequest_plain))]
mod held;
#[cfg(not(bequest_plain))]
mod layout;
#[cfg(not(bequest_plain))]
mod link;
#[cfg(not(bequest_plain))]
mod mark;
#[cfg(not(bequest_plain))]
mod node;
#[cfg(not(bequest_plain))]
pub(crate) mod pool;
#[cfg(not(bequest_plain))]
mod record;
#[cfg(not(bequest_plain))]
mod release;
#[cfg(not(bequest_plain))]
mod stamp;
#[cfg(not(bequest_plain))]
mod state;
#[cfg(not(bequest_plain))]
mod timer;
#[cfg(not(bequest_plain))]
mod walk;
#[cfg(not(bequest_plain))]
mod wheel;

use std::panic::Location;
use std::time::Instant;

use crate::canceled::{Cause, End, Kind, LazyId};
use crate::reason::Reason;

#[cfg(not(bequest_plain))]
pub(crate) use bell::Armed;
#[cfg(not(bequest_plain))]
pub(crate) use held::{Held, Row};
#[cfg(not(bequest_plain))]
pub(crate) use node::NodeRef;
#[cfg(bequest_plain)]
pub(crate) use plain::{
    Armed, Held, NodeRef, Place, Row, Ticket, Timers, has_come, roughly_now, system_armed,
};
#[cfg(not(bequest_plain))]
pub(crate) use record::{Place, Ticket};
#[cfg(not(bequest_plain))]
pub(crate) use stamp::{has_come, roughly_now};
pub(crate) use tell::{Callback, panics};
#[cfg(not(bequest_plain))]
pub(crate) use timer::Timers;
#[cfg(not(bequest_plain))]
pub(crate) use wheel::armed as system_armed;

/// Who cancels, and why.
pub(crate) struct Blame {
    pub(crate) reason: Reason,
    pub(crate) cause: Option<Cause>,
    pub(crate) origin: &'static Location<'static>,
}

impl Blame {
    /// The end of the node that is cancelled.
    pub(crate) fn end(&self, scope: LazyId, name: Option<&'static str>, at: Option<Instant>) -> End {
        End {
            kind: if self.reason.is_timeout() {
                Kind::DeadlineExceeded
            } else {
                Kind::Canceled
            },
            reason: self.reason,
            cause: self.cause.clone(),
            origin: self.origin,
            was_called: self.reason != Reason::ScopeEnded,
            scope,
            name,
            at,
        }
    }
}
