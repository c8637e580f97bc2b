//! Nodes as the list of live contexts holds them: not at all between two looks, pinned during one.

use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use super::layout::Ptr;
use super::node;
use super::release;
use super::state::{DYING, OWNS, PIN, pins_are_used_up};
use super::timer::Timers;
use super::{NodeRef, walk};
use crate::canceled::{Canceled, ScopeId};
use crate::sync::atomic::Ordering;
use crate::sync::relax;

/// A node in the registry, which it leaves before it is freed.
pub(crate) struct Row(Ptr);

/// A pinned node: alive while this is.
pub(crate) struct Held(Ptr);

impl Row {
    pub(crate) fn of(node: &NodeRef) -> Row {
        Row(node.ptr())
    }

    /// Where the node is in memory, which no other is meanwhile.
    pub(crate) fn place(&self) -> usize {
        self.0.place()
    }

    /// Holds the node, unless it is being freed. Under the registry's lock, which whoever frees it waits for.
    pub(crate) fn hold(&self) -> Option<Held> {
        for tries in 0.. {
            let mut own = self.0.state.lock();
            if own.has(DYING) {
                return None;
            }
            if !pins_are_used_up(own.bits) {
                own.bits += PIN;
                return Some(Held(self.0));
            }
            drop(own);
            relax(tries);
        }
        None
    }
}

impl Held {
    pub(crate) fn id(&self) -> ScopeId {
        node::id(self.0)
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        node::name(self.0)
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        self.0.made_at()
    }

    pub(crate) fn parents(&self) -> Vec<ScopeId> {
        node::parents(self.0).into_iter().map(node::id).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.deadline().instant()
    }

    pub(crate) fn owns_deadline(&self) -> bool {
        self.0.state.load() & OWNS != 0
    }

    /// The present instant on the node's clock.
    pub(crate) fn now(&self) -> Instant {
        self.0
            .timers()
            .map_or_else(Instant::now, |timers| timers.clock().now())
    }

    /// Whether the node goes by this clock; `None` is the system's.
    pub(crate) fn goes_by(&self, timers: Option<&Arc<Timers>>) -> bool {
        match (self.0.timers(), timers) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    pub(crate) fn known_end(&self) -> Option<Canceled> {
        node::known_end(self.0)
    }

    /// How many nodes below it are live.
    pub(crate) fn children(&self) -> usize {
        node::count_children(self.0).0
    }

    pub(crate) fn waiting(&self) -> usize {
        super::record::waiting(self.0)
    }

    /// How many handles and children hold the node.
    pub(crate) fn holders(&self) -> usize {
        self.0.handles.load(Ordering::Relaxed) as usize + node::count_children(self.0).1
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if walk::unpin(self.0) {
            // SAFETY: `unpin` made it ours.
            unsafe { release::free(self.0) };
        }
    }
}
