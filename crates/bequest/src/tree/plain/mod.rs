//! The plain tree: `Arc`, `Weak` and a mutex per node, without a line of `unsafe`. The safe twin of the fast one.
//!
//! `--cfg bequest_plain` builds the crate on it. It is what the fast tree has to agree with, and what to read first.
//!
//! # Invariants
//!
//! They are those of the fast tree, argued more simply. **A child holds its parents, a parent knows its children
//! weakly.** So a node lives as long as anything below it or any handle to it, and a dropped child takes itself out of
//! its parents' lists. The exceptions are nodes with a detached callback: they hold themselves until they end (`keeper`),
//! and only nodes that can end may. **The end is set before the state says so**, **a child is entered, and a waiter,
//! under the lock, after a look at the state**, and **lists of children stay whole until everything is marked**: a walk
//! first marks every node below it and only then takes waiters and callbacks out (`SETTLED`). No two locks are ever held
//! together.

mod node;
mod slab;
mod timer;

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use super::Blame;
use super::tell::{self, Callback};
use crate::canceled::{Canceled, Cause, ScopeId};
use crate::deadline::after;
use crate::label::Label;
use crate::reason::Reason;
pub(crate) use node::Place;
use node::{Birth, Node};
pub(crate) use timer::Timers;
use timer::{Expire, TimerKey};

/// A counted handle to a node.
#[derive(Clone)]
pub(crate) struct NodeRef(Arc<Node>);

/// The registration of a callback.
pub(crate) struct Ticket(usize);

impl NodeRef {
    pub(crate) fn root(made_at: &'static Location<'static>, timers: Option<Arc<Timers>>) -> NodeRef {
        NodeRef(Node::root(made_at, timers))
    }

    pub(crate) fn child(
        parent: Option<&NodeRef>,
        made_at: &'static Location<'static>,
        deadline: Option<Instant>,
    ) -> NodeRef {
        let timers = parent.and_then(|parent| parent.0.own_timers());
        let parents: Vec<_> = parent.into_iter().map(|parent| &parent.0).collect();
        NodeRef(Node::derive(
            &parents,
            Birth {
                made_at,
                deadline,
                timers,
            },
        ))
    }

    pub(crate) fn child_within(
        parent: Option<&NodeRef>,
        made_at: &'static Location<'static>,
        span: Duration,
    ) -> NodeRef {
        let now = || {
            parent
                .and_then(NodeRef::timers)
                .map_or_else(Instant::now, |timers| timers.clock().now())
        };
        let deadline = (span != Duration::MAX).then(|| after(now(), span)).flatten();
        NodeRef::child(parent, made_at, deadline)
    }

    pub(crate) fn merge(
        parents: &[&NodeRef],
        made_at: &'static Location<'static>,
        timers: Option<Arc<Timers>>,
    ) -> NodeRef {
        let parents: Vec<_> = parents.iter().map(|parent| &parent.0).collect();
        let birth = Birth {
            made_at,
            deadline: None,
            timers,
        };
        NodeRef(Node::derive(&parents, birth))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.is_done()
    }

    pub(crate) fn end(&self) -> Option<Canceled> {
        self.0.end().cloned()
    }

    pub(crate) fn known_end(&self) -> Option<Canceled> {
        self.0.known_end().cloned()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    pub(crate) fn owns_deadline(&self) -> bool {
        self.0.owns_deadline()
    }

    pub(crate) fn can_end(&self) -> bool {
        self.0.can_end()
    }

    pub(crate) fn timers(&self) -> Option<&Arc<Timers>> {
        self.0.known_timers()
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        self.0.made_at()
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.0.id()
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.0.name()
    }

    pub(crate) fn parents(&self) -> Vec<NodeRef> {
        self.0
            .parents()
            .map(|parent| NodeRef(Arc::clone(parent)))
            .collect()
    }

    pub(crate) fn set_name(&self, name: &'static str) {
        self.0.set_name(name);
    }

    pub(crate) fn set_reason(&self, reason: Reason) {
        self.0.set_reason(reason);
    }

    pub(crate) fn set_label(&self, label: &'static Label) {
        self.0.set_label(label);
    }

    pub(crate) fn set_cause(&self, cause: Cause) {
        self.0.set_cause(cause);
    }

    pub(crate) fn cancel(&self, blame: Blame) {
        self.0.cancel(blame);
    }

    pub(crate) fn cancel_explicitly(&self, origin: &'static Location<'static>) {
        self.cancel(Blame {
            reason: Reason::Explicit,
            cause: None,
            origin,
        });
    }

    pub(crate) fn end_scope(&self) {
        // With no other handle nobody can see the end: no child (it would hold its parent), no waiter, no callback.
        // A walk from above that meets the node at this instant does no harm.
        let is_unseen = Arc::strong_count(&self.0) == 1 && !crate::inspect::is_on();
        if !is_unseen {
            self.cancel(Blame {
                reason: Reason::ScopeEnded,
                cause: None,
                origin: self.made_at(),
            });
        }
    }

    /// Whether it has not ended, and nobody but the owner could see that it does. A child would hold it.
    pub(crate) fn is_unobserved(&self) -> bool {
        let [_, waiters, callbacks] = self.0.load();
        let is_alone = Arc::strong_count(&self.0) == 1 && !crate::inspect::is_on();
        is_alone && waiters + callbacks == 0 && self.0.known_end().is_none()
    }

    pub(crate) fn give_up(&self) {
        self.0.give_up();
    }

    pub(crate) fn poll_end(&self, place: &mut Place, task: &TaskContext<'_>) -> Poll<()> {
        self.0.poll_end(place, task)
    }

    pub(crate) fn leave(&self, place: &mut Place) {
        self.0.leave(place);
    }

    pub(crate) fn add_callback(&self, callback: Callback) -> Option<Ticket> {
        self.0.add_callback(callback).map(Ticket)
    }

    pub(crate) fn remove_callback(&self, ticket: Ticket) -> bool {
        self.0.remove_callback(ticket.0)
    }

    pub(crate) fn detach_callback(&self, ticket: Ticket) {
        self.0.detach_callback(ticket.0);
    }
}

/// A node in the registry.
pub(crate) struct Row(Weak<Node>);

/// A node that the registry holds for a look.
pub(crate) struct Held(Arc<Node>);

impl Row {
    pub(crate) fn of(node: &NodeRef) -> Row {
        Row(Arc::downgrade(&node.0))
    }

    pub(crate) fn place(&self) -> usize {
        self.0.as_ptr().addr()
    }

    pub(crate) fn hold(&self) -> Option<Held> {
        self.0.upgrade().map(Held)
    }
}

impl Held {
    pub(crate) fn id(&self) -> ScopeId {
        self.0.id()
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        self.0.name()
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        self.0.made_at()
    }

    pub(crate) fn parents(&self) -> Vec<ScopeId> {
        self.0.parents().map(|parent| parent.id()).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    pub(crate) fn owns_deadline(&self) -> bool {
        self.0.owns_deadline()
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.timers().clock().now()
    }

    pub(crate) fn goes_by(&self, timers: Option<&Arc<Timers>>) -> bool {
        match (self.0.known_timers(), timers) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    pub(crate) fn known_end(&self) -> Option<Canceled> {
        self.0.known_end().cloned()
    }

    pub(crate) fn children(&self) -> usize {
        self.0.load()[0]
    }

    pub(crate) fn waiting(&self) -> usize {
        let [_, waiters, callbacks] = self.0.load();
        waiters + callbacks
    }

    pub(crate) fn holders(&self) -> usize {
        // One is this look's own.
        Arc::strong_count(&self.0).saturating_sub(1)
    }
}

/// How many deadlines are armed on the system's clock.
pub(crate) fn system_armed() -> usize {
    Timers::system().armed()
}

/// The present instant; the fast tree asks a cheaper clock.
pub(crate) fn roughly_now() -> Instant {
    Instant::now()
}

/// Whether `at` has come on the system's clock.
pub(crate) fn has_come(at: Instant) -> bool {
    at <= Instant::now()
}

/// The armed limit of one await. Disarmed on drop.
pub(crate) struct Armed {
    bell: Arc<Bell>,
    timers: Arc<Timers>,
    key: TimerKey,
}

struct Bell {
    /// Whether it has rung, and who waits for that.
    state: Mutex<(bool, Option<Waker>)>,
}

impl Armed {
    pub(crate) fn at(at: Instant, node: Option<&NodeRef>, waker: &Waker) -> Option<Armed> {
        let timers = node.and_then(NodeRef::timers).unwrap_or_else(|| Timers::system());
        if at <= timers.clock().now() {
            return None;
        }
        let bell = Arc::new(Bell {
            state: Mutex::new((false, Some(waker.clone()))),
        });
        let entry: Weak<Bell> = Arc::downgrade(&bell);
        let key = timers.insert(at, entry);
        Some(Armed {
            bell,
            timers: Arc::clone(timers),
            key,
        })
    }

    pub(crate) fn has_rung(&self) -> bool {
        self.bell.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn listen(&self, waker: &Waker) -> bool {
        let mine = waker.clone();
        let mut state = self.bell.state.lock().unwrap_or_else(PoisonError::into_inner);
        let old = state.1.replace(mine);
        let has_rung = state.0;
        drop(state);
        drop(old);
        has_rung
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.timers.remove(self.key);
    }
}

impl Expire for Bell {
    fn expire(self: Arc<Self>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            tell::wake(waker);
        }
    }
}
