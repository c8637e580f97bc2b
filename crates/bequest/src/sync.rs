//! Locks and atomics: the standard library's, or those of the tool that explores the schedules: loom, which tries every one
//! of a small program, or shuttle, which tries many of a larger one.
//!
//! Only what they are to explore comes from here. Timers, callbacks' threads and counts that order nothing
//! stay the standard library's.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Whether schedules are explored: then every "after so many" is after one, and a thread is the same in every run.
#[cfg(not(bequest_plain))]
pub(crate) const EXPLORED: bool = cfg!(any(loom, shuttle));

pub(crate) mod atomic {
    #[cfg(all(loom, not(bequest_plain)))]
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    #[cfg(all(loom, bequest_plain))]
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
    #[cfg(all(shuttle, not(bequest_plain)))]
    pub(crate) use shuttle::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    #[cfg(all(shuttle, bequest_plain))]
    pub(crate) use shuttle::sync::atomic::{AtomicU8, Ordering};
    #[cfg(all(not(any(loom, shuttle)), not(bequest_plain)))]
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    #[cfg(all(not(any(loom, shuttle)), bequest_plain))]
    pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
}

/// Locks without regard to poisoning.
///
/// Nothing foreign runs under a lock of this crate, so a poisoned one could only mean an allocation failure in the
/// middle of a push, after which the data are still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Waits a little for a lock that somebody else has; `tries` is how often that was done before.
///
/// First it lets the other core work, then it gives its own away: the holder may have lost its core to this thread. A
/// section is a few hundred instructions, so a holder that runs is done before the first yield.
#[cfg(not(any(loom, shuttle, bequest_plain)))]
#[cold]
pub(crate) fn relax(tries: u32) {
    const SPINS: u32 = 6;
    const YIELDS: u32 = 16;
    match tries {
        0..=SPINS => (0..1 << tries).for_each(|_| std::hint::spin_loop()),
        _ if tries < SPINS + YIELDS => std::thread::yield_now(),
        _ => std::thread::sleep(std::time::Duration::from_micros(50)),
    }
}

#[cfg(all(loom, not(bequest_plain)))]
pub(crate) fn relax(_tries: u32) {
    loom::thread::yield_now();
}

#[cfg(all(shuttle, not(bequest_plain)))]
pub(crate) fn relax(_tries: u32) {
    shuttle::thread::yield_now();
}
