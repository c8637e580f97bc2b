//! The lists of children: entering, leaving, and splitting a list that many threads use at once.
//!
//! A node has one list, guarded by its own lock. Once enough lock attempts have met another thread, the list becomes
//! [`SHARDS`] lists, each with a lock on a cache line of its own; a thread enters children in the list of its number.
//! A child remembers which, in its own state word. When the node becomes an orphan the lists are guarded by its own
//! lock again (`CLOSED`), so that the question "is there any child left?" has one place to be asked.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicUsize;

use super::layout::{Node, Ptr};
use super::node::if_quiet;
use super::state::{CLOSED, CROWDED, DONE, Locked, SETTLED, SHARDED, Word, shard, with_shard};
use crate::sync::EXPLORED;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// How many lists a split node has.
pub(super) const SHARDS: usize = if EXPLORED { 2 } else { 16 };

/// The lists of a split node.
pub(super) struct Shards([Shard; SHARDS]);

/// A list of its own, with its lock. Two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
struct Shard {
    lock: Word,
    /// Guarded by `lock`; by the node's own once that is `CLOSED`.
    first: AtomicPtr<Node>,
}

/// The lock of one list of children of `parent`.
pub(super) struct List<'p> {
    pub(super) parent: Ptr,
    pub(super) shard: usize,
    pub(super) lock: ListLock<'p>,
}

pub(super) enum ListLock<'p> {
    /// The node's own: its only list, or all of its lists since it has become an orphan.
    Own(Locked<'p>),
    Shard {
        /// Held for as long as the list is used.
        _lock: Locked<'p>,
    },
}

impl<'p> List<'p> {
    /// Locks the list of `parent` in which a child of number `shard` is.
    #[inline]
    pub(super) fn lock(parent: &'p Ptr, shard: usize) -> List<'p> {
        // SAFETY: the pointer is borrowed for as long as the lock is used, and so it is valid.
        unsafe { List::lock_of(*parent, shard) }
    }

    /// As [`lock`](List::lock), for as long as the caller says.
    ///
    /// # Safety
    ///
    /// The parent is held for as long as the lock is used.
    pub(super) unsafe fn lock_of(parent: Ptr, shard: usize) -> List<'p> {
        // SAFETY: as the caller promises.
        let node: &'p Node = unsafe { parent.node() };
        loop {
            if is_split(node.state.load()) {
                let lock = shards(node).0[shard].lock.lock();
                if let Some(list) = List::of_shard(parent, shard, lock) {
                    return list;
                }
            } else {
                let own = node.state.lock();
                if !is_split(own.bits) {
                    return List::of_own(parent, shard, own);
                }
            }
        }
    }

    /// The lock, if nobody has it.
    ///
    /// # Safety
    ///
    /// As [`lock_of`](List::lock_of).
    #[inline]
    pub(super) unsafe fn try_lock_of(parent: Ptr, shard: usize) -> Option<List<'p>> {
        // SAFETY: as the caller promises.
        let node: &'p Node = unsafe { parent.node() };
        if is_split(node.state.load()) {
            let lock = shards(node).0[shard].lock.try_lock()?;
            return List::of_shard(parent, shard, lock);
        }
        let own = node.state.try_lock()?;
        (!is_split(own.bits)).then(|| List::of_own(parent, shard, own))
    }

    /// The list by its own lock, unless its lists have been closed meanwhile. Whoever closes them holds all their locks,
    /// so this look settles it.
    fn of_shard(parent: Ptr, shard: usize, lock: Locked<'p>) -> Option<List<'p>> {
        is_split(parent.state.load()).then_some(List {
            parent,
            shard,
            lock: ListLock::Shard { _lock: lock },
        })
    }

    /// The first list of a node that has ended; `own` is the node's lock, if the caller has it, which is given back if the
    /// list has another.
    ///
    /// # Safety
    ///
    /// As [`lock_of`](List::lock_of).
    #[inline]
    pub(super) unsafe fn of_marked(parent: Ptr, own: Option<Locked<'p>>) -> List<'p> {
        match own {
            Some(own) if !is_split(own.bits) => List::of_own(parent, 0, own),
            own => {
                drop(own);
                // SAFETY: as the caller promises.
                unsafe { List::lock_of(parent, 0) }
            }
        }
    }

    /// The list of a node that is not split, by the node's own lock.
    #[inline]
    pub(super) fn of_own(parent: Ptr, shard: usize, own: Locked<'p>) -> List<'p> {
        List {
            parent,
            shard,
            lock: ListLock::Own(own),
        }
    }

    /// Locks the list that `child` is in.
    #[inline]
    pub(super) fn of_child(parent: &'p Ptr, child: Ptr) -> List<'p> {
        List::lock(parent, shard(child.state.load()))
    }

    /// Locks the list in which this thread enters children, and splits the node first if it has become crowded.
    #[inline]
    pub(super) fn for_entry(parent: &'p Ptr) -> List<'p> {
        let shard = if is_split(parent.state.load()) {
            own_shard()
        } else {
            0
        };
        let mut list = List::lock(parent, shard);
        if let ListLock::Own(own) = &mut list.lock {
            // Not once it has ended: a walk relies on the lists as it found them.
            if own.has(CROWDED) && !own.has(SHARDED | DONE) {
                split(*parent, own);
                drop(list);
                return List::lock(parent, own_shard());
            }
        }
        list
    }

    #[inline]
    fn first(&self) -> &AtomicPtr<Node> {
        match &self.lock {
            ListLock::Own(own) if own.bits & SHARDED == 0 => &self.parent_ref().kids,
            _ => &shards(&self.parent).0[self.shard].first,
        }
    }

    #[inline]
    fn parent_ref(&self) -> &Node {
        &self.parent
    }

    /// The first child of the list. Valid while the list is locked.
    #[inline]
    pub(super) fn head(&self) -> Option<Ptr> {
        // SAFETY: what is in a list is held by its lock.
        unsafe { Ptr::held(self.first().load(Ordering::Relaxed)) }
    }

    /// The child behind `child`. Valid while the list is locked.
    #[inline]
    pub(super) fn after(&self, child: Ptr) -> Option<Ptr> {
        // SAFETY: as in `head`.
        unsafe { Ptr::held(child.next.load(Ordering::Relaxed)) }
    }

    /// Enters a child that nobody else knows yet.
    #[inline]
    pub(super) fn enter(&self, child: Ptr) {
        push(self.first(), child);
    }

    /// The number to remember with a child that is entered here.
    pub(super) fn mark_shard(&self, bits: u32) -> u32 {
        with_shard(bits, self.shard)
    }

    /// Takes `child` out of this list.
    #[inline]
    pub(super) fn remove(&self, child: Ptr) {
        unlink(self.first(), child);
    }
}

/// Enters a child that nobody else knows yet in the list that begins at `first`. Under the list's lock.
#[inline]
pub(super) fn push(first: &AtomicPtr<Node>, child: Ptr) {
    let head = first.load(Ordering::Relaxed);
    child.next.store(head, Ordering::Relaxed);
    // SAFETY: what is in a list is held by its lock.
    if let Some(head) = unsafe { Ptr::held(head) } {
        head.prev.store(child.raw(), Ordering::Relaxed);
    }
    first.store(child.raw(), Ordering::Relaxed);
}

/// Takes `child` out of the list that begins at `first`. Under the list's lock.
#[inline]
pub(super) fn unlink(first: &AtomicPtr<Node>, child: Ptr) {
    let (next, prev) = (
        child.next.load(Ordering::Relaxed),
        child.prev.load(Ordering::Relaxed),
    );
    // SAFETY: neighbours are in the same list.
    if let Some(next) = unsafe { Ptr::held(next) } {
        next.prev.store(prev, Ordering::Relaxed);
    }
    // SAFETY: as above.
    match unsafe { Ptr::held(prev) } {
        Some(prev) => prev.next.store(next, Ordering::Relaxed),
        // Release: pairs with the Acquire load in `node::if_quiet`. Who sees that the last child has left sees the lock
        // as well under which it did, and waits for that.
        None => first.store(next, Ordering::Release),
    }
}

/// Enters a child that nobody else knows yet in this thread's list of a node whose lists are split; whether it could, since
/// the node was live and its lists were not closed.
#[inline]
pub(super) fn enter_split(parent: Ptr, child: Ptr) -> bool {
    let number = own_shard();
    // The caller has the child to itself.
    child.state.set(with_shard(child.state.load(), number));
    let shard = &shards(&parent).0[number];
    let _lock = shard.lock.lock();
    // Under the list's lock (invariant 3). Acquire, in `load`: as in `derive::link`; and whoever closes the lists holds this
    // lock.
    let is_open = parent.state.load() & (DONE | CLOSED) == 0;
    if is_open {
        push(&shard.first, child);
    }
    is_open
}

/// Takes a child that is quiet out of the list of a node whose lists are split; its bits, if it was and they are not closed.
#[inline]
pub(super) fn leave_split(parent: Ptr, child: Ptr) -> Option<u32> {
    let shard = &shards(&parent).0[shard(child.state.load())];
    let _lock = shard.lock.lock();
    if !is_split(parent.state.load()) {
        return None;
    }
    // Under the list's lock no walk can come by, so what is quiet now stays so.
    let bits = if_quiet(child)?;
    unlink(&shard.first, child);
    Some(bits)
}

/// How many lists a node has.
pub(super) fn lists(bits: u32) -> usize {
    if bits & SHARDED == 0 { 1 } else { SHARDS }
}

#[inline]
pub(super) fn is_split(bits: u32) -> bool {
    bits & (SHARDED | CLOSED) == SHARDED
}

/// Whether there is a child in any list. Under the node's own lock; split lists must have been closed.
#[inline]
pub(super) fn has_children(node: Ptr, own: &Locked<'_>) -> bool {
    if own.bits & SHARDED == 0 {
        return !node.kids.load(Ordering::Relaxed).is_null();
    }
    shards(&node)
        .0
        .iter()
        .any(|shard| !shard.first.load(Ordering::Relaxed).is_null())
}

/// Whether a child has ended, with everything below it. That cannot change: below what has ended nothing live is entered.
#[inline]
pub(super) fn is_settled(child: Ptr) -> bool {
    // Acquire, in `load`: pairs with the store that published the mark, after which the list is as it stays.
    let bits = child.state.load();
    bits & SETTLED != 0 || bits & DONE != 0 && child.kids.load(Ordering::Relaxed).is_null()
}

/// Whether all children have ended, with everything below them. Under the node's own lock; it looks at a few and says no if
/// there are more.
#[inline]
pub(super) fn has_only_ended_children(node: Ptr, own: &Locked<'_>) -> bool {
    const LOOKS: usize = 4;
    if own.has(SHARDED) {
        return false;
    }
    // SAFETY: what is in a list is held by its lock.
    let mut next = unsafe { Ptr::held(node.kids.load(Ordering::Relaxed)) };
    for _ in 0..LOOKS {
        let Some(child) = next else { return true };
        if !is_settled(child) {
            return false;
        }
        // SAFETY: as above.
        next = unsafe { Ptr::held(child.next.load(Ordering::Relaxed)) };
    }
    next.is_none()
}

/// Puts split lists under the node's own lock for good. Under that lock, once no handle is left to derive with.
pub(super) fn close(node: Ptr, own: &mut Locked<'_>) {
    if !is_split(own.bits) {
        return;
    }
    let locks: Vec<_> = shards(&node).0.iter().map(|shard| shard.lock.lock()).collect();
    own.bits |= CLOSED;
    // Seen by those who wait for one of the list locks: the word is written before these are given back.
    publish(node, own);
    drop(locks);
}

/// Makes the bits in hand visible without giving the lock back.
fn publish(node: Ptr, own: &Locked<'_>) {
    node.state.republish(own.bits);
}

/// Splits the node's list. What is in it becomes the first of the new lists: its children remember number zero.
#[cold]
fn split(node: Ptr, own: &mut Locked<'_>) {
    let shards = Box::new(Shards(std::array::from_fn(|_| Shard {
        lock: Word::new(0),
        first: AtomicPtr::new(ptr::null_mut()),
    })));
    shards.0[0]
        .first
        .store(node.kids.load(Ordering::Relaxed), Ordering::Relaxed);
    node.kids.store(Box::into_raw(shards).cast(), Ordering::Relaxed);
    // Published by the lock's Release store, with the pointer.
    own.bits |= SHARDED;
}

/// As if many threads had met at the node.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) fn split_now(node: Ptr) {
    split(node, &mut node.state.lock());
}

/// The lists of a node that has been split; they live as long as it does.
#[inline]
fn shards(node: &Node) -> &Shards {
    // SAFETY: `SHARDED` was read by the caller with Acquire or under the lock, so `kids` is what `split` put there.
    unsafe { &*node.kids.load(Ordering::Relaxed).cast::<Shards>() }
}

/// Frees the lists of a split node.
///
/// # Safety
///
/// The caller has the node to itself, with no child left, and is about to free it.
pub(super) unsafe fn free_lists(node: Ptr) {
    // SAFETY: made by `Box::into_raw` in `split`, freed once.
    drop(unsafe { Box::from_raw(node.kids.load(Ordering::Relaxed).cast::<Shards>()) });
}

/// The number of the list that this thread uses. Where schedules are explored one other list is enough, and a thread's number
/// must be the same in every run.
fn own_shard() -> usize {
    if EXPLORED { 1 } else { thread_number() % SHARDS }
}

/// A number that spreads threads over lists, and over the parts of the wheel.
pub(super) fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let number = |number: &Cell<usize>| {
        if number.get() == usize::MAX {
            // Relaxed: a number, no more.
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    };
    // A thread that is ending has none any more.
    NUMBER.try_with(number).unwrap_or(0)
}
