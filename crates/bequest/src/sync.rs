//! Locks and atomics: the standard library's, or loom's when the model checker builds the crate.
//!
//! Only what the model checker is to explore comes from here. `Arc`, `Weak` and `OnceLock` stay the standard
//! library's: loom has no weak handles, and a cell written once before the `Release` store that publishes it adds
//! no interleaving of its own.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) mod atomic {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
    #[cfg(not(loom))]
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
