//! A node: its state, its links, and the walk that ends it with all below it.

use std::panic::Location;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use super::super::Blame;
use super::super::tell::{self, Callback, Run, Tell};
use super::NodeRef;
use super::slab::Slab;
use super::timer::{Expire, TimerKey, Timers};
use crate::canceled::{Canceled, Cause, End, Kind, ScopeId};
use crate::deadline::earlier;
use crate::inspect;
use crate::label::Label;
use crate::reason::Reason;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};

/// A node of the cancellation tree. Handles are `Arc`s.
pub(crate) struct Node {
    id: ScopeId,
    /// Innermost: nothing is done under this lock.
    made_at: Mutex<&'static Location<'static>>,
    /// `None` stands for the system's clock, so that deriving touches no shared count for it.
    timers: Option<Arc<Timers>>,
    /// The earliest of the own deadline and the parents'. Never changes.
    deadline: Option<Instant>,
    /// Whether `deadline` is this node's own; then the timer is this node's to arm.
    owns_deadline: bool,
    /// Whether somebody has the right to cancel this node. Roots cannot end.
    can_end: bool,
    /// Whether the registry of live contexts knows this node.
    listed: bool,
    /// One of the four states below. Written under `inner`'s lock.
    state: AtomicU8,
    /// Set once, under `inner`'s lock, before `state` says `DONE` (invariant 2).
    end: OnceLock<Canceled>,
    inner: Mutex<Inner>,
    /// Strong links to the parents (invariant 1). Written by the thread that makes the node, before anybody else can
    /// have a handle, and emptied by `Drop`.
    parents: OnceLock<Vec<Link>>,
}

/// Has a deadline of its own that nobody has looked at (invariant 8).
const UNARMED: u8 = 0;
/// Live; whatever can end it will tell.
const LIVE: u8 = 1;
/// Ended; nodes below may not be marked yet.
const DONE: u8 = 2;
/// Ended with everything below it, and its waiters and callbacks have been taken.
const SETTLED: u8 = 3;

/// What the lock of a node guards.
struct Inner {
    children: Slab<Weak<Node>>,
    waiters: Slab<Waker>,
    callbacks: Slab<Callback>,
    /// Where the own deadline is armed.
    timer: Option<TimerKey>,
    /// Keeps a node with a detached callback alive until it ends.
    keeper: Option<Arc<Node>>,
    /// Nobody has the right to cancel the node any more.
    is_given_up: bool,
    /// Nothing can end the node any more; a callback must not keep it.
    is_endless: bool,
    name: Option<&'static str>,
    /// Reason and cause of the own deadline's passing.
    reason: Reason,
    cause: Option<Cause>,
}

struct Link {
    parent: Arc<Node>,
    /// The place in the parent's list of children; `None` if the parent had ended before it was entered, or cannot.
    place: Option<usize>,
}

/// How a node is made.
pub(crate) struct Birth {
    pub(crate) made_at: &'static Location<'static>,
    /// A deadline of its own.
    pub(crate) deadline: Option<Instant>,
    /// Its clock, unless it is the system's.
    pub(crate) timers: Option<Arc<Timers>>,
}

/// Where a waiter is entered in a node's list. One per future.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<usize>);

impl Node {
    /// A root: it never ends, and carries a clock.
    pub(crate) fn root(made_at: &'static Location<'static>, timers: Option<Arc<Timers>>) -> Arc<Node> {
        Node::build(
            &[],
            Birth {
                made_at,
                deadline: None,
                timers,
            },
            false,
        )
    }

    /// A node that ends when the first of `parents` does, at its own deadline, or when it is cancelled.
    pub(crate) fn derive(parents: &[&Arc<Node>], birth: Birth) -> Arc<Node> {
        Node::build(parents, birth, true)
    }

    fn build(parents: &[&Arc<Node>], birth: Birth, can_end: bool) -> Arc<Node> {
        let inherited = parents
            .iter()
            .fold(None, |least, parent| earlier(least, parent.deadline));
        let owns_deadline = match (birth.deadline, inherited) {
            (Some(own), Some(inherited)) => own < inherited,
            (own, _) => own.is_some(),
        };
        let dead = parents.iter().find(|parent| match owns_deadline {
            true => parent.is_ended(),
            // The child relies on the parent's deadline, so the parent looks now (invariant 8).
            false => parent.is_done(),
        });
        let node = Arc::new(Node {
            id: ScopeId::next(),
            made_at: Mutex::new(birth.made_at),
            timers: birth.timers,
            deadline: earlier(birth.deadline, inherited),
            owns_deadline,
            can_end,
            listed: inspect::is_on(),
            state: AtomicU8::new(if owns_deadline { UNARMED } else { LIVE }),
            end: OnceLock::new(),
            inner: Mutex::new(Inner::new()),
            parents: OnceLock::new(),
        });
        match dead {
            Some(parent) => node.be_born_ended(parent),
            None => node.link(parents),
        }
        if node.listed {
            inspect::born(&NodeRef(Arc::clone(&node)));
        }
        node
    }

    fn link(self: &Arc<Self>, parents: &[&Arc<Node>]) {
        let links: Vec<Link> = parents.iter().map(|parent| Link::enter(parent, self)).collect();
        // A parent that ended before the link was made (invariant 3).
        let dead = links
            .iter()
            .find(|link| link.place.is_none() && link.parent.can_end)
            .map(|link| Arc::clone(&link.parent));
        let fresh = self.parents.set(links).is_ok();
        debug_assert!(fresh, "a node is linked once");
        if let Some(parent) = dead {
            self.be_born_ended(&parent);
        }
    }

    fn be_born_ended(self: &Arc<Self>, parent: &Node) {
        if let Some(end) = parent.end.get() {
            self.end_with(&Event::Born(end.clone()), Run::Here);
        }
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.id
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        *lock(&self.made_at)
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        lock(&self.inner).name
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn owns_deadline(&self) -> bool {
        self.owns_deadline
    }

    pub(crate) fn can_end(&self) -> bool {
        self.can_end
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        self.timers.as_ref().unwrap_or_else(|| Timers::system())
    }

    /// The queue of its clock; `None` for the system's.
    pub(super) fn known_timers(&self) -> Option<&Arc<Timers>> {
        self.timers.as_ref()
    }

    /// The clock to hand to a new root; `None` for the system's.
    pub(crate) fn own_timers(&self) -> Option<Arc<Timers>> {
        self.timers.clone()
    }

    pub(crate) fn parents(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.parents.get().into_iter().flatten().map(|link| &link.parent)
    }

    pub(crate) fn set_name(&self, name: &'static str) {
        lock(&self.inner).name = Some(name);
    }

    /// The reason that the own deadline's passing will have.
    pub(crate) fn set_reason(&self, reason: Reason) {
        lock(&self.inner).reason = reason;
    }

    /// Both of them in one step. The line stays that of the derivation.
    pub(crate) fn set_label(&self, label: &'static Label) {
        let mut inner = lock(&self.inner);
        (inner.name, inner.reason) = (Some(label.name), label.reason);
        *lock(&self.made_at) = label.made_at;
    }

    /// The cause that the own deadline's passing will have.
    pub(crate) fn set_cause(&self, cause: Cause) {
        let old = lock(&self.inner).cause.replace(cause);
        drop(old);
    }

    /// Whether it has ended. One load; the first look at an own deadline reads the clock.
    pub(crate) fn is_done(self: &Arc<Self>) -> bool {
        // Acquire: pairs with the Release store in `Walk::mark`, so that `end` is there to be read.
        match self.state.load(Ordering::Acquire) {
            LIVE => false,
            UNARMED => self.look(),
            _ => true,
        }
    }

    /// The end, once there is one. Looks as [`is_done`](Node::is_done) does.
    pub(crate) fn end(self: &Arc<Self>) -> Option<&Canceled> {
        if self.is_done() { self.end.get() } else { None }
    }

    /// The end as far as it is known, without a look at the clock.
    pub(crate) fn known_end(&self) -> Option<&Canceled> {
        if self.is_ended() { self.end.get() } else { None }
    }

    fn is_ended(&self) -> bool {
        // Acquire: as in `is_done`.
        self.state.load(Ordering::Acquire) >= DONE
    }

    /// The first look at an own deadline: ends the node if it has passed, arms the timer if not.
    #[cold]
    fn look(self: &Arc<Self>) -> bool {
        let Some(at) = self.deadline else { return false };
        let timers = self.timers();
        if at <= timers.clock().now() {
            self.pass();
            return true;
        }
        let entry: Weak<Node> = Arc::downgrade(self);
        let key = timers.insert(at, entry);
        let mut inner = lock(&self.inner);
        // Relaxed: the state is written under this lock.
        let state = self.state.load(Ordering::Relaxed);
        if state == UNARMED {
            inner.timer = Some(key);
            // Release: as every store to `state`; nothing is published by this one.
            self.state.store(LIVE, Ordering::Release);
            return false;
        }
        // Another look was first, or the node has ended meanwhile.
        drop(inner);
        timers.remove(key);
        state >= DONE
    }

    /// The own deadline has passed.
    fn pass(self: &Arc<Self>) {
        let run = if self.timers().is_system() {
            Run::Beside
        } else {
            Run::Here
        };
        self.end_with(&Event::Deadline, run);
    }

    /// Ends the node and everything below it. When the call returns, all of them read as done, whoever was first.
    pub(crate) fn cancel(self: &Arc<Self>, blame: Blame) {
        self.end_what_has_passed();
        self.end_with(&Event::Canceled(blame), Run::Here);
    }

    /// Ends the ancestor whose deadline this node has inherited, if that has passed and its timer is late (invariant 9).
    fn end_what_has_passed(&self) {
        let Some(at) = self.deadline else { return };
        if self.owns_deadline || self.is_ended() {
            return;
        }
        let mut above: Vec<&Arc<Node>> = self.parents().collect();
        while let Some(node) = above.pop() {
            match node.deadline {
                // On its own clock: a merged context may have parents with another.
                Some(theirs) if theirs == at && node.owns_deadline => {
                    if at <= node.timers().clock().now() {
                        node.pass();
                    }
                    return;
                }
                Some(theirs) if theirs == at => above.extend(node.parents()),
                _ => {}
            }
        }
    }

    /// Nobody has the right to cancel this node any more. If nothing else can end it either, a detached callback no
    /// longer keeps it alive: it could never run.
    /// Nobody has the right to cancel this node any more: it, and what was given up below it, lets go of callbacks that
    /// could never run.
    pub(crate) fn give_up(self: &Arc<Self>) {
        lock(&self.inner).is_given_up = true;
        let (mut open, mut keepers) = (vec![Arc::clone(self)], Vec::new());
        while let Some(node) = open.pop() {
            if node.owns_deadline || node.is_ended() || node.parents().any(|parent| parent.may_end()) {
                continue;
            }
            let mut inner = lock(&node.inner);
            if !inner.is_given_up || inner.is_endless {
                continue;
            }
            inner.is_endless = true;
            keepers.extend(inner.keeper.take());
            open.extend(inner.children.iter().filter_map(Weak::upgrade));
        }
    }

    /// Whether there is anybody who could end it.
    fn may_end(&self) -> bool {
        self.can_end && !lock(&self.inner).is_endless
    }

    fn end_with(self: &Arc<Self>, event: &Event, run: Run) {
        // Acquire: pairs with the Release store in `Walk::settle`; everything below reads as done then (invariant 5).
        if self.state.load(Ordering::Acquire) == SETTLED {
            return;
        }
        let mut walk = Walk::new(self);
        let first = walk.mark(Arc::clone(self), event);
        walk.mark_below();
        if first {
            // The walk is dropped last, and with it handles that may be the last to a node and its cause: destructors
            // are foreign, and a panic in one must not keep the news from anybody.
            walk.settle().run(run);
        }
    }

    /// Polls for the end; enters the task's waker if it has not come.
    pub(crate) fn poll_end(self: &Arc<Self>, place: &mut Place, task: &TaskContext<'_>) -> Poll<()> {
        if self.is_done() {
            return Poll::Ready(());
        }
        if self.is_entered(place, task.waker()) {
            return Poll::Pending;
        }
        // Cloned before and the old one dropped after: a waker is foreign code (invariant 6).
        let waker = task.waker().clone();
        let (answer, unused) = self.enter(place, waker);
        drop(unused);
        answer
    }

    fn is_entered(&self, place: &Place, waker: &Waker) -> bool {
        let Some(place) = place.0 else { return false };
        let mut inner = lock(&self.inner);
        !self.is_ended()
            && inner
                .waiters
                .get_mut(place)
                .is_some_and(|known| known.will_wake(waker))
    }

    /// Enters `waker`, unless the node has ended; the waker that is no longer needed comes back.
    fn enter(&self, place: &mut Place, waker: Waker) -> (Poll<()>, Option<Waker>) {
        let mut inner = lock(&self.inner);
        // Under the lock (invariant 4).
        if self.is_ended() {
            return (Poll::Ready(()), Some(waker));
        }
        match place.0.and_then(|place| inner.waiters.get_mut(place)) {
            Some(known) => (Poll::Pending, Some(std::mem::replace(known, waker))),
            None => {
                place.0 = Some(inner.waiters.insert(waker));
                (Poll::Pending, None)
            }
        }
    }

    /// Withdraws a waiter.
    pub(crate) fn leave(&self, place: &mut Place) {
        let Some(place) = place.0.take() else { return };
        let waker = lock(&self.inner).waiters.remove(place);
        drop(waker);
    }

    /// Registers a callback, or calls it at once if the node has ended.
    pub(crate) fn add_callback(self: &Arc<Self>, callback: Callback) -> Option<usize> {
        if !self.is_done() {
            let mut inner = lock(&self.inner);
            if !self.is_ended() {
                return Some(inner.callbacks.insert(callback));
            }
        }
        if let Some(end) = self.end.get() {
            tell::call_now(callback, end.clone());
        }
        None
    }

    /// Takes a callback out; whether that prevented it.
    pub(crate) fn remove_callback(&self, place: usize) -> bool {
        let callback = lock(&self.inner).callbacks.remove(place);
        callback.is_some()
    }

    /// Lets a callback stand without its guard: the node stays alive until it ends.
    ///
    /// On a node that cannot end the callback could never run; it is dropped.
    pub(crate) fn detach_callback(self: &Arc<Self>, place: usize) {
        if !self.can_end {
            self.remove_callback(place);
            return;
        }
        let mut inner = lock(&self.inner);
        if inner.callbacks.get_mut(place).is_some() && inner.keeper.is_none() && !inner.is_endless {
            inner.keeper = Some(Arc::clone(self));
        }
    }

    /// How many wait on this node: children, waiters and callbacks.
    pub(crate) fn load(&self) -> [usize; 3] {
        let inner = lock(&self.inner);
        [inner.children.len(), inner.waiters.len(), inner.callbacks.len()]
    }
}

impl Expire for Node {
    fn expire(self: Arc<Self>) {
        self.pass();
    }
}

impl Drop for Node {
    /// Takes the node out of its parents' lists and frees those of its ancestors that nothing else holds, in a loop
    /// (invariant 7).
    fn drop(&mut self) {
        let mut left = Vec::new();
        self.part(&mut left);
        while let Some(parent) = left.pop() {
            if let Some(mut parent) = Arc::into_inner(parent) {
                parent.part(&mut left);
            }
        }
    }
}

impl Node {
    /// Gives up everything that refers to the node from elsewhere; its links go to `left`.
    fn part(&mut self, left: &mut Vec<Arc<Node>>) {
        for Link { parent, place } in self.parents.take().into_iter().flatten() {
            if let Some(place) = place {
                drop(lock(&parent.inner).children.remove(place));
            }
            left.push(parent);
        }
        // Taken in a statement of its own: the lock is let go of before the timers' is asked for (invariant 6).
        let timer = lock(&self.inner).timer.take();
        if let Some(key) = timer {
            self.timers().remove(key);
        }
        if std::mem::take(&mut self.listed) {
            inspect::gone(std::ptr::from_ref(self).addr());
        }
    }
}

impl Link {
    /// Enters `child` in `parent`'s list, unless the parent has ended (invariant 3) or never will.
    fn enter(parent: &Arc<Node>, child: &Arc<Node>) -> Link {
        if !parent.can_end {
            return Link {
                parent: Arc::clone(parent),
                place: None,
            };
        }
        let mut inner = lock(&parent.inner);
        let place = (!parent.is_ended()).then(|| inner.children.insert(Arc::downgrade(child)));
        drop(inner);
        Link {
            parent: Arc::clone(parent),
            place,
        }
    }
}

impl Inner {
    fn new() -> Inner {
        Inner {
            children: Slab::new(),
            waiters: Slab::new(),
            callbacks: Slab::new(),
            timer: None,
            keeper: None,
            is_given_up: false,
            is_endless: false,
            name: None,
            reason: Reason::Deadline,
            cause: None,
        }
    }
}

/// What ends a node.
enum Event {
    Canceled(Blame),
    /// The own deadline has passed.
    Deadline,
    /// A parent ended.
    Inherited(Canceled),
    /// A parent had ended before this node was made.
    Born(Canceled),
}

/// One walk over a node and all below it: first it marks, then it settles (invariant 5).
struct Walk {
    /// Read before the first lock is taken (invariant 6).
    now: Instant,
    /// The clock that was read; `None` for the system's. A merged context may have parents with another clock.
    timers: Option<Arc<Timers>>,
    /// Marked, but their children not yet.
    open: Vec<Arc<Node>>,
    marked: Vec<Arc<Node>>,
    /// What kept settled nodes with detached callbacks alive.
    keepers: Vec<Arc<Node>>,
}

impl Walk {
    fn new(node: &Arc<Node>) -> Walk {
        Walk {
            now: node.timers().clock().now(),
            timers: node.own_timers(),
            open: Vec::new(),
            marked: Vec::new(),
            keepers: Vec::new(),
        }
    }

    fn reads_clock_of(&self, node: &Node) -> bool {
        match (&self.timers, &node.timers) {
            (None, None) => true,
            (Some(read), Some(own)) => Arc::ptr_eq(read, own),
            _ => false,
        }
    }

    /// Marks everything below what has been marked.
    fn mark_below(&mut self) {
        while let Some(node) = self.open.pop() {
            // The upgraded handles must not be dropped under the lock: they are moved out of the statement.
            let children: Vec<_> = lock(&node.inner)
                .children
                .iter()
                .filter_map(Weak::upgrade)
                .collect();
            if let Some(end) = node.end.get() {
                let event = Event::Inherited(end.clone());
                for child in children {
                    self.mark(child, &event);
                }
            }
            self.marked.push(node);
        }
    }

    /// Marks one node; whether this walk is what ended it.
    fn mark(&mut self, node: Arc<Node>, event: &Event) -> bool {
        let inner = lock(&node.inner);
        // Relaxed: the state is written under this lock.
        let state = node.state.load(Ordering::Relaxed);
        let first = state < DONE;
        if first {
            let end = node.end_by(event, &inner, self);
            assert!(node.end.set(end).is_ok(), "a context ended twice");
            // Release: pairs with the Acquire loads in `is_done` and `is_ended`, which then read `end`.
            node.state.store(DONE, Ordering::Release);
        }
        drop(inner);
        if first && node.listed {
            if let Some(end) = node.end.get().filter(|end| end.scope().1 == node.id) {
                inspect::ended(Arc::as_ptr(&node).addr(), end.clone(), Instant::now());
            }
        }
        if state != SETTLED {
            self.open.push(node);
        }
        first
    }

    /// Takes everybody who is to be told out of the lists.
    fn settle(&mut self) -> Tell {
        let mut tell = Tell::default();
        for node in &self.marked {
            let Some(end) = node.end.get() else { continue };
            let mut inner = lock(&node.inner);
            let (waiters, callbacks) = (inner.waiters.take_all(), inner.callbacks.take_all());
            let children = inner.children.take_all();
            let timer = inner.timer.take();
            self.keepers.extend(inner.keeper.take());
            // Release: pairs with the Acquire load in `end_with`; every mark of this walk happened before.
            node.state.store(SETTLED, Ordering::Release);
            drop(inner);
            waiters.for_each(|waker| tell.wake(waker));
            callbacks.for_each(|callback| tell.call(callback, end.clone(), Some(NodeRef(Arc::clone(node)))));
            drop(children);
            if let Some(key) = timer {
                node.timers().remove(key);
            }
        }
        tell
    }
}

impl Node {
    /// The end that `event` gives this node: its own deadline's, if that has passed (invariant 9).
    fn end_by(&self, event: &Event, inner: &Inner, walk: &Walk) -> Canceled {
        let passed =
            self.owns_deadline && walk.reads_clock_of(self) && self.deadline.is_some_and(|at| at <= walk.now);
        let blame = match event {
            Event::Born(end) => return end.clone(),
            Event::Deadline => None,
            _ if passed => None,
            Event::Inherited(end) => return end.clone(),
            Event::Canceled(blame) => Some(blame),
        };
        Canceled::new(match blame {
            None => End {
                kind: Kind::DeadlineExceeded,
                reason: inner.reason,
                cause: inner.cause.clone(),
                origin: self.made_at(),
                was_called: false,
                scope: self.id.into(),
                name: inner.name,
                at: Some(walk.now),
            },
            Some(blame) => blame.end(self.id.into(), inner.name, Some(walk.now)),
        })
    }
}
