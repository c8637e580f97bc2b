//! One value in memory, and the counts that keep it.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::STEP;
use super::table::TableRef;
use crate::key::{Crossing, Key};

/// The head of an entry; its value follows.
#[repr(C, align(8))]
pub(super) struct Entry {
    /// Handles, and the entry above.
    links: AtomicU32,
    /// Tables, and the links together, once.
    holders: AtomicU32,
    /// A `Key` of the value's type, whose first field is the [`Kind`].
    pub(super) key: *const (),
    below: Below,
    /// The bits of all keys that are visible here.
    pub(super) bits: u64,
}

/// An entry and its value.
#[repr(C)]
pub(super) struct Whole<T> {
    entry: Entry,
    value: T,
}

const _: () = assert!(!cfg!(target_pointer_width = "64") || size_of::<Whole<usize>>() == 40);

/// What is below an entry, and how many entries the list has from here down, in one word.
///
/// An entry that is alone in its list has nothing below it, or a table.
#[derive(Clone, Copy)]
pub(super) struct Below(*const ());

/// What differs with the type of the value.
pub(crate) struct Kind {
    /// Drops the value and gives the memory back.
    free: unsafe fn(NonNull<Entry>),
    /// The key's name, unless that is sensitive.
    name: unsafe fn(NonNull<Entry>) -> Option<&'static str>,
    /// The value as text, if it may cross.
    encode: unsafe fn(NonNull<Entry>) -> Option<Crossing>,
}

/// An entry that something holds while this is used.
#[derive(Clone, Copy)]
pub(super) struct EntryRef(NonNull<Entry>);

/// The golden ratio spreads addresses, which are multiples of eight, over the upper half.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where a table looks for a key first, before it is cut to the table's size.
#[inline]
pub(super) fn hash_of(key: *const ()) -> usize {
    ((key.addr() as u64).wrapping_mul(GOLDEN) >> 32) as usize
}

/// The bit of a key among the 64.
#[inline]
pub(super) fn bit_of(key: *const ()) -> u64 {
    1 << ((key.addr() as u64).wrapping_mul(GOLDEN) >> 58)
}

impl<T: 'static> Whole<T> {
    /// A new entry with one link, above `below`, where `bits` are those of the keys that are visible.
    #[inline]
    pub(super) fn make(key: &'static Key<T>, value: T, below: Below, bits: u64) -> NonNull<Entry> {
        let key = ptr::from_ref(key).cast();
        let whole = Box::new(Whole {
            entry: Entry {
                links: AtomicU32::new(1),
                holders: AtomicU32::new(1),
                key,
                below,
                bits: bits | bit_of(key),
            },
            value,
        });
        NonNull::from(Box::leak(whole)).cast()
    }
}

impl std::ops::Deref for EntryRef {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        // SAFETY: it is held.
        unsafe { self.0.as_ref() }
    }
}

impl EntryRef {
    /// # Safety
    ///
    /// Something holds the entry for as long as this is used.
    #[inline]
    pub(super) unsafe fn held(entry: NonNull<Entry>) -> EntryRef {
        EntryRef(entry)
    }

    pub(super) fn raw(self) -> NonNull<Entry> {
        self.0
    }

    /// # Safety
    ///
    /// The value is a `T`, and the entry is held for as long as the value is used.
    #[inline]
    pub(super) unsafe fn value<'e, T>(self) -> &'e T {
        // SAFETY: as the caller promises.
        unsafe { &(*self.0.as_ptr().cast::<Whole<T>>()).value }
    }

    #[inline]
    pub(super) fn link(self) {
        count(&self.links);
    }

    pub(super) fn hold(self) {
        count(&self.holders);
    }

    /// How many entries its list has from here down.
    #[inline]
    pub(super) fn length(self) -> usize {
        self.below.length()
    }

    /// The next entry of the same list.
    #[inline]
    pub(super) fn next(self) -> Option<EntryRef> {
        if self.below.length() == 1 {
            return None;
        }
        // SAFETY: of an entry that is not alone in its list, what is below is the next one, which it has a link to.
        Some(EntryRef(unsafe {
            NonNull::new_unchecked(self.below.raw().cast())
        }))
    }

    /// The table below the last entry of a list.
    #[inline]
    pub(super) fn table(self) -> Option<TableRef> {
        if self.below.length() != 1 {
            return None;
        }
        self.last_table()
    }

    /// The table below an entry that is the last of its list.
    #[inline]
    pub(super) fn last_table(self) -> Option<TableRef> {
        debug_assert_eq!(self.below.length(), 1);
        // SAFETY: of an entry alone in its list, what is below is a table, which it holds.
        NonNull::new(self.below.0.cast_mut().cast()).map(|table| unsafe { TableRef::held(table) })
    }

    pub(super) fn name(self) -> Option<&'static str> {
        // SAFETY: the kind is the entry's own.
        unsafe { (self.kind().name)(self.0) }
    }

    pub(super) fn encode(self) -> Option<Crossing> {
        // SAFETY: the kind is the entry's own.
        unsafe { (self.kind().encode)(self.0) }
    }

    #[inline]
    fn kind(self) -> &'static Kind {
        // SAFETY: the key is a static `Key<T>`, which is `repr(C)` and begins with its kind, whatever the `T`.
        unsafe { *self.key.cast::<&'static Kind>() }
    }

    /// Gives back one hold; frees the entry if it was the last.
    ///
    /// # Safety
    ///
    /// The caller has a hold and gives it up.
    #[inline]
    pub(super) unsafe fn release(self) {
        if take_off(&self.holders) {
            // SAFETY: nobody holds it any more.
            unsafe { (self.kind().free)(self.0) };
        }
    }
}

/// One more; the process ends before a count wraps, as `Arc` has it.
#[inline]
fn count(counter: &AtomicU32) {
    // Relaxed: what is counted is made from one that is held.
    if counter.fetch_add(1, Ordering::Relaxed) > i32::MAX as u32 {
        std::process::abort();
    }
}

/// One less; whether that was the last.
#[inline]
fn take_off(counter: &AtomicU32) -> bool {
    // Acquire: pairs with the Release decrements of those who went before; nobody can come if this is the only one.
    counter.load(Ordering::Acquire) == 1
        || counter.fetch_sub(1, Ordering::Release) == 1 && {
            fence(Ordering::Acquire);
            true
        }
}

impl Below {
    /// Room for a length of one to [`STEP`].
    const LENGTH: usize = STEP - 1;

    pub(super) fn nothing() -> Below {
        Below(ptr::null())
    }

    #[inline]
    pub(super) fn list(entry: EntryRef) -> Below {
        const { assert!(STEP <= align_of::<Entry>() && STEP.is_power_of_two()) };
        // `length` of the new list, less one.
        let length = entry.length();
        let raw = entry.0.as_ptr().cast_const().cast::<()>();
        Below(raw.map_addr(|address| address | length))
    }

    /// Takes over the table's link.
    pub(super) fn table(table: TableRef) -> Below {
        Below(table.raw().as_ptr().cast_const().cast())
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
pub(super) struct Unlinking {
    next: Option<EntryRef>,
    /// That of an entry which has gone.
    table: Option<TableRef>,
}

impl Unlinking {
    /// Gives back a link to `entry`, and whatever a destructor does, all that goes with it.
    ///
    /// # Safety
    ///
    /// The caller has a link to it and gives it up.
    #[inline]
    pub(super) unsafe fn of(entry: NonNull<Entry>) {
        let entry = EntryRef(entry);
        if take_off(&entry.links) {
            Unlinking::beginning_with(entry);
        }
    }

    /// Lets go of `entry`, whose last link was taken off, and of those below that were kept by it alone.
    #[inline(never)]
    fn beginning_with(entry: EntryRef) {
        let mut this = Unlinking {
            next: None,
            table: None,
        };
        this.let_go(entry);
        this.run();
    }

    #[inline]
    fn run(&mut self) {
        while let Some(entry) = self.next.take() {
            if !take_off(&entry.links) {
                return;
            }
            self.let_go(entry);
        }
    }

    /// The last link to `entry` is gone.
    #[inline]
    fn let_go(&mut self, entry: EntryRef) {
        self.next = entry.next();
        self.table = entry.table();
        // SAFETY: the hold of all links together, which are gone. A table may keep the value for itself; it never
        // follows `below`.
        unsafe { entry.release() };
        self.unlink_table();
    }

    #[inline]
    fn unlink_table(&mut self) {
        if let Some(table) = self.table.take() {
            // SAFETY: the entry that is gone had a link to it.
            unsafe { table.unlink() };
        }
    }
}

impl Drop for Unlinking {
    #[inline]
    fn drop(&mut self) {
        // Something is left only if a value's destructor has panicked.
        self.unlink_table();
        self.run();
    }
}

/// The functions of one type of value.
struct Of<T>(PhantomData<T>);

impl Kind {
    /// That of values of type `T`.
    pub(crate) const fn of<T>() -> &'static Kind {
        Of::<T>::KIND
    }
}

impl<T> Of<T> {
    const KIND: &'static Kind = &Kind {
        free: Of::<T>::free,
        name: Of::<T>::name,
        encode: Of::<T>::encode,
    };

    unsafe fn free(entry: NonNull<Entry>) {
        // SAFETY: made by `make`, for this type.
        drop(unsafe { Box::from_raw(entry.as_ptr().cast::<Whole<T>>()) });
    }

    unsafe fn key<'e>(entry: NonNull<Entry>) -> &'e Key<T> {
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
