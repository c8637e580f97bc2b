//! The cancellation tree: the only locks and atomics of the crate that matter to a context.
//!
//! What lives here: nodes, the links between them, those who wait on them, and the timers that end them. What does
//! not: values (they travel in the handle and never touch the tree), futures (they hold a place in a node's list, no
//! more), and every public type but the error that a node ends with.
//!
//! This is the plain tree: `Arc`, `Weak` and a mutex per node, chosen to be easy to be sure of.
//!
//! # Invariants
//!
//! 1. **A child holds its parents, a parent knows its children weakly.** So a node lives as long as anything below it
//!    or any handle to it, and a dropped child takes itself out of its parents' lists. The exceptions are nodes with a
//!    detached callback: they hold themselves until they end (`keeper`), and only nodes that can end may.
//! 2. **The end is written once.** `end` is set under the node's lock, before the `Release` store that makes `state`
//!    at least `DONE`. Whoever reads that state with `Acquire` finds the end, with no lock.
//! 3. **Linking and ending exclude each other.** A child is entered in its parent's list under the parent's lock, after
//!    a look at the parent's state. So either the parent's walk finds it, or it is born ended.
//! 4. **A waiter is entered under the lock, after a look at the state.** So no wake-up is lost.
//! 5. **Mark, then tell.** A walk first marks every node below it, and only then takes waiters and callbacks out of
//!    the lists (`SETTLED`) and runs them, outside all locks. Lists of children stay whole until then, so that a
//!    second walk that meets a marked but unsettled node can go on below it and need not wait for the first.
//! 6. **One lock at a time.** No two node locks are ever held together, and of the timers' lock only its own.
//!    Nothing foreign runs under either: no waker, callback, destructor, clock or `Debug`.
//! 7. **Nothing recurses.** Walking down and dropping upwards are loops.
//! 8. **`UNARMED` is left by the first look.** A node with a deadline of its own, earlier than its parents', starts
//!    there; a look reads the clock once and either ends it or arms its timer. A child, a waiter or a callback that
//!    depends on the deadline looks first. So an unarmed node has no waiters, no callbacks, and no children but those
//!    with earlier deadlines of their own.
//! 9. **The first event wins, by the clock.** A deadline that has passed before somebody cancels wins over the cancel,
//!    even if nobody had looked.

mod node;
mod slab;
mod tell;
mod timer;

pub(crate) use node::{Birth, Blame, Node, Place};
pub(crate) use tell::{Callback, panics, wake};
pub(crate) use timer::{Expire, TimerKey, Timers};
