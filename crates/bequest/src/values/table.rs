//! Every value that is visible at one entry, by key.
//!
//! A table is one allocation: its head, the slots, and the entries in their order. It never changes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::STEP;
use super::entry::{Entry, EntryRef, Unlinking, hash_of};

/// The head of a table. Behind it are `slots` pointers to entries, or null, by the keys' hashes; and behind those
/// `room` pointers, of which the first `count` are the same entries, newest first.
#[repr(C, align(8))]
pub(super) struct Table {
    /// The entries whose `below` it is.
    links: AtomicUsize,
    /// The list to which it has a link; if there is none it has a hold on each entry.
    list: Option<NonNull<Entry>>,
    /// A power of two; at most two thirds of them are used.
    slots: u32,
    room: u32,
    count: u32,
}

/// A table that something has a link to while this is used.
///
/// It reaches the whole allocation, so what follows the head is read through it and never through a reference to that.
#[derive(Clone, Copy)]
pub(super) struct TableRef(NonNull<Table>);

impl TableRef {
    /// # Safety
    ///
    /// Something has a link to the table for as long as this is used.
    #[inline]
    pub(super) unsafe fn held(table: NonNull<Table>) -> TableRef {
        TableRef(table)
    }

    /// A table of all that is visible at `first`, which begins a full list. It has one link.
    #[cold]
    pub(super) fn gather(first: EntryRef) -> TableRef {
        let lists = std::iter::successors(Some(first), |entry| entry.next());
        let older = lists.clone().find_map(EntryRef::table);
        let room = STEP + older.map_or(0, |table| table.head().count as usize);
        let mut table = TableRef::empty(room);
        lists.for_each(|entry| table.enter(entry));
        match older {
            None if table.head().count as usize == STEP => table.link_list(first),
            Some(older) => {
                older.entries().for_each(|entry| table.enter(entry));
                table.hold_all();
            }
            None => table.hold_all(),
        }
        table
    }

    fn empty(room: usize) -> TableRef {
        let slots = (room * 3 / 2 + 1).next_power_of_two();
        let layout = layout(slots, room);
        // SAFETY: a head is not of size zero.
        let Some(table) = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<Table>()) else {
            handle_alloc_error(layout)
        };
        let head = Table {
            links: AtomicUsize::new(1),
            list: None,
            slots: slots as u32,
            room: room as u32,
            count: 0,
        };
        // SAFETY: it is large enough, aligned, and nobody else's.
        unsafe { table.write(head) };
        TableRef(table)
    }

    /// Enters `entry`, unless there is a newer one under its key.
    fn enter(&mut self, entry: EntryRef) {
        let last = self.head().slots as usize - 1;
        let mut index = hash_of(entry.key) & last;
        while let Some(other) = self.slot(index) {
            if other.key == entry.key {
                return;
            }
            index = (index + 1) & last;
        }
        let count = self.head().count as usize;
        // SAFETY: `index` is below `slots`, and `count` below `room`, since no more is entered than there is room for;
        // the table is not shared yet.
        unsafe {
            self.slots_at().add(index).write(Some(entry.raw()));
            self.order_at().add(count).write(entry.raw());
            self.0.as_mut().count += 1;
        }
    }

    fn link_list(&mut self, first: EntryRef) {
        first.link();
        // SAFETY: the table is not shared yet.
        unsafe { self.0.as_mut() }.list = Some(first.raw());
    }

    fn hold_all(self) {
        self.entries().for_each(EntryRef::hold);
    }

    // Out of line, so that looking into the list is short.
    #[inline(never)]
    pub(super) fn find(self, key: *const ()) -> Option<EntryRef> {
        let last = self.head().slots as usize - 1;
        let mut index = hash_of(key) & last;
        // Ends: a third of the slots is empty.
        loop {
            let entry = self.slot(index)?;
            if entry.key == key {
                return Some(entry);
            }
            index = (index + 1) & last;
        }
    }

    /// Newest first.
    pub(super) fn entries(self) -> impl Iterator<Item = EntryRef> {
        // SAFETY: below `count` all are written, and held by the table.
        (0..self.head().count as usize)
            .map(move |index| unsafe { EntryRef::held(*self.order_at().add(index)) })
    }

    pub(super) fn raw(self) -> NonNull<Table> {
        self.0
    }

    /// Gives a link back; frees the table if it was the last.
    ///
    /// # Safety
    ///
    /// The caller has a link and gives it up.
    pub(super) unsafe fn unlink(self) {
        // Acquire: pairs with the Release decrements of those who went before; nobody can come if this is the only one.
        let links = &self.head().links;
        if links.load(Ordering::Acquire) != 1 && links.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        Ending(self).run();
    }

    #[inline]
    fn head(&self) -> &Table {
        // SAFETY: it is held.
        unsafe { self.0.as_ref() }
    }

    /// # Panics
    ///
    /// Never; `index` is below `slots`, which callers see to by a mask.
    #[inline]
    fn slot(&self, index: usize) -> Option<EntryRef> {
        debug_assert!(index < self.head().slots as usize);
        // SAFETY: within the slots, all of which were zeroed or written; what is in one is held by the table.
        unsafe { (*self.slots_at().add(index)).map(|entry| EntryRef::held(entry)) }
    }

    #[inline]
    fn slots_at(self) -> *mut Option<NonNull<Entry>> {
        // SAFETY: they are behind the head, in the same allocation.
        unsafe { self.0.as_ptr().add(1).cast() }
    }

    #[inline]
    fn order_at(self) -> *mut NonNull<Entry> {
        // SAFETY: they are behind the slots, in the same allocation.
        unsafe { self.slots_at().add(self.head().slots as usize).cast() }
    }
}

fn layout(slots: usize, room: usize) -> Layout {
    let behind = Layout::array::<NonNull<Entry>>(slots + room)
        .expect("room for as many pointers as there are entries");
    let (whole, _) = Layout::new::<Table>().extend(behind).expect("as above");
    whole.pad_to_align()
}

/// Lets go of what a table keeps, whatever a destructor does, and then of its memory.
struct Ending(TableRef);

impl Ending {
    fn run(&mut self) {
        // SAFETY: nobody else has the table any more.
        let head = unsafe { self.0.0.as_mut() };
        match head.list.take() {
            Some(list) => {
                head.count = 0;
                // SAFETY: the table's link.
                unsafe { Unlinking::of(list) };
            }
            None => self.release_all(),
        }
    }

    fn release_all(&mut self) {
        while let Some(last) = self.0.head().count.checked_sub(1) {
            // SAFETY: the table's hold, which is given up once, since the count goes down first.
            unsafe {
                self.0.0.as_mut().count = last;
                EntryRef::held(*self.0.order_at().add(last as usize)).release();
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Something is left only if a value's destructor has panicked.
        self.release_all();
        let Table { slots, room, .. } = *self.0.head();
        // SAFETY: allocated by this layout in `empty`, and nobody uses it any more.
        unsafe { dealloc(self.0.0.as_ptr().cast(), layout(slots as usize, room as usize)) };
    }
}
