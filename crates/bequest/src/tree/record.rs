//! Those who wait on a node: a ring of records, each a waker or a callback, in the order of their arrival.
//!
//! A record is the waiter's own piece of memory, so that entering and leaving is a matter of four pointers; the node
//! only knows the first. While it is queued its content is guarded by the node's lock; afterwards it is its owner's. The
//! walk that marks the node empties the ring under that lock, before the mark is published; so whoever reads the mark
//! knows that the record is not queued any more, without the lock (invariant 4).

use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::task::{Context as TaskContext, Poll, Waker};

use super::layout::Ptr;
use super::pool::{self, Pooled};
use super::state::{DONE, ENDLESS, KEPT, Locked, ROOT};
use super::tell::{self, Callback, Tell};
use super::{NodeRef, end};
use crate::sync::atomic::Ordering;

pub(super) struct Record {
    /// Neighbours in the ring; guarded by the node's lock.
    next: AtomicPtr<Record>,
    prev: AtomicPtr<Record>,
    /// Nobody but the ring knows the record: whoever takes it out frees it. Guarded by the node's lock.
    detached: AtomicBool,
    /// Guarded by the node's lock while it is queued.
    content: UnsafeCell<Content>,
}

enum Content {
    Waker(Waker),
    Callback(Callback),
    /// It was told, or the ring let go of it.
    Nothing,
}

impl Pooled for Record {
    const LIST: usize = 2;
}

/// A future's place among those who wait on a node.
#[derive(Default)]
pub(crate) struct Place {
    /// There from the first pending poll to the end of the wait.
    record: Option<NonNull<Record>>,
    /// Which waker is in the record, to be compared without the lock; nobody's while there is no record in the ring.
    waker: Identity,
}

/// What makes a waker the same as another.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Identity {
    data: *const (),
    /// Null of no waker.
    vtable: *const (),
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            data: ptr::null(),
            vtable: ptr::null(),
        }
    }
}

// SAFETY: it is compared and never followed.
unsafe impl Send for Identity {}
// SAFETY: as above.
unsafe impl Sync for Identity {}

// SAFETY: the record is shared with the node alone, under its lock, and its content can be sent.
unsafe impl Send for Place {}
// SAFETY: as above; through a shared place nothing can be done.
unsafe impl Sync for Place {}

/// The registration of a callback.
pub(crate) struct Ticket(NonNull<Record>);

// SAFETY: as for `Place`.
unsafe impl Send for Ticket {}
// SAFETY: as for `Place`.
unsafe impl Sync for Ticket {}

impl Identity {
    #[inline]
    pub(super) fn of(waker: &Waker) -> Identity {
        Identity {
            data: waker.data(),
            vtable: ptr::from_ref(waker.vtable()).cast(),
        }
    }
}

impl NodeRef {
    /// Polls for the end; enters the task's waker if it has not come.
    #[inline]
    pub(crate) fn poll_end(&self, place: &mut Place, task: &TaskContext<'_>) -> Poll<()> {
        if self.is_done() {
            return Poll::Ready(());
        }
        // A node that was live after the waker had been entered will wake it: no lock.
        let waker = Identity::of(task.waker());
        if place.waker == waker {
            return Poll::Pending;
        }
        let has_ended = match place.record {
            None => self.enter(place, task.waker()),
            Some(record) => self.exchange(record, task.waker()),
        };
        if has_ended {
            return Poll::Ready(());
        }
        place.waker = waker;
        Poll::Pending
    }

    /// Enters a waiter; whether the node has ended meanwhile.
    #[inline(never)]
    fn enter(&self, place: &mut Place, waker: &Waker) -> bool {
        // Cloned before the lock is taken: a waker is foreign (invariant 6).
        let record = Record::make(Content::Waker(waker.clone()));
        let ptr = self.ptr();
        let own = ptr.state.lock();
        // Under the lock (invariant 4).
        if own.has(DONE) {
            drop(own);
            // SAFETY: it never was in a ring.
            unsafe { Record::free(record) };
            return true;
        }
        // SAFETY: under the lock, and it is in no ring.
        unsafe { enqueue(ptr, record) };
        drop(own);
        place.record = Some(record);
        false
    }

    /// Gives a record that was entered another waker; whether the node has ended meanwhile.
    #[cold]
    #[inline(never)]
    fn exchange(&self, record: NonNull<Record>, waker: &Waker) -> bool {
        // Cloned before the lock is taken, and what is not needed is dropped after it.
        let content = Content::Waker(waker.clone());
        let ptr = self.ptr();
        let own = ptr.state.lock();
        if own.has(DONE) {
            drop(own);
            drop(content);
            return true;
        }
        // SAFETY: under the lock of the live node in whose ring it is.
        let old = unsafe { Record::exchange(record, content) };
        drop(own);
        drop(old);
        false
    }

    /// Withdraws a waiter.
    #[inline]
    pub(crate) fn leave(&self, place: &mut Place) {
        if let Some(record) = place.record.take() {
            place.waker = Identity::default();
            self.withdraw(record);
        }
    }

    #[inline(never)]
    fn withdraw(&self, record: NonNull<Record>) {
        let ptr = self.ptr();
        if ptr.state.load() & DONE == 0 {
            let own = ptr.state.lock();
            if !own.has(DONE) {
                // SAFETY: under the lock of the live node in whose ring it is.
                unsafe { dequeue(ptr, record) };
            }
        }
        // SAFETY: it is in no ring, so it is this place's alone; a walk that emptied the ring published that with the
        // mark, which was read with Acquire or under the lock.
        unsafe { Record::free(record) };
    }

    /// Registers a callback, or calls it at once if the node has ended.
    pub(crate) fn add_callback(&self, callback: Callback) -> Option<Ticket> {
        let ptr = self.ptr();
        if !self.is_done() {
            let record = Record::make(Content::Callback(callback));
            let own = ptr.state.lock();
            if !own.has(DONE) {
                // SAFETY: under the lock, and it is in no ring.
                unsafe { enqueue(ptr, record) };
                return Some(Ticket(record));
            }
            drop(own);
            // SAFETY: it never was in a ring.
            if let Content::Callback(callback) = unsafe { Record::take(record) } {
                self.call_now(callback);
            }
            return None;
        }
        self.call_now(callback);
        None
    }

    fn call_now(&self, callback: Callback) {
        if let Some(end) = self.known_end() {
            tell::call_now(callback, end);
        }
    }

    /// Takes a callback out; whether that prevented it.
    pub(crate) fn remove_callback(&self, ticket: Ticket) -> bool {
        let (ptr, record) = (self.ptr(), ticket.0);
        let mut prevented = false;
        if ptr.state.load() & DONE == 0 {
            let own = ptr.state.lock();
            if !own.has(DONE) {
                // SAFETY: under the lock of the live node in whose ring it is.
                unsafe { dequeue(ptr, record) };
                prevented = true;
            }
        }
        // SAFETY: as in `withdraw`. The callback is dropped here, outside the lock.
        unsafe { Record::free(record) };
        prevented
    }

    /// Lets a callback stand without its guard: the node stays alive until it ends.
    ///
    /// On a node that cannot end the callback could never run; it is dropped.
    pub(crate) fn detach_callback(&self, ticket: Ticket) {
        let ptr = self.ptr();
        let mut own = ptr.state.lock();
        if own.has(DONE | ROOT | ENDLESS) {
            drop(own);
            self.remove_callback(ticket);
            return;
        }
        // SAFETY: queued in the ring of this live node, under its lock.
        unsafe { ticket.0.as_ref() }
            .detached
            .store(true, Ordering::Relaxed);
        if !own.has(KEPT) {
            own.bits |= KEPT;
            // Taken over by the walk that ends the node, or by `give_up`.
            self.clone().into_raw();
        }
    }
}

/// How many futures and callbacks wait on a node.
pub(super) fn waiting(ptr: Ptr) -> usize {
    let own = ptr.state.lock();
    if own.has(DONE) {
        return 0;
    }
    let first = NonNull::new(ptr.tail.load(Ordering::Relaxed).cast::<Record>());
    let next = |record: &NonNull<Record>| {
        // SAFETY: in the ring, under the lock.
        let next = NonNull::new(unsafe { record.as_ref() }.next.load(Ordering::Relaxed));
        next.filter(|next| Some(*next) != first)
    };
    std::iter::successors(first, next).count()
}

impl Record {
    fn make(content: Content) -> NonNull<Record> {
        pool::make(Record {
            next: AtomicPtr::new(ptr::null_mut()),
            prev: AtomicPtr::new(ptr::null_mut()),
            detached: AtomicBool::new(false),
            content: UnsafeCell::new(content),
        })
    }

    /// # Safety
    ///
    /// The caller has the lock of the node in whose ring the record is, or the record to itself.
    unsafe fn exchange(record: NonNull<Record>, content: Content) -> Content {
        // SAFETY: as the caller promises, nobody else uses the content now.
        unsafe { std::mem::replace(&mut *record.as_ref().content.get(), content) }
    }

    /// Drops the content, which is foreign, and gives the memory back.
    ///
    /// # Safety
    ///
    /// The record is in no ring, nobody else uses it, and no lock is held.
    unsafe fn free(record: NonNull<Record>) {
        // SAFETY: as the caller promises.
        drop(unsafe { Record::take(record) });
    }

    /// Takes the content out and gives the memory back.
    ///
    /// # Safety
    ///
    /// As [`free`](Record::free).
    unsafe fn take(record: NonNull<Record>) -> Content {
        // SAFETY: as the caller promises; the content is read once, since the record is freed once.
        unsafe {
            let content = record.as_ref().content.get().read();
            pool::free(Record::LIST, record.cast());
            content
        }
    }
}

/// Enters `record` as the last of the ring.
///
/// # Safety
///
/// Under the node's lock; the node is live and the record is in no ring.
unsafe fn enqueue(node: Ptr, record: NonNull<Record>) {
    let first = node.tail.load(Ordering::Relaxed).cast::<Record>();
    // SAFETY: the record is valid, and so is all that is in the ring of a live node under its lock.
    unsafe {
        let mine = record.as_ref();
        match first.as_ref() {
            None => {
                mine.next.store(record.as_ptr(), Ordering::Relaxed);
                mine.prev.store(record.as_ptr(), Ordering::Relaxed);
                node.tail.store(record.as_ptr().cast(), Ordering::Relaxed);
            }
            Some(head) => {
                let last = head.prev.load(Ordering::Relaxed);
                mine.next.store(first, Ordering::Relaxed);
                mine.prev.store(last, Ordering::Relaxed);
                (*last).next.store(record.as_ptr(), Ordering::Relaxed);
                head.prev.store(record.as_ptr(), Ordering::Relaxed);
            }
        }
    }
}

/// Takes `record` out of the ring.
///
/// # Safety
///
/// Under the node's lock; the node is live and the record is in its ring.
unsafe fn dequeue(node: Ptr, record: NonNull<Record>) {
    // SAFETY: the record and its neighbours are in the ring of a live node under its lock.
    unsafe {
        let (next, prev) = {
            let mine = record.as_ref();
            (
                mine.next.load(Ordering::Relaxed),
                mine.prev.load(Ordering::Relaxed),
            )
        };
        if next == record.as_ptr() {
            node.tail.store(ptr::null_mut(), Ordering::Relaxed);
            return;
        }
        (*next).prev.store(prev, Ordering::Relaxed);
        (*prev).next.store(next, Ordering::Relaxed);
        if node.tail.load(Ordering::Relaxed) == record.as_ptr().cast() {
            node.tail.store(next.cast(), Ordering::Relaxed);
        }
    }
}

/// Empties the ring whose first record is `first` into `tell`; `keeper` is the node's own handle, if it had one.
///
/// # Safety
///
/// Under the node's lock; `first` is what the node's `tail` was, and the node is being marked.
pub(super) unsafe fn take_all(first: *mut (), end: &end::Raw, keeper: Option<NodeRef>, tell: &mut Tell) {
    let mut keeper = keeper;
    // SAFETY: `Ring` frees what nobody owns and leaves the rest, whose owners read the mark first.
    for content in unsafe { Ring::of(first) } {
        match content {
            Content::Waker(waker) => tell.wake(waker),
            Content::Callback(callback) => tell.call(callback, end.canceled(), keeper.take()),
            Content::Nothing => {}
        }
    }
    tell.keep(keeper);
}

/// What is left in the ring of a node that nobody can end any more: detached callbacks, to be dropped.
///
/// # Safety
///
/// The caller has the node to itself; it never ended, and `first` is its `tail`.
pub(super) unsafe fn take_left(first: *mut ()) -> Vec<Callback> {
    // SAFETY: as the caller promises; what is left is detached, since a guard would have held the node.
    unsafe { Ring::of(first) }
        .filter_map(|content| match content {
            Content::Callback(callback) => Some(callback),
            Content::Waker(_) | Content::Nothing => None,
        })
        .collect()
}

/// Goes round a ring once and takes it apart.
struct Ring {
    first: *mut Record,
    next: *mut Record,
}

impl Ring {
    /// # Safety
    ///
    /// The ring stays as it is while this is used, but for what this does.
    unsafe fn of(first: *mut ()) -> Ring {
        let first = first.cast::<Record>();
        Ring { first, next: first }
    }
}

impl Iterator for Ring {
    type Item = Content;

    fn next(&mut self) -> Option<Content> {
        let record = NonNull::new(self.next)?;
        // SAFETY: in the ring, which is ours as `of` was promised.
        let (next, content) = unsafe {
            let next = record.as_ref().next.load(Ordering::Relaxed);
            (next, Record::exchange(record, Content::Nothing))
        };
        self.next = if next == self.first { ptr::null_mut() } else { next };
        // SAFETY: as above; a detached record has no other owner, and its content was taken out.
        unsafe {
            if record.as_ref().detached.load(Ordering::Relaxed) {
                pool::free(Record::LIST, record.cast());
            }
        }
        Some(content)
    }
}

/// Whether anybody waits on a live node, as far as that can be told without its lock.
pub(super) fn has_waiters(node: Ptr, own: &Locked<'_>) -> bool {
    !own.has(DONE) && !node.tail.load(Ordering::Relaxed).is_null()
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("entered", &self.record.is_some())
            .finish()
    }
}
