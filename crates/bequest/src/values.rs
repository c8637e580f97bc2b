//! The values that a handle carries: a short list above a table.
//!
//! Values live in the handle, not in the tree: adding one registers nothing, takes no lock, and cannot form a cycle with
//! a node of the tree. A value is one allocation: four words and the value. This module is one of the crate's few with
//! `unsafe`: a list of `Arc`s costs two allocations and 96 bytes a value instead of one and 48, and twice the time.
//!
//! # Invariants
//!
//! 1. A key is known by its address, which no other key has: keys are statics. It belongs to one `T`, so an entry found
//!    under it holds a `T`.
//! 2. A list is at most [`STEP`] entries long above its table. The table holds every key visible below, once, so a
//!    look-up takes at most `STEP` steps and one probe, however deep the context.
//! 3. `links` counts the handles to an entry and the entry above it; they keep what is below. Tables do not: they count
//!    in `holders`, and so do all links together, once. So a shadowed value goes when the next table is made, and a chain
//!    of a million values keeps eight.
//! 4. Nothing recurses on drop: a loop follows the links downwards. A destructor that panics does not stop it.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use crate::key::{Crossing, Key};

/// What a handle carries.
#[derive(Default)]
pub(crate) struct Values(Option<NonNull<Entry>>);

// SAFETY: entries are shared, immutable but for their atomic counts, and hold values that are `Send` and `Sync`.
unsafe impl Send for Values {}
// SAFETY: as above.
unsafe impl Sync for Values {}

/// How many entries a list has before they are gathered into a table.
const STEP: usize = 8;

/// The head of an entry; its value follows.
#[repr(C, align(8))]
struct Entry {
    /// Handles, and the entry above.
    links: AtomicU32,
    /// Tables, and the links together, once.
    holders: AtomicU32,
    key: *const (),
    below: Below,
    kind: &'static Kind,
}

#[repr(C)]
struct Whole<T> {
    entry: Entry,
    value: T,
}

/// What is below an entry, and how many entries the list has from here down, in one word.
///
/// An entry that is alone in its list has nothing below it, or a table.
#[derive(Clone, Copy)]
struct Below(*const ());

/// What differs with the type of the value.
struct Kind {
    /// Drops the value and gives the memory back.
    free: unsafe fn(NonNull<Entry>),
    /// The key's name, unless that is sensitive.
    name: unsafe fn(NonNull<Entry>) -> Option<&'static str>,
    /// The value as text, if it may cross.
    encode: unsafe fn(NonNull<Entry>) -> Option<Crossing>,
}

/// Every value that is visible at one entry, by key.
#[repr(align(8))]
struct Table {
    /// The entries whose `below` it is.
    links: AtomicUsize,
    /// Newest first.
    entries: Box<[NonNull<Entry>]>,
    /// Where to find them: one more than the index, or nought. A power of two, at most two thirds full.
    slots: Box<[u32]>,
}

impl Values {
    pub(crate) const EMPTY: Values = Values(None);

    pub(crate) fn with<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Values {
        let below = match self.first() {
            None => Below::nothing(),
            Some(first) if first.length() < STEP => {
                first.link();
                Below::list(first)
            }
            Some(_) => Below::table(self.gather()),
        };
        let whole = Box::new(Whole {
            entry: Entry {
                links: AtomicU32::new(1),
                holders: AtomicU32::new(1),
                key: ptr::from_ref(key).cast(),
                below,
                kind: &Of::<T>::KIND,
            },
            value,
        });
        Values(NonNull::new(Box::into_raw(whole).cast()))
    }

    #[inline]
    pub(crate) fn get<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        let found = self.find(ptr::from_ref(key).cast())?;
        // SAFETY: invariant 1; and the entry lives as long as this handle.
        Some(unsafe { &(*found.0.as_ptr().cast::<Whole<T>>()).value })
    }

    #[inline]
    fn find(&self, key: *const ()) -> Option<EntryRef> {
        let mut entry = self.first()?;
        loop {
            if entry.key == key {
                return Some(entry);
            }
            entry = match entry.next() {
                Some(next) => next,
                None => return entry.table()?.find(key),
            };
        }
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
                let further = table.entries.iter().map(|entry| EntryRef(*entry));
                for entry in further {
                    if visible[..nearer].iter().all(|near| near.key != entry.key) {
                        visible.push(entry);
                    }
                }
            }
            next = entry.next();
        }
        visible
    }

    /// A table of all that is visible, for the entry that comes next.
    fn gather(&self) -> NonNull<Table> {
        let entries: Box<[_]> = self
            .visible()
            .into_iter()
            .map(|entry| {
                entry.hold();
                entry.0
            })
            .collect();
        NonNull::from(Box::leak(Box::new(Table::of(entries))))
    }

    fn first(&self) -> Option<EntryRef> {
        self.0.map(EntryRef)
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
            Unlinking(Some(first)).run();
        }
    }
}

/// An entry that something holds while this is used.
#[derive(Clone, Copy)]
struct EntryRef(NonNull<Entry>);

impl std::ops::Deref for EntryRef {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        // SAFETY: it is held.
        unsafe { self.0.as_ref() }
    }
}

impl EntryRef {
    fn link(self) {
        count(&self.links);
    }

    fn hold(self) {
        count(&self.holders);
    }

    fn length(self) -> usize {
        self.below.length()
    }

    /// The next entry of the same list.
    #[inline]
    fn next(self) -> Option<EntryRef> {
        let below = self.below;
        if below.length() == 1 {
            None
        } else {
            NonNull::new(below.raw().cast()).map(EntryRef)
        }
    }

    /// The table below the last entry of a list.
    fn table<'e>(self) -> Option<&'e Table> {
        if self.below.length() != 1 {
            return None;
        }
        // SAFETY: of an entry alone in its list, what is below is a table, which it holds.
        unsafe { self.below.raw().cast::<Table>().as_ref() }
    }

    fn name(self) -> Option<&'static str> {
        // SAFETY: the kind is the entry's own.
        unsafe { (self.kind.name)(self.0) }
    }

    fn encode(self) -> Option<Crossing> {
        // SAFETY: the kind is the entry's own.
        unsafe { (self.kind.encode)(self.0) }
    }

    /// Gives back one hold; frees the entry if it was the last.
    ///
    /// # Safety
    ///
    /// The caller has a hold and gives it up.
    unsafe fn release(self) {
        // Acquire: pairs with the Release decrements of those who went before; nobody can come if this is the only one.
        let is_last = self.holders.load(Ordering::Acquire) == 1
            || self.holders.fetch_sub(1, Ordering::Release) == 1 && {
                fence(Ordering::Acquire);
                true
            };
        if is_last {
            // SAFETY: nobody holds it any more.
            unsafe { (self.kind.free)(self.0) };
        }
    }
}

/// One more; the process ends before a count wraps, as `Arc` has it.
fn count(counter: &AtomicU32) {
    // Relaxed: what is counted is made from one that is held.
    if counter.fetch_add(1, Ordering::Relaxed) > i32::MAX as u32 {
        std::process::abort();
    }
}

impl Below {
    /// Room for a length of one to [`STEP`].
    const LENGTH: usize = STEP - 1;

    fn nothing() -> Below {
        Below(ptr::null())
    }

    fn list(entry: EntryRef) -> Below {
        const { assert!(STEP <= align_of::<Entry>() && STEP.is_power_of_two()) };
        // `length` of the new list, less one.
        let length = entry.length();
        let raw = entry.0.as_ptr().cast_const().cast::<()>();
        Below(raw.map_addr(|address| address | length))
    }

    fn table(table: NonNull<Table>) -> Below {
        Below(table.as_ptr().cast_const().cast())
    }

    #[inline]
    fn length(self) -> usize {
        (self.0.addr() & Below::LENGTH) + 1
    }

    #[inline]
    fn raw(self) -> *mut () {
        self.0.map_addr(|address| address & !Below::LENGTH).cast_mut()
    }
}

/// Takes one link away, and those below that were kept by it alone.
struct Unlinking(Option<NonNull<Entry>>);

impl Unlinking {
    #[inline]
    fn run(&mut self) {
        while let Some(entry) = self.0.take().map(EntryRef) {
            // Acquire: pairs with the Release decrements of those who went before. If it is the only link it stays so.
            let is_last = entry.links.load(Ordering::Acquire) == 1
                || entry.links.fetch_sub(1, Ordering::Release) == 1 && {
                    fence(Ordering::Acquire);
                    true
                };
            if !is_last {
                return;
            }
            self.0 = entry.next().map(|next| next.0);
            if let Some(table) = entry.table() {
                // SAFETY: the entry had a link to the table and is past using it.
                unsafe { Table::unlink(NonNull::from(table)) };
            }
            // SAFETY: the hold of all links together, which are gone. A table may keep the value for itself; it never
            // follows `below`.
            unsafe { entry.release() };
        }
    }
}

impl Drop for Unlinking {
    fn drop(&mut self) {
        // Something is left only if a value's destructor has panicked.
        self.run();
    }
}

impl Table {
    fn of(entries: Box<[NonNull<Entry>]>) -> Table {
        let size = (entries.len() * 3 / 2 + 1).next_power_of_two();
        let mut slots = vec![0_u32; size].into_boxed_slice();
        for (index, entry) in entries.iter().enumerate() {
            let mut slot = Table::slot_of(EntryRef(*entry).key, size);
            while slots[slot] != 0 {
                slot = (slot + 1) % size;
            }
            slots[slot] = index as u32 + 1;
        }
        Table {
            links: AtomicUsize::new(1),
            entries,
            slots,
        }
    }

    #[inline]
    fn slot_of(key: *const (), size: usize) -> usize {
        // The golden ratio spreads addresses, which are multiples of eight, over the upper half.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        ((key.addr() as u64).wrapping_mul(GOLDEN) >> 32) as usize & (size - 1)
    }

    #[inline]
    fn find(&self, key: *const ()) -> Option<EntryRef> {
        let size = self.slots.len();
        let mut slot = Table::slot_of(key, size);
        loop {
            let index = self.slots[slot] as usize;
            if index == 0 {
                return None;
            }
            let entry = EntryRef(self.entries[index - 1]);
            if entry.key == key {
                return Some(entry);
            }
            slot = (slot + 1) % size;
        }
    }

    /// # Safety
    ///
    /// The caller has a link and gives it up.
    unsafe fn unlink(table: NonNull<Table>) {
        // SAFETY: the link held it.
        if unsafe { table.as_ref() }.links.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: made by `Box::leak` in `gather`; this was the last link.
        drop(unsafe { Box::from_raw(table.as_ptr()) });
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let mut entries = std::mem::take(&mut self.entries).into_vec();
        Releasing(&mut entries).run();
    }
}

/// Gives back the holds of a table, whatever a destructor does.
struct Releasing<'t>(&'t mut Vec<NonNull<Entry>>);

impl Releasing<'_> {
    fn run(&mut self) {
        while let Some(entry) = self.0.pop() {
            // SAFETY: the table's hold.
            unsafe { EntryRef(entry).release() };
        }
    }
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        self.run();
    }
}

/// The functions of one type of value.
struct Of<T>(PhantomData<T>);

impl<T: 'static> Of<T> {
    const KIND: Kind = Kind {
        free: Of::<T>::free,
        name: Of::<T>::name,
        encode: Of::<T>::encode,
    };

    unsafe fn free(entry: NonNull<Entry>) {
        // SAFETY: made by `Box::into_raw` in `with`, for this type.
        drop(unsafe { Box::from_raw(entry.as_ptr().cast::<Whole<T>>()) });
    }

    unsafe fn key(entry: NonNull<Entry>) -> &'static Key<T> {
        // SAFETY: the entry was made with a static key of this type.
        unsafe { &*entry.as_ref().key.cast::<Key<T>>() }
    }

    unsafe fn name(entry: NonNull<Entry>) -> Option<&'static str> {
        // SAFETY: as the caller promises.
        unsafe { Of::<T>::key(entry) }.printed_name()
    }

    unsafe fn encode(entry: NonNull<Entry>) -> Option<Crossing> {
        // SAFETY: the entry is of this type.
        unsafe { Of::<T>::key(entry).encode(&(*entry.as_ptr().cast::<Whole<T>>()).value) }
    }
}
