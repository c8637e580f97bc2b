//! Freeing: what the last holder of a node does.
//!
//! A node may be held by handles, by children in its lists, and by pins. When the last handle goes, its holder looks,
//! under the lock of the parent's list or the node's own, whether there is anything else. If not, it takes the node out
//! of the parent's list and frees it. If there is, the node becomes an orphan and stays as a relay between its parent
//! and its children; whoever takes the last child or pin away frees it. So exactly one thread does, and it goes on
//! upwards in a loop if that was the parent's last child (invariant 7).

use std::ptr::NonNull;

use super::layout::{Details, Full, Ptr, Tether};
use super::link::{self, List, ListLock};
use super::node::{disarm, if_quiet};
use super::pool;
use super::state::{
    self, ARMED, CLOSED, DONE, DYING, Kind, LISTED, Locked, ORPHAN, RARE, SHARDED, is_pinned, kind,
};
use super::tell::Callback;
use super::{bell, end, record};
use crate::canceled::Canceled;
use crate::inspect;
use crate::sync::{self, atomic::Ordering};

/// Gives the last handle up, which is still counted.
///
/// # Safety
///
/// The caller has that handle and does not use it afterwards.
#[inline]
pub(super) unsafe fn release(ptr: Ptr) {
    // Those would be locked in vain.
    let is_common = ptr.state.load() & (RARE | LISTED) == 0;
    match ptr.parent {
        Some(parent) if is_common => {
            let above = parent.state.load();
            if above & (SHARDED | ORPHAN) == 0 {
                if let Some(own) = parent.state.lock_from(above) {
                    // Under the list's lock no walk can come by, so what is quiet now stays so.
                    if let Some(bits) = if_quiet(ptr) {
                        link::unlink(&parent.kids, ptr);
                        drop(own);
                        // SAFETY: in no list, no handle, no pin, no child, not armed: it is ours.
                        return unsafe { discard(ptr, bits) };
                    }
                }
            } else if above & (SHARDED | CLOSED) == SHARDED {
                // SAFETY: as the caller promises.
                return unsafe { release_of_many(ptr, parent) };
            }
        }
        // Nobody comes by the lists to a node without a parent.
        None if is_common => {
            if let Some(bits) = if_quiet(ptr) {
                // SAFETY: as above.
                return unsafe { discard(ptr, bits) };
            }
        }
        _ => {}
    }
    // SAFETY: as the caller promises.
    unsafe { release_slowly(ptr) };
}

/// As [`release`], of a child of a node at which many threads meet.
///
/// # Safety
///
/// As [`release`]; the parent's lists are split.
#[inline(never)]
unsafe fn release_of_many(ptr: Ptr, parent: Ptr) {
    match link::leave_split(parent, ptr) {
        // SAFETY: as in `release`. Split lists that are not closed belong to a node that is no orphan.
        Some(bits) => unsafe { discard(ptr, bits) },
        // SAFETY: as the caller promises.
        None => unsafe { release_slowly(ptr) },
    }
}

/// The ways that are less common: a list of many threads, or a parent that this may have been the last to hold.
///
/// # Safety
///
/// As [`release`].
#[inline(never)]
unsafe fn release_slowly(ptr: Ptr) {
    if let (Some(parent), true) = (ptr.parent, ptr.state.load() & (RARE | LISTED) == 0) {
        let list = List::of_child(&parent, ptr);
        // As in `release`.
        if let Some(bits) = if_quiet(ptr) {
            list.remove(ptr);
            let last = take_if_last(parent, list);
            if let Some(parent) = last {
                // SAFETY: in no list, no handle, no pin, no child, not armed: it is ours.
                let _rest = unsafe { dispose(ptr) };
                // SAFETY: `take_if_last` made it ours.
                return unsafe { free(parent) };
            }
            // SAFETY: as above.
            return unsafe { discard(ptr, bits) };
        }
    }
    // SAFETY: as the caller promises.
    unsafe { settle(ptr) };
}

/// The general case: somebody else may be at work on the node.
unsafe fn settle(ptr: Ptr) {
    let mut own = ptr.state.lock();
    // Under the lock, since a child's owner may have made a new handle under it. Acquire: pairs with the Release decrements
    // of those who went before; if this is the only handle, none can come while the lock is held.
    if ptr.handles.load(Ordering::Acquire) != 1 && ptr.handles.fetch_sub(1, Ordering::AcqRel) != 1 {
        // Release, for whoever is the last then.
        return;
    }
    // Relaxed: whoever makes a handle anew does so under this lock.
    ptr.handles.store(0, Ordering::Relaxed);
    link::close(ptr, &mut own);
    if is_pinned(own.bits) || link::has_children(ptr, &own) {
        own.bits |= ORPHAN;
        return;
    }
    condemn(ptr, &mut own);
    drop(own);
    // SAFETY: condemned by us, under the lock.
    unsafe { free(ptr) };
}

/// Decides, under the node's lock, that it is to be freed by the caller: walks and timers leave it alone from now on.
#[inline]
pub(super) fn condemn(ptr: Ptr, own: &mut Locked<'_>) {
    own.bits |= DYING;
    if own.has(ARMED) {
        disarm(ptr, own);
    }
}

/// Frees a condemned node, and those above it of which it was the last to hold on to.
///
/// # Safety
///
/// The caller has condemned the node, and no lock is held.
pub(super) unsafe fn free(ptr: Ptr) {
    // Filled by merged nodes alone, and by causes: most of the time nothing is allocated here.
    let (mut condemned, mut rests) = (Vec::new(), Vec::new());
    let mut next = Some(ptr);
    while let Some(ptr) = next {
        if let Some(full) = ptr.full() {
            cut_links(full, &mut condemned);
        }
        next = leave_list(ptr).or_else(|| condemned.pop());
        let bits = ptr.state.load();
        if has_parts(ptr, bits) {
            // SAFETY: condemned and in no list.
            let rest = unsafe { dispose(ptr) };
            rests.extend(rest.filter(Rest::is_foreign));
        } else {
            // SAFETY: as above, and there is nothing to be dropped.
            unsafe { give_back(ptr, bits) };
        }
    }
}

/// Takes a full node's stand-ins out of their lists, and cuts the way from its clock.
#[cold]
fn cut_links(full: &Full, condemned: &mut Vec<Ptr>) {
    if let Some(bell) = &full.bell {
        *sync::lock(&bell.0) = None;
    }
    let tethers = std::mem::take(&mut *bell::lock(&full.tethers));
    for tether in tethers {
        condemned.extend(leave_list(tether));
        // SAFETY: in no list any more, and known to nobody but the node.
        drop(unsafe { Box::from_raw(tether.raw().cast::<Tether>()) });
    }
}

/// Takes a node out of its parent's list; the parent, if it is to be freed now.
#[inline]
fn leave_list(ptr: Ptr) -> Option<Ptr> {
    let parent = ptr.parent?;
    let above = parent.state.load();
    if above & SHARDED == 0 {
        if let Some(mut own) = parent.state.lock_from(above) {
            link::unlink(&parent.kids, ptr);
            // As in `take_if_last`, of a node with one list.
            let is_last =
                own.has(ORPHAN) && !is_pinned(own.bits) && parent.kids.load(Ordering::Relaxed).is_null();
            if is_last {
                condemn(parent, &mut own);
            }
            return is_last.then_some(parent);
        }
    }
    leave_crowded_list(parent, ptr)
}

#[inline(never)]
fn leave_crowded_list(parent: Ptr, ptr: Ptr) -> Option<Ptr> {
    let list = List::of_child(&parent, ptr);
    list.remove(ptr);
    take_if_last(parent, list)
}

/// Condemns a parent that has lost a child, if it was an orphan and that was the last.
#[inline]
fn take_if_last(parent: Ptr, list: List<'_>) -> Option<Ptr> {
    // Split lists that are not closed belong to a node that is no orphan.
    let ListLock::Own(mut own) = list.lock else {
        return None;
    };
    if !own.has(ORPHAN) || is_pinned(own.bits) || link::has_children(parent, &own) {
        return None;
    }
    condemn(parent, &mut own);
    Some(parent)
}

/// Gives back the memory of a node that is neither full nor a tether, and drops what it had.
///
/// # Safety
///
/// As [`dispose`]; `bits` are the node's.
#[inline(always)]
unsafe fn discard(ptr: Ptr, bits: u32) {
    if has_parts(ptr, bits) {
        // SAFETY: as the caller promises.
        return unsafe { discard_parts(ptr, bits) };
    }
    let raw = NonNull::new(ptr.raw()).expect("not null");
    // SAFETY: as the caller promises, and there is nothing to be dropped. It is not `RARE`.
    unsafe { pool::free(state::list(bits), raw.cast()) };
}

/// As [`discard`], of a node that has something to be dropped: mostly a share of an end that others have as well.
///
/// # Safety
///
/// As [`discard`].
#[inline(never)]
unsafe fn discard_parts(ptr: Ptr, bits: u32) {
    if bits & (LISTED | SHARDED | DONE) != DONE || ptr.has_details() {
        // SAFETY: as the caller promises.
        return unsafe { dismantle(ptr) };
    }
    // SAFETY: as the caller promises; it has ended.
    let end = unsafe { end::take(ptr) };
    let raw = NonNull::new(ptr.raw()).expect("not null");
    // SAFETY: as the caller promises, and what there was to be dropped is taken out. It is not `RARE`.
    unsafe { pool::free(state::list(bits), raw.cast()) };
    // It may be the last that holds a cause, whose destructor is foreign.
    drop(end);
}

/// As [`discard`], in general.
///
/// # Safety
///
/// As [`dispose`].
#[cold]
#[inline(never)]
unsafe fn dismantle(ptr: Ptr) {
    // SAFETY: as the caller promises.
    drop(unsafe { dispose(ptr) });
}

/// Whether there is anything in a node that has to be dropped.
#[inline]
fn has_parts(ptr: Ptr, bits: u32) -> bool {
    bits & (LISTED | SHARDED) != 0 || ptr.has_details() || end::has_share(ptr.tail.load(Ordering::Relaxed))
}

/// Gives back the memory of a node. What may have a foreign destructor is returned, to be dropped when nothing is left that
/// a panic in it could leave half done.
///
/// # Safety
///
/// The caller has the node to itself: no handle, no child, no pin, in no list and in no wheel; and no lock is held.
#[inline(never)]
unsafe fn dispose(ptr: Ptr) -> Option<Rest> {
    let bits = ptr.state.load();
    // SAFETY: the node is ours, so its parts are.
    let rest = has_parts(ptr, bits).then(|| unsafe { take_apart(ptr, bits) });
    // SAFETY: as the caller promises; what needs a drop was taken out.
    unsafe { give_back(ptr, bits) };
    rest
}

/// Gives back the memory of a node, of which nothing needs a drop.
///
/// # Safety
///
/// As [`dispose`].
#[inline]
unsafe fn give_back(ptr: Ptr, bits: u32) {
    let raw = NonNull::new(ptr.raw()).expect("not null");
    // SAFETY: the kind says what the allocation is; its plain fields need no drop.
    unsafe {
        match kind(bits) {
            Kind::Plain | Kind::Heir | Kind::Timed => pool::free(state::list(bits), raw.cast()),
            Kind::Full => drop(Box::from_raw(raw.cast::<Full>().as_ptr())),
            Kind::Tether => drop(Box::from_raw(raw.cast::<Tether>().as_ptr())),
        }
    }
}

/// Takes out of a node what has to be dropped.
///
/// # Safety
///
/// As [`dispose`]; its memory is given back next.
unsafe fn take_apart(ptr: Ptr, bits: u32) -> Rest {
    let tail = ptr.tail.load(Ordering::Relaxed);
    if bits & LISTED != 0 {
        inspect::gone(ptr.place());
    }
    // SAFETY: the node is ours, so its parts are.
    unsafe {
        if bits & SHARDED != 0 {
            link::free_lists(ptr);
        }
        Rest {
            end: if bits & DONE != 0 { end::take(ptr) } else { None },
            callbacks: if bits & DONE == 0 && !tail.is_null() {
                record::take_left(tail)
            } else {
                Vec::new()
            },
            details: ptr.take_details(),
        }
    }
}

/// What a node has that may have a foreign destructor.
struct Rest {
    end: Option<Canceled>,
    callbacks: Vec<Callback>,
    details: Option<Box<Details>>,
}

impl Rest {
    fn is_foreign(&self) -> bool {
        let has_cause = |end: &Canceled| end.cause().is_some();
        let has_own_cause = |details: &Details| details.cause.is_some();
        self.end.as_ref().is_some_and(has_cause)
            || self.details.as_deref().is_some_and(has_own_cause)
            || !self.callbacks.is_empty()
    }
}
