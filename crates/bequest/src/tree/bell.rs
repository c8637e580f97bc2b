//! Limits of single awaits, and deadlines on clocks of the user's own: what rings when a point in time has come.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use super::layout::{NodeBell, Ptr};
use super::record::Identity;
use super::stamp::Stamp;
use super::state::{ARMED, DONE, DYING, PIN, UNARMED, pins_are_used_up};
use super::timer::{Expire, TimerKey, Timers};
use super::wheel::{self, Entry};
use super::{NodeRef, release, tell, walk};
use crate::sync::{self, relax};

/// The armed limit of one await. Disarmed on drop.
pub(crate) struct Armed {
    bell: Arc<Bell>,
    /// The queue and the place in it, for a clock that is not the system's.
    queued: Option<(Arc<Timers>, TimerKey)>,
    /// Which waker the bell has been given, to be compared without its lock. Once it has rung, that is seen first.
    listening: Identity,
}

/// What the limit rings.
#[repr(C)]
pub(super) struct Bell {
    entry: Entry,
    /// Set before the waker is taken, so that a listener that comes later finds it set.
    rung: AtomicBool,
    /// Guarded by its lock; wakers are cloned, woken and dropped outside.
    waker: Mutex<Option<Waker>>,
}

impl Armed {
    /// Arms a limit at `at` on the clock of `node`, which wakes `waker`; `None` if it has come already.
    pub(crate) fn at(at: Instant, node: Option<&NodeRef>, waker: &Waker) -> Option<Armed> {
        let timers = node.and_then(NodeRef::timers);
        let stamp = Stamp::of(at);
        let has_come = match timers {
            None => stamp.has_come(),
            Some(timers) => at <= timers.clock().now(),
        };
        if has_come {
            return None;
        }
        // With its waker from the start: no lock is needed for what nobody else knows yet.
        let bell = Arc::new(Bell {
            entry: Entry::of_bell(stamp),
            rung: AtomicBool::new(false),
            waker: Mutex::new(Some(waker.clone())),
        });
        let queued = match timers {
            Some(timers) => {
                let entry: Weak<Bell> = Arc::downgrade(&bell);
                Some((Arc::clone(timers), timers.insert(at, entry)))
            }
            None => {
                wheel::start();
                // SAFETY: the entry is in no wheel, and is taken out of this one before the bell is dropped.
                unsafe { wheel::insert(Bell::entry(&bell)) }.announce();
                None
            }
        };
        Some(Armed {
            bell,
            queued,
            listening: Identity::of(waker),
        })
    }

    #[inline]
    pub(crate) fn has_rung(&self) -> bool {
        // Acquire: pairs with the Release store in `ring`.
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Leaves the waker, unless the bell has it; whether the bell has rung already.
    #[inline]
    pub(crate) fn listen(&mut self, waker: &Waker) -> bool {
        if self.listening != Identity::of(waker) {
            self.replace(waker);
        }
        self.has_rung()
    }

    #[cold]
    fn replace(&mut self, waker: &Waker) {
        let mine = waker.clone();
        let old = lock(&self.bell.waker).replace(mine);
        self.listening = Identity::of(waker);
        // Outside the lock: it is foreign.
        drop(old);
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        match self.queued.take() {
            Some((timers, key)) => timers.remove(key),
            // SAFETY: the entry is the bell's, and was put into the wheel by `at`.
            None => unsafe { wheel::remove(Bell::entry(&self.bell)) },
        }
    }
}

impl Bell {
    fn entry(this: &Arc<Bell>) -> NonNull<Entry> {
        // The entry is the first field, so its place is the bell's; taken from the `Arc`, it reaches all of it.
        NonNull::new(Arc::as_ptr(this).cast_mut().cast()).expect("an Arc is not null")
    }

    /// A share of the bell whose entry this is.
    ///
    /// # Safety
    ///
    /// `entry` is a bell's, and in the wheel, whose lock is held: so the one who armed it has not let go.
    pub(super) unsafe fn of_entry(entry: NonNull<Entry>) -> Arc<Bell> {
        let bell = entry.cast::<Bell>().as_ptr().cast_const();
        // SAFETY: it came from an `Arc` that is alive, as the caller says.
        unsafe {
            Arc::increment_strong_count(bell);
            Arc::from_raw(bell)
        }
    }

    pub(super) fn ring(&self) {
        // Release: pairs with `has_rung`. Before the waker is taken: a listener that replaces it later sees it.
        self.rung.store(true, Ordering::Release);
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            tell::wake(waker);
        }
    }
}

impl Expire for Bell {
    fn expire(self: Arc<Self>) {
        self.ring();
    }
}

/// Arms a node's deadline on a clock of the user's own, unless another look was first; whether the node has ended
/// meanwhile. The clock is foreign, so this happens outside every lock.
pub(super) fn arm_node(ptr: Ptr, timers: &Arc<Timers>, at: Stamp) -> bool {
    let Some(full) = ptr.full() else { return false };
    let (Some(bell), Some(at)) = (&full.bell, at.instant()) else {
        return false;
    };
    let entry: Weak<NodeBell> = Arc::downgrade(bell);
    let key = timers.insert(at, entry);
    let mut own = ptr.state.lock();
    if own.has(UNARMED) {
        own.bits = own.bits & !UNARMED | ARMED;
        *lock(&full.key) = Some(key);
        return false;
    }
    let has_ended = own.has(DONE);
    drop(own);
    timers.remove(key);
    has_ended
}

impl Expire for NodeBell {
    fn expire(self: Arc<Self>) {
        let Some(ptr) = self.pin() else { return };
        walk::pass(ptr);
        if walk::unpin(ptr) {
            // SAFETY: `unpin` made it ours.
            unsafe { release::free(ptr) };
        }
    }
}

impl NodeBell {
    /// The node, pinned, unless it is gone. It is not freed while the bell is locked.
    fn pin(&self) -> Option<Ptr> {
        for tries in 0.. {
            let node = sync::lock(&self.0);
            let ptr = (*node)?;
            let mut own = ptr.state.lock();
            if own.has(DYING) {
                return None;
            }
            if !pins_are_used_up(own.bits) {
                own.bits += PIN;
                return Some(ptr);
            }
            drop(own);
            drop(node);
            relax(tries);
        }
        None
    }
}

/// Locks without regard to poisoning: nothing foreign runs under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
