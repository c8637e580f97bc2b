//! Making nodes.

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::end::{self, Raw};
use super::layout::{Full, Heir, Node, Ptr, Tether, Timed};
use super::link::{self, List};
use super::node;
use super::pool::{self, Pooled};
use super::stamp::Stamp;
use super::state::{
    self, BEGAN, CLOSED, CROWDED, DONE, HAS_AT, Kind, LISTED, LOCKED, OWNS, RARE, ROOT, SETTLED, SHARDED,
    UNARMED,
};
use super::timer::Timers;
use super::{NodeRef, bell};
use crate::deadline::after;
use crate::inspect;
use crate::sync::{self, atomic::Ordering};

impl Pooled for Node {
    const LIST: usize = state::list(Kind::Plain.bits());
}
impl Pooled for Heir {
    const LIST: usize = state::list(Kind::Heir.bits());
}
impl Pooled for Timed {
    const LIST: usize = state::list(Kind::Timed.bits());
}

impl NodeRef {
    /// A root: it never ends, and carries a clock.
    pub(crate) fn root(made_at: &'static Location<'static>, timers: Option<Arc<Timers>>) -> NodeRef {
        let plan = Plan {
            made_at,
            at: Stamp::NEVER,
            flags: ROOT | listed(),
            parent: None,
        };
        finish(plan.full(timers))
    }

    /// A node that ends with `parent`, at its own deadline, or when it is cancelled.
    #[inline(always)]
    pub(crate) fn child(
        parent: Option<&NodeRef>,
        made_at: &'static Location<'static>,
        deadline: Option<Instant>,
    ) -> NodeRef {
        let deadline = deadline.map_or(Stamp::NEVER, Stamp::of);
        NodeRef::child_until(parent, made_at, deadline)
    }

    /// As [`child`](NodeRef::child), with a deadline so far from now on the parent's clock.
    pub(crate) fn child_within(
        parent: Option<&NodeRef>,
        made_at: &'static Location<'static>,
        span: Duration,
    ) -> NodeRef {
        let at = match parent.and_then(NodeRef::timers) {
            None => Stamp::after(span),
            Some(timers) => after(timers.clock().now(), span).map_or(Stamp::NEVER, Stamp::of),
        };
        NodeRef::child_until(parent, made_at, at)
    }

    /// As [`child`](NodeRef::child), with the deadline as a stamp. Inlined, since without one there is less to do.
    #[inline(always)]
    pub(crate) fn child_until(
        parent: Option<&NodeRef>,
        made_at: &'static Location<'static>,
        deadline: Stamp,
    ) -> NodeRef {
        let Some(parent) = parent.map(NodeRef::ptr) else {
            return child_of_background(made_at, deadline);
        };
        let bits = parent.state.load();
        let is_common = bits & (LOCKED | DONE | SHARDED | CROWDED | RARE) == 0;
        if !is_common || inspect::is_on() {
            let is_split = bits & (DONE | SHARDED | CLOSED | RARE) == SHARDED;
            return if is_split && !inspect::is_on() {
                child_of_many(bits, parent, made_at, deadline)
            } else {
                child_slowly(parent, made_at, deadline)
            };
        }
        if bits & HAS_AT == 0 && deadline == Stamp::NEVER {
            let plan = Plan::of(made_at, Stamp::NEVER, Stamp::NEVER, Some(parent));
            return enter_from(bits, parent, plan.small());
        }
        child_by_deadline(bits, parent, made_at, deadline)
    }

    /// A node that ends with the first of `parents`, with the clock given.
    pub(crate) fn merge(
        parents: &[&NodeRef],
        made_at: &'static Location<'static>,
        timers: Option<Arc<Timers>>,
    ) -> NodeRef {
        let inherited = parents.iter().map(|parent| parent.ptr().deadline()).min();
        let plan = Plan::of(made_at, Stamp::NEVER, inherited.unwrap_or(Stamp::NEVER), None);
        let node = plan.listed().full(timers);
        let handle = NodeRef::own(node);
        for parent in parents.iter().map(|parent| parent.ptr()) {
            if node::is_done(parent) || !tether(parent, node, made_at) {
                end_at_birth(node, parent);
                break;
            }
        }
        finish_handle(handle)
    }
}

/// A node without a parent.
fn child_of_background(made_at: &'static Location<'static>, deadline: Stamp) -> NodeRef {
    let plan = Plan::of(made_at, deadline, Stamp::NEVER, None);
    finish(plan.listed().small())
}

/// A child with a deadline, its own or inherited, in the common case. `bits` are the parent's.
fn child_by_deadline(
    bits: u32,
    parent: Ptr,
    made_at: &'static Location<'static>,
    deadline: Stamp,
) -> NodeRef {
    let plan = Plan::of(made_at, deadline, parent.deadline_by(bits), Some(parent));
    if plan.flags & OWNS == 0 && bits & UNARMED != 0 {
        // It relies on the parent's deadline, at which nobody has looked.
        return child_slowly(parent, made_at, deadline);
    }
    enter_from(bits, parent, plan.small())
}

/// A child of a node at which many threads meet. `bits` are that one's.
#[inline(never)]
fn child_of_many(bits: u32, parent: Ptr, made_at: &'static Location<'static>, deadline: Stamp) -> NodeRef {
    let plan = Plan::of(made_at, deadline, parent.deadline_by(bits), Some(parent));
    if plan.flags & OWNS == 0 && bits & UNARMED != 0 {
        return child_slowly(parent, made_at, deadline);
    }
    let child = plan.small();
    if !link::enter_split(parent, child) {
        return enter(parent, child);
    }
    NodeRef::own(child)
}

/// Enters a new child in the only list of the parent, which was live when its word was `bits`.
#[inline(always)]
fn enter_from(bits: u32, parent: Ptr, child: Ptr) -> NodeRef {
    // The word has not changed since, so the parent is live, and still has one list (invariant 3).
    let Some(own) = parent.state.lock_from(bits) else {
        return enter(parent, child);
    };
    link::push(&parent.kids, child);
    drop(own);
    NodeRef::own(child)
}

/// A child in every other case than the common one.
#[inline(never)]
fn child_slowly(parent: Ptr, made_at: &'static Location<'static>, deadline: Stamp) -> NodeRef {
    let plan = Plan::of(made_at, deadline, parent.deadline(), Some(parent)).listed();
    // A child that relies on the parent's deadline makes the parent look now (invariant 8).
    let is_dead = if plan.flags & OWNS == 0 {
        node::is_done(parent)
    } else {
        parent.state.load() & DONE != 0
    };
    if is_dead {
        return plan.born_ended(parent);
    }
    enter(parent, plan.on_clock_of(parent))
}

/// Enters a new child, or ends it if the parent has ended meanwhile.
#[inline(never)]
fn enter(parent: Ptr, child: Ptr) -> NodeRef {
    let handle = NodeRef::own(child);
    if !link(parent, child) {
        // SAFETY: nobody else knows the node yet. It is in no list, so it must not hold on to a parent.
        unsafe { (*child.raw()).parent = None };
        end_at_birth(child, parent);
    }
    finish_handle(handle)
}

/// What a node is to be.
#[derive(Clone, Copy)]
struct Plan {
    made_at: &'static Location<'static>,
    /// The earliest of its own deadline and those that it inherits.
    at: Stamp,
    flags: u32,
    parent: Option<Ptr>,
}

impl Plan {
    #[inline(always)]
    fn of(made_at: &'static Location<'static>, own: Stamp, inherited: Stamp, parent: Option<Ptr>) -> Plan {
        let owns = own < inherited;
        Plan {
            made_at,
            at: own.min(inherited),
            flags: if owns { OWNS | UNARMED } else { 0 },
            parent,
        }
    }

    /// This plan for a node that is listed, if nodes are.
    fn listed(self) -> Plan {
        Plan {
            flags: self.flags | listed(),
            ..self
        }
    }

    /// A node that goes by the clock of `parent`.
    fn on_clock_of(self, parent: Ptr) -> Ptr {
        match parent.timers() {
            Some(timers) => self.full(Some(Arc::clone(timers))),
            None => self.small(),
        }
    }

    /// A node with as little behind it as will do.
    #[inline(always)]
    fn small(self) -> Ptr {
        let node = |kind: Kind| Node::new(self.flags | kind.bits(), self.parent, self.made_at);
        let raw: NonNull<Node> = if self.at == Stamp::NEVER {
            pool::make(node(Kind::Plain))
        } else if self.flags & OWNS == 0 {
            pool::make(Heir::new(node(Kind::Heir), self.at)).cast()
        } else {
            pool::make(Timed::new(node(Kind::Timed), self.at)).cast()
        };
        fresh(raw)
    }

    /// A node with everything.
    fn full(self, timers: Option<Arc<Timers>>) -> Ptr {
        let node = Node::new(self.flags | Kind::Full.bits(), self.parent, self.made_at);
        let full = Box::into_raw(Box::new(Full::new(node, self.at, timers)));
        let ptr = fresh(NonNull::new(full.cast()).expect("a box is not null"));
        if let Some(bell) = ptr.full().and_then(|full| full.bell.as_ref()) {
            *sync::lock(&bell.0) = Some(ptr);
        }
        ptr
    }

    /// A node that is not entered anywhere, with the end of `parent`, which has ended.
    #[cold]
    fn born_ended(self, parent: Ptr) -> NodeRef {
        let plan = Plan { parent: None, ..self };
        let child = plan.on_clock_of(parent);
        let handle = NodeRef::own(child);
        end_at_birth(child, parent);
        finish_handle(handle)
    }
}

/// Enters `child` in the parent's list, unless the parent has ended: then the list is not touched (invariant 3).
#[inline]
fn link(parent: Ptr, child: Ptr) -> bool {
    let list = List::for_entry(&parent);
    // Under the list's lock. Acquire, in `load`: pairs with the store that published the end before the walk took this
    // list's lock.
    if parent.state.load() & DONE != 0 {
        return false;
    }
    let bits = child.state.load();
    child.state.set(list.mark_shard(bits));
    list.enter(child);
    true
}

/// Enters a stand-in for `node` in the parent's list.
fn tether(parent: Ptr, node: Ptr, made_at: &'static Location<'static>) -> bool {
    let inner = Node::new(Kind::Tether.bits(), Some(parent), made_at);
    let raw = Box::into_raw(Box::new(Tether::new(inner, node)));
    let stand_in = fresh(NonNull::new(raw.cast()).expect("a box is not null"));
    // Known before it can be found: whoever frees the node takes its stand-ins out of the lists.
    let linked = link(parent, stand_in);
    if linked {
        let full = node.full();
        bell::lock(&full.as_ref().expect("a merged node is a full one").tethers).push(stand_in);
    } else {
        // SAFETY: made by `Box::into_raw` above, and in no list.
        drop(unsafe { Box::from_raw(raw) });
    }
    linked
}

/// Gives a new node the end of a parent that has ended.
fn end_at_birth(child: Ptr, parent: Ptr) {
    let end = Raw::own(end::of(parent).canceled());
    let mut own = child.state.lock();
    if own.bits & DONE == 0 {
        child.tail.store(end.word(), Ordering::Relaxed);
        own.bits = own.bits & !(UNARMED | BEGAN) | DONE | SETTLED;
        return;
    }
    drop(own);
    // A merged node that another parent has ended first.
    drop(end.into_canceled());
}

fn listed() -> u32 {
    if inspect::is_on() { LISTED } else { 0 }
}

fn fresh(raw: NonNull<Node>) -> Ptr {
    // SAFETY: a new node, held by the handle that it is born with.
    unsafe { Ptr::held(raw.as_ptr()) }.expect("not null")
}

fn finish(node: Ptr) -> NodeRef {
    finish_handle(NodeRef::own(node))
}

/// The last step of a node's making: the list of live contexts.
fn finish_handle(handle: NodeRef) -> NodeRef {
    if handle.ptr().state.load() & LISTED != 0 {
        inspect::born(&handle);
    }
    handle
}
