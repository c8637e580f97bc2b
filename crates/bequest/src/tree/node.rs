//! The handle to a node, and what can be read through it.

use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use super::bell;
use super::end;
use super::endless;
use super::layout::Ptr;
use super::link::{self, List};
use super::release;
use super::stamp::Stamp;
use super::state::{
    ARMED, BEGAN, DONE, HAS_AT, LISTED, LOCKED, Locked, ORPHAN, OWNS, RARE, ROOT, SETTLED, UNARMED, is_pinned,
};
use super::timer::Timers;
use super::walk::{self, Event};
use super::{Blame, record, tell, wheel};
use crate::canceled::{Canceled, Cause, ScopeId};
use crate::label::Label;
use crate::reason::Reason;
use crate::sync::atomic::Ordering;

/// A counted handle to a node.
pub(crate) struct NodeRef(NonNull<()>);

// SAFETY: see `Ptr`.
unsafe impl Send for NodeRef {}
// SAFETY: see `Ptr`.
unsafe impl Sync for NodeRef {}

/// More handles than this and the process ends, as `Arc` does: the count must not wrap.
const MOST_HANDLES: u32 = i32::MAX as u32;

impl NodeRef {
    /// A handle that takes over one that is counted.
    pub(super) fn own(ptr: Ptr) -> NodeRef {
        // SAFETY: a pointer to a node is not null.
        NodeRef(unsafe { NonNull::new_unchecked(ptr.raw().cast()) })
    }

    #[inline]
    pub(super) fn ptr(&self) -> Ptr {
        // SAFETY: this handle holds the node.
        unsafe { Ptr::held(self.0.as_ptr().cast()) }.expect("not null")
    }

    /// Gives the handle up without counting it down.
    pub(super) fn into_raw(self) -> Ptr {
        ManuallyDrop::new(self).ptr()
    }

    /// Whether it has ended. One load; the first look at an own deadline reads the clock.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        is_done(self.ptr())
    }

    /// The end, once there is one. Looks as [`is_done`](NodeRef::is_done) does.
    #[inline]
    pub(crate) fn end(&self) -> Option<Canceled> {
        if self.is_done() { Some(self.known()) } else { None }
    }

    /// The end of a node that has ended. Out of line, so that asking a live one is short.
    #[cold]
    #[inline(never)]
    fn known(&self) -> Canceled {
        end::of(self.ptr()).canceled()
    }

    /// The end as far as it is known, without a look at the clock.
    pub(crate) fn known_end(&self) -> Option<Canceled> {
        known_end(self.ptr())
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ptr().deadline().instant()
    }

    pub(crate) fn owns_deadline(&self) -> bool {
        self.ptr().state.load() & OWNS != 0
    }

    /// Whether somebody has the right to cancel this node. Roots cannot end.
    pub(crate) fn can_end(&self) -> bool {
        self.ptr().state.load() & ROOT == 0
    }

    /// The queue of its clock; `None` for the system's.
    pub(crate) fn timers(&self) -> Option<&Arc<Timers>> {
        // SAFETY: the node lives as long as this handle, and the field never changes.
        self.ptr()
            .full()
            .and_then(|full| unsafe { &*std::ptr::from_ref(full) }.timers.as_ref())
    }

    pub(crate) fn made_at(&self) -> &'static Location<'static> {
        self.ptr().made_at()
    }

    pub(crate) fn id(&self) -> ScopeId {
        id(self.ptr())
    }

    pub(crate) fn name(&self) -> Option<&'static str> {
        name(self.ptr())
    }

    /// The nodes that it ends with, the nearest of the first first.
    pub(crate) fn parents(&self) -> Vec<NodeRef> {
        parents(self.ptr()).into_iter().map(adopt).collect()
    }

    pub(crate) fn set_name(&self, name: &'static str) {
        let ptr = self.ptr();
        let _own = ptr.state.lock();
        // SAFETY: under the lock.
        unsafe { ptr.details_or_new() }.name = Some(name);
    }

    /// The reason that the own deadline's passing will have.
    pub(crate) fn set_reason(&self, reason: Reason) {
        let ptr = self.ptr();
        let _own = ptr.state.lock();
        // SAFETY: under the lock.
        unsafe { ptr.details_or_new() }.reason = reason;
    }

    /// Both of them in one step.
    #[inline]
    pub(crate) fn set_label(&self, label: &'static Label) {
        let ptr = self.ptr();
        let _own = ptr.state.lock();
        // SAFETY: under the lock.
        unsafe { ptr.set_label(label) };
    }

    /// The cause that the own deadline's passing will have.
    pub(crate) fn set_cause(&self, cause: Cause) {
        let ptr = self.ptr();
        let own = ptr.state.lock();
        // SAFETY: under the lock.
        let old = unsafe { ptr.details_or_new() }.cause.replace(cause);
        drop(own);
        // Outside the lock: its destructor is foreign.
        drop(old);
    }

    /// Ends the node and everything below it. When the call returns, all of them read as done, whoever was first.
    pub(crate) fn cancel(&self, blame: Blame) {
        let is_told = match end::unseen(blame.reason, blame.origin) {
            Some(word) if blame.cause.is_none() => end_unseen(self.ptr(), word),
            _ => false,
        };
        if !is_told {
            self.end_seen(blame);
        }
    }

    /// As [`cancel`](NodeRef::cancel), for [`Reason::Explicit`] and without a cause, which is by far the most common.
    #[inline(always)]
    pub(crate) fn cancel_explicitly(&self, origin: &'static Location<'static>) {
        if !end_unseen(self.ptr(), end::explicit(origin)) {
            self.end_explicitly(origin);
        }
    }

    #[inline(never)]
    fn end_explicitly(&self, origin: &'static Location<'static>) {
        self.end_seen(Blame {
            reason: Reason::Explicit,
            cause: None,
            origin,
        });
    }

    #[inline(never)]
    fn end_seen(&self, blame: Blame) {
        let ptr = self.ptr();
        walk::end_what_has_passed(ptr);
        walk::end_with(ptr, &Event::Canceled(blame), tell::Run::Here);
    }

    /// The owner goes: the scope has ended.
    #[inline(always)]
    pub(crate) fn end_scope(&self) {
        let ptr = self.ptr();
        let has_ended = ptr.state.load() & DONE != 0 && ptr.kids.load(Ordering::Relaxed).is_null();
        if !has_ended {
            self.end_live_scope();
        }
    }

    #[inline(never)]
    fn end_live_scope(&self) {
        // What nobody can see need not be written down: the node is freed next.
        if self.is_unobserved() {
            return;
        }
        self.cancel(Blame {
            reason: Reason::ScopeEnded,
            cause: None,
            origin: self.ptr().made_at(),
        });
    }

    /// Whether it has not ended, and nobody but the owner could see that it does.
    #[inline]
    pub(crate) fn is_unobserved(&self) -> bool {
        let ptr = self.ptr();
        let no_waiter = ptr.tail.load(Ordering::Relaxed).is_null();
        self.is_alone() && no_waiter && ptr.state.load() & DONE == 0
    }

    /// Whether this is the only handle and there is no child. If so it stays so.
    #[inline]
    fn is_alone(&self) -> bool {
        let ptr = self.ptr();
        // Acquire: pairs with the Release decrement of whoever was here before.
        ptr.handles.load(Ordering::Acquire) == 1
            && ptr.kids.load(Ordering::Acquire).is_null()
            && ptr.state.load() & LISTED == 0
    }

    /// Counts a handle down, of which there were `handles` a moment ago, unless it is the last; whether it is.
    #[inline]
    fn count_down(&self, handles: u32) -> bool {
        let (count, mut handles) = (&self.ptr().handles, handles);
        while handles != 1 {
            match count.compare_exchange_weak(handles, handles - 1, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => handles = now,
            }
        }
        true
    }

    /// Nobody has the right to cancel this node any more. If nothing else can end it either, now or once that is true of its
    /// parents, a detached callback no longer keeps it alive: it could never run.
    pub(crate) fn give_up(&self) {
        endless::give_up(self);
    }
}

impl Clone for NodeRef {
    #[inline]
    fn clone(&self) -> NodeRef {
        // Relaxed: a new handle is made from one that is held, as `Arc` does.
        let handles = self.ptr().handles.fetch_add(1, Ordering::Relaxed);
        if handles > MOST_HANDLES {
            std::process::abort();
        }
        NodeRef(self.0)
    }
}

impl Drop for NodeRef {
    #[inline]
    fn drop(&mut self) {
        let ptr = self.ptr();
        // Acquire: pairs with the Release decrements of those who went before.
        let handles = ptr.handles.load(Ordering::Acquire);
        // The last handle is not counted down here but under the node's lock: from a count of nought a child's owner
        // could make a handle anew (`adopt`), and two threads would then believe that theirs was the last.
        if handles == 1 || self.count_down(handles) {
            // SAFETY: this is the last handle, and it is not used any more.
            unsafe { release::release(ptr) };
        }
    }
}

impl fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRef({})", self.id())
    }
}

/// Ends a node that nobody else can see: no other handle, nobody who waits, and no child but such as have ended, which
/// see their own end. Whether it was one. `word` is the end, as [`end::unseen`] makes it.
#[inline(always)]
fn end_unseen(ptr: Ptr, word: *mut ()) -> bool {
    // Acquire: pairs with the Release decrement of whoever was here before. If this is the only handle it stays so: who
    // could derive or clone?
    let is_only = ptr.handles.load(Ordering::Acquire) == 1;
    let bits = ptr.state.load();
    // Full nodes are few, and may have a clock of their own.
    if !is_only || bits & (LISTED | RARE) != 0 {
        return false;
    }
    if !ptr.kids.load(Ordering::Relaxed).is_null() {
        // The walk looks whether they have ended.
        return false;
    }
    if bits & (LOCKED | HAS_AT | DONE) == 0 {
        if let Some(mut own) = ptr.state.lock_from(bits) {
            let is_leaf = ptr.kids.load(Ordering::Relaxed).is_null();
            if is_leaf && ptr.tail.load(Ordering::Relaxed).is_null() {
                ptr.tail.store(word, Ordering::Relaxed);
                own.bits |= DONE | BEGAN | SETTLED;
                return true;
            }
        }
    }
    end_unseen_slowly(ptr, word)
}

/// As [`end_unseen`], with a deadline, or somebody else at work on the node.
#[inline(never)]
fn end_unseen_slowly(ptr: Ptr, word: *mut ()) -> bool {
    // Before the lock is taken, since it is not a matter of two instructions.
    let at = ptr.deadline();
    if at != Stamp::NEVER && !at.is_far_off() {
        return false;
    }
    let mut own = ptr.state.lock();
    let is_leaf = ptr.kids.load(Ordering::Relaxed).is_null();
    // Nobody can have come meanwhile but a walk from above, which has been first then.
    if own.has(DONE) {
        return own.has(SETTLED) || is_leaf;
    }
    if !is_leaf || !ptr.tail.load(Ordering::Relaxed).is_null() {
        return false;
    }
    note_unseen(ptr, &mut own, word);
    true
}

/// As [`end_unseen`], under the node's lock, by a walk that may find that all children have ended.
pub(super) fn end_unseen_by(ptr: Ptr, own: &mut Locked<'_>, blame: &Blame) -> bool {
    let is_only = ptr.handles.load(Ordering::Acquire) == 1;
    if !is_only || own.has(LISTED | RARE | DONE) || blame.cause.is_some() {
        return false;
    }
    let Some(word) = end::unseen(blame.reason, blame.origin) else {
        return false;
    };
    let at = ptr.deadline();
    let is_unseen = (at == Stamp::NEVER || at.is_far_off())
        && !record::has_waiters(ptr, own)
        && link::has_only_ended_children(ptr, own);
    if is_unseen {
        note_unseen(ptr, own, word);
    }
    is_unseen
}

/// Writes an end that nobody sees. Under the lock of a live node on the system's clock.
#[inline]
fn note_unseen(ptr: Ptr, own: &mut Locked<'_>, word: *mut ()) {
    if own.has(ARMED) {
        disarm_in_wheel(ptr);
    }
    ptr.tail.store(word, Ordering::Relaxed);
    own.bits = own.bits & !(UNARMED | ARMED) | DONE | BEGAN | SETTLED;
}

#[inline]
pub(super) fn is_done(ptr: Ptr) -> bool {
    let bits = ptr.state.load();
    if bits & (DONE | UNARMED) == 0 {
        return false;
    }
    bits & DONE != 0 || look(ptr)
}

/// The first look at an own deadline: ends the node if it has passed, arms the timer if not.
#[inline(never)]
fn look(ptr: Ptr) -> bool {
    let at = ptr.deadline();
    let timers = ptr.timers();
    if timers.map_or_else(|| at.has_come(), |timers| has_come_on(timers, at)) {
        walk::pass(ptr);
        return true;
    }
    match timers {
        None => arm_in_wheel(ptr),
        Some(timers) => bell::arm_node(ptr, timers, at),
    }
}

/// Whether `at` has come on the node's clock.
pub(super) fn has_come(ptr: Ptr, at: Stamp) -> bool {
    ptr.timers()
        .map_or_else(|| at.has_come(), |timers| has_come_on(timers, at))
}

#[cold]
fn has_come_on(timers: &Timers, at: Stamp) -> bool {
    at <= Stamp::of(timers.clock().now())
}

/// Arms the node's deadline, unless another look was first; whether the node has ended meanwhile.
fn arm_in_wheel(ptr: Ptr) -> bool {
    let Some(entry) = ptr.entry() else { return false };
    wheel::start();
    let mut own = ptr.state.lock();
    if !own.has(UNARMED) {
        return own.has(DONE);
    }
    own.bits = own.bits & !UNARMED | ARMED;
    // SAFETY: the entry is the node's, in no wheel, and the node leaves the wheel before it is freed.
    let ring = unsafe { wheel::insert(entry) };
    drop(own);
    ring.announce();
    false
}

/// Takes the node out of the wheel, or out of its clock's queue. Under its lock.
pub(super) fn disarm(ptr: Ptr, own: &mut Locked<'_>) {
    own.bits &= !ARMED;
    if let Some((timers, full)) = ptr.timers().zip(ptr.full()) {
        let key = bell::lock(&full.key).take();
        if let Some(key) = key {
            timers.remove(key);
        }
    } else {
        disarm_in_wheel(ptr);
    }
}

/// Takes a node that is armed on the system's clock out of the wheel. Under its lock.
#[inline]
fn disarm_in_wheel(ptr: Ptr) {
    if let Some(entry) = ptr.entry() {
        // SAFETY: the entry is the node's, and armed on the system's clock.
        unsafe { wheel::remove(entry) };
    }
}

pub(super) fn known_end(ptr: Ptr) -> Option<Canceled> {
    (ptr.state.load() & DONE != 0).then(|| end::of(ptr).canceled())
}

pub(super) fn id(ptr: Ptr) -> ScopeId {
    let own = ptr.state.lock();
    // SAFETY: under the lock.
    let id = unsafe { ptr.said() }.id;
    if id != 0 {
        return ScopeId::known(id);
    }
    if own.has(DONE) && own.has(BEGAN) {
        return end::make_seen(ptr, &own).scope();
    }
    // SAFETY: under the lock.
    let details = unsafe { ptr.details_or_new() };
    let id = ScopeId::next();
    details.id = id.get();
    id
}

pub(super) fn name(ptr: Ptr) -> Option<&'static str> {
    let _own = ptr.state.lock();
    // SAFETY: under the lock.
    unsafe { ptr.said() }.name
}

/// The nodes that it ends with. They are held as long as the node is (invariant 1).
pub(super) fn parents(ptr: Ptr) -> Vec<Ptr> {
    let tethers = ptr.full().map(|full| bell::lock(&full.tethers).clone());
    let merged = tethers.into_iter().flatten().filter_map(|tether| tether.parent);
    ptr.parent.into_iter().chain(merged).collect()
}

/// A handle to a node that is held by a child of it, even if it has no handle left.
fn adopt(parent: Ptr) -> NodeRef {
    adopt_under(parent, &mut parent.state.lock())
}

/// As [`adopt`], under the node's lock, of a node that is not being freed.
pub(super) fn adopt_under(ptr: Ptr, own: &mut Locked<'_>) -> NodeRef {
    // Under the lock: whoever makes it an orphan counts under it too.
    let handles = ptr.handles.fetch_add(1, Ordering::Relaxed);
    if handles > MOST_HANDLES {
        std::process::abort();
    }
    own.bits &= !ORPHAN;
    NodeRef::own(ptr)
}

/// How many children of a node are live, and how many there are with those that have ended and are still held. Under one
/// list's lock at a time.
pub(super) fn count_children(ptr: Ptr) -> (usize, usize) {
    let (mut live, mut all) = (0, 0);
    for list in 0..link::lists(ptr.state.load()) {
        let list = List::lock(&ptr, list);
        for child in std::iter::successors(list.head(), |child| list.after(*child)) {
            all += 1;
            live += usize::from(child.state.load() & DONE == 0);
        }
    }
    (live, all)
}

/// The node's bits, if nobody is at work on it and nothing is below it, so that it may be freed by whoever keeps walks and
/// timers away from it.
#[inline]
pub(super) fn if_quiet(ptr: Ptr) -> Option<u32> {
    // Acquire: pairs with the Release store of the child that left last. If that is seen, so is at least the lock under
    // which it was written, in the load that follows.
    if !ptr.kids.load(Ordering::Acquire).is_null() {
        return None;
    }
    let bits = ptr.state.load();
    (bits & (LOCKED | ARMED | LISTED) == 0 && !is_pinned(bits)).then_some(bits)
}
