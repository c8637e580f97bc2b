//! What a user holds between two calls: a stream, a copy, a transaction, with the connection below it.
//!
//! The user may be doing something else when the context ends, so this is told of it by itself: it lets go of what it
//! holds, and the connection is settled.
//!
//! # Invariants
//!
//! 1. Before a context of its owners has ended, what is held is here or in the hands of a call. After one has ended, a
//!    call that ends drops it instead of putting it back.
//! 2. It is put back first, and the contexts looked at afterwards: if a callback came too early to find it, that look
//!    finds its context done. The look is outside the lock, since it may be the one that runs the callback.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bequest::{AfterFunc, Context};

use crate::pool::{Lease, Wanted};

/// A `T` on a connection, until a context of its owners ends.
pub(crate) struct Held<T> {
    slot: Arc<Mutex<Option<On<T>>>>,
    owners: Owners,
    /// Dropping one withdraws its callback.
    _watches: (AfterFunc, Option<AfterFunc>),
}

/// Whose end ends what is held: [`Wanted`], kept.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    pub(crate) call: Context,
    pub(crate) transaction: Option<Context>,
}

impl Owners {
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            call: &self.call,
            transaction: self.transaction.as_ref(),
        }
    }
}

impl From<Wanted<'_>> for Owners {
    fn from(wanted: Wanted<'_>) -> Owners {
        Owners {
            call: wanted.call.clone(),
            transaction: wanted.transaction.cloned(),
        }
    }
}

/// A `T` and its connection, dropped in this order.
pub(crate) struct On<T> {
    pub(crate) it: T,
    pub(crate) lease: Lease,
}

impl<T: Send + 'static> Held<T> {
    pub(crate) fn new(owners: Owners, it: T, lease: Lease) -> Held<T> {
        let slot = Arc::new(Mutex::new(Some(On { it, lease })));
        let watch = |ctx: &Context| {
            let weak = Arc::downgrade(&slot);
            ctx.after_func(move |_| {
                let held = weak.upgrade().and_then(|slot| lock(&slot).take());
                drop(held);
            })
        };
        let watches = (watch(&owners.call), owners.transaction.as_ref().map(watch));
        Held {
            slot,
            owners,
            _watches: watches,
        }
    }

    /// Takes it out. `None` if a context has ended, or it was not put back.
    pub(crate) fn take(&self) -> Option<On<T>> {
        lock(&self.slot).take()
    }

    /// Puts it back, unless a context has ended.
    pub(crate) fn put(&self, on: On<T>) {
        *lock(&self.slot) = Some(on);
        if self.owners.wanted().is_over() {
            drop(self.take());
        }
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }
}

/// What was taken out, put back when it is dropped: for calls whose future may be dropped without harm.
pub(crate) struct Borrowed<'a, T: Send + 'static> {
    held: &'a Held<T>,
    on: Option<On<T>>,
}

impl<T: Send + 'static> Held<T> {
    /// Takes it out for the time of one call.
    pub(crate) fn borrow(&self) -> Option<Borrowed<'_, T>> {
        self.take().map(|on| Borrowed {
            held: self,
            on: Some(on),
        })
    }
}

impl<T: Send + 'static> Borrowed<'_, T> {
    pub(crate) fn get(&mut self) -> &mut On<T> {
        self.on.as_mut().expect("it is here until it is kept")
    }

    /// Does not put it back.
    pub(crate) fn keep(mut self) -> On<T> {
        self.on.take().expect("it is here until it is kept")
    }
}

impl<T: Send + 'static> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        if let Some(on) = self.on.take() {
            self.held.put(on);
        }
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("is_held", &lock(&self.slot).is_some())
            .field("owners", &self.owners)
            .finish()
    }
}

fn lock<T>(slot: &Mutex<Option<On<T>>>) -> MutexGuard<'_, Option<On<T>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
