//! The values that a handle carries: a short list above a table.
//!
//! Values live in the handle, not in the tree: adding one registers nothing, takes no lock, and cannot form a cycle with
//! a node of the tree. A value is one allocation: four words and the value. This module is one of the crate's few with
//! `unsafe`: a list of `Arc`s costs two allocations and 96 bytes a value instead of one and 48, and twice the time.
//!
//! Here is the list; [`entry`] is one value in memory, [`table`] what is below a list that has grown long.
//!
//! # Invariants
//!
//! 1. A key is known by its address, which no other key has: keys are statics. It belongs to one `T`, so an entry found
//!    under it holds a `T`.
//! 2. A list is at most [`STEP`] entries long above its table. The table holds every key visible below, once, so a
//!    look-up takes at most `STEP` steps and one probe, however deep the context.
//! 3. Each entry has a bit for every key that is visible there. A key whose bit is not set is not there: most misses are
//!    one load. A bit that is set says nothing, since keys share the 64 of them.
//! 4. `links` counts the handles to an entry and the entry above it; they keep what is below. Tables do not: they count
//!    in `holders`, and so do all links together, once. So a shadowed value goes when the next table is made, and a chain
//!    of a million values keeps eight. One kind of table has a link instead, to a list that has nothing below it and
//!    nothing shadowed in it: there the two are the same, and one count serves for eight.
//! 5. Nothing recurses on drop: a loop follows the links downwards. A destructor that panics does not stop it.

#![allow(unsafe_code)]

mod entry;
mod table;

use std::mem::ManuallyDrop;
use std::ptr;
use std::ptr::NonNull;

use crate::key::{Crossing, Key};

pub(crate) use entry::Kind;
use entry::{Below, Entry, EntryRef, Unlinking, Whole, bit_of};
use table::TableRef;

/// What a handle carries.
#[derive(Default)]
pub(crate) struct Values(Option<NonNull<Entry>>);

// SAFETY: entries are shared, immutable but for their atomic counts, and hold values that are `Send` and `Sync`.
unsafe impl Send for Values {}
// SAFETY: as above.
unsafe impl Sync for Values {}

/// How many entries a list has before they are gathered into a table.
const STEP: usize = 8;

impl Values {
    pub(crate) const EMPTY: Values = Values(None);

    pub(crate) fn with<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Values {
        let (below, bits) = match self.first() {
            None => (Below::nothing(), 0),
            Some(first) if first.length() < STEP => {
                first.link();
                (Below::list(first), first.bits)
            }
            Some(first) => (Below::table(TableRef::gather(first)), first.bits),
        };
        Values(Some(Whole::make(key, value, below, bits)))
    }

    /// As [`with`](Values::with), of a handle that is given up: its link becomes that of the entry above.
    pub(crate) fn into_with<T: Send + Sync + 'static>(self, key: &'static Key<T>, value: T) -> Values {
        match self.first() {
            Some(first) if first.length() < STEP => {
                let (below, bits) = (Below::list(first), first.bits);
                let _link = ManuallyDrop::new(self);
                Values(Some(Whole::make(key, value, below, bits)))
            }
            _ => self.with(key, value),
        }
    }

    #[inline]
    pub(crate) fn get<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        let found = self.find(ptr::from_ref(key).cast())?;
        // SAFETY: invariant 1; and the entry lives as long as this handle.
        Some(unsafe { found.value() })
    }

    #[inline]
    fn find(&self, key: *const ()) -> Option<EntryRef> {
        let first = self.first()?;
        if first.key == key {
            return Some(first);
        }
        // Invariant 3.
        if first.bits & bit_of(key) == 0 {
            return None;
        }
        let mut entry = first;
        while let Some(next) = entry.next() {
            if next.key == key {
                return Some(next);
            }
            entry = next;
        }
        entry.last_table()?.find(key)
    }

    /// The names of the visible keys, newest first, without those of sensitive ones.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.visible().into_iter().filter_map(EntryRef::name).collect()
    }

    /// The visible values that may cross, as text.
    pub(crate) fn crossing(&self) -> Vec<Crossing> {
        self.visible().into_iter().filter_map(EntryRef::encode).collect()
    }

    /// The nearest entry under each key, newest first.
    fn visible(&self) -> Vec<EntryRef> {
        let mut visible: Vec<EntryRef> = Vec::new();
        let mut next = self.first();
        while let Some(entry) = next {
            if visible.iter().all(|nearer| nearer.key != entry.key) {
                visible.push(entry);
            }
            if let Some(table) = entry.table() {
                let nearer = visible.len();
                for entry in table.entries() {
                    if visible[..nearer].iter().all(|near| near.key != entry.key) {
                        visible.push(entry);
                    }
                }
            }
            next = entry.next();
        }
        visible
    }

    #[inline]
    fn first(&self) -> Option<EntryRef> {
        // SAFETY: this handle has a link to it.
        self.0.map(|first| unsafe { EntryRef::held(first) })
    }
}

impl Clone for Values {
    #[inline]
    fn clone(&self) -> Values {
        if let Some(first) = self.first() {
            first.link();
        }
        Values(self.0)
    }
}

impl Drop for Values {
    #[inline]
    fn drop(&mut self) {
        if let Some(first) = self.0.take() {
            // SAFETY: this handle's link.
            unsafe { Unlinking::of(first) };
        }
    }
}
