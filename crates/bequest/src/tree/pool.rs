//! Memory for nodes, waiters and ends: a short list of freed ones for each thread, above the allocator.
//!
//! Making and freeing is most of what a short-lived context costs; a list that one thread has to itself makes it two
//! loads and two stores. A list holds at most 64 pieces of a size and gives the rest back, and all of them when its thread
//! ends. Where schedules are explored, under miri and the sanitizers, or with `--cfg bequest_no_pool`, there are no lists, so that
//! those tools see each piece being made and freed.

use std::alloc::{self, Layout, handle_alloc_error};
use std::ptr::NonNull;

use super::layout::{Heir, Node, Timed};
use super::record::Record;
use crate::canceled::Counted;

/// How many pieces of one size a thread keeps.
#[cfg(not(any(loom, shuttle, miri, bequest_no_pool)))]
const KEPT: usize = 64;

/// The layouts that are kept, by list: a plain node, an heir, a waiter, a timed node, an end. Those of nodes stand where
/// [`state::list`](super::state::list) says.
const LAYOUTS: [Layout; 5] = [
    Layout::new::<Node>(),
    Layout::new::<Heir>(),
    Layout::new::<Record>(),
    Layout::new::<Timed>(),
    Layout::new::<Counted>(),
];

/// A type whose pieces are kept.
pub(crate) trait Pooled: Sized {
    /// Which of a thread's lists is its own: that of its layout.
    const LIST: usize;
}

/// Memory that holds `value`.
#[inline]
pub(crate) fn make<T: Pooled>(value: T) -> NonNull<T> {
    let piece = lists::take(T::LIST).map_or_else(fresh::<T>, NonNull::cast);
    // SAFETY: the piece is as large and as aligned as a `T`, since it came from the allocator by that layout, and
    // nobody else has it.
    unsafe { piece.write(value) };
    piece
}

/// Gives the memory back. The value is not dropped: its fields were taken care of before.
///
/// # Safety
///
/// `piece` came from [`make`] for a type of this list, and nobody uses it any more.
#[inline]
pub(crate) unsafe fn free(list: usize, piece: NonNull<()>) {
    if !lists::keep(list, piece.cast()) {
        // SAFETY: as the caller promises.
        unsafe { free_slowly(list, piece) };
    }
}

/// As [`free`], of the first piece of a thread, or of one too many.
///
/// # Safety
///
/// As [`free`].
#[cold]
#[inline(never)]
unsafe fn free_slowly(list: usize, piece: NonNull<()>) {
    if !lists::open() || !lists::keep(list, piece.cast()) {
        // SAFETY: as the caller promises.
        unsafe { dealloc(list, piece) };
    }
}

/// # Safety
///
/// As [`free`].
#[cold]
unsafe fn dealloc(list: usize, piece: NonNull<()>) {
    // SAFETY: it came from `fresh` by this layout.
    unsafe { alloc::dealloc(piece.as_ptr().cast(), LAYOUTS[list]) };
}

#[cold]
fn fresh<T: Pooled>() -> NonNull<T> {
    const { assert!(size_of::<T>() == LAYOUTS[T::LIST].size() && align_of::<T>() == LAYOUTS[T::LIST].align()) };
    let layout = LAYOUTS[T::LIST];
    // SAFETY: none of the pooled types is of size zero.
    let piece = unsafe { alloc::alloc(layout) };
    NonNull::new(piece.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}

/// The lists of this thread.
#[cfg(not(any(loom, shuttle, miri, bequest_no_pool)))]
mod lists {
    use std::cell::Cell;
    use std::ptr::{self, NonNull};

    use super::{KEPT, LAYOUTS};

    const SIZES: usize = LAYOUTS.len();

    /// A freed piece, which is where the pointer to the next is.
    pub(super) struct Piece {
        next: *mut Piece,
    }

    struct List {
        first: Cell<*mut Piece>,
        /// How many more pieces are taken in. None before the first is, so that the common way asks one question.
        room: Cell<usize>,
    }

    thread_local! {
        /// Without a destructor, so that a look at it is two instructions; [`GIVE_BACK`] has that.
        static LISTS: [List; SIZES] = const { [const { List::new() }; SIZES] };
        static STAGE: Cell<Stage> = const { Cell::new(Stage::Unused) };
        static GIVE_BACK: GiveBack = const { GiveBack };
    }

    /// What a thread's lists are for.
    #[derive(Clone, Copy, PartialEq)]
    enum Stage {
        /// Nothing was freed on this thread yet.
        Unused,
        /// Pieces are kept.
        Open,
        /// The thread is ending: nothing is kept any more.
        Closed,
    }

    #[inline]
    pub(super) fn take(list: usize) -> Option<NonNull<Piece>> {
        LISTS.with(|lists| lists[list].take())
    }

    #[inline]
    pub(super) fn keep(list: usize, piece: NonNull<Piece>) -> bool {
        LISTS.with(|lists| {
            let list = &lists[list];
            let has_room = list.room.get() > 0;
            if has_room {
                list.keep(piece);
            }
            has_room
        })
    }

    /// Makes room, once, at the first piece that this thread frees; whether it did.
    pub(super) fn open() -> bool {
        if STAGE.get() != Stage::Unused {
            return false;
        }
        // From here on the thread gives back what it keeps; a thread that is ending already keeps nothing.
        let is_open = GIVE_BACK.try_with(|_| ()).is_ok();
        if is_open {
            STAGE.set(Stage::Open);
            LISTS.with(|lists| lists.iter().for_each(|list| list.room.set(KEPT)));
        }
        is_open
    }

    impl List {
        const fn new() -> List {
            List {
                first: Cell::new(ptr::null_mut()),
                room: Cell::new(0),
            }
        }

        #[inline]
        fn take(&self) -> Option<NonNull<Piece>> {
            let piece = NonNull::new(self.first.get())?;
            // SAFETY: a piece in the list is this thread's and was written by `keep`.
            self.first.set(unsafe { piece.as_ref() }.next);
            self.room.set(self.room.get() + 1);
            Some(piece)
        }

        #[inline]
        fn keep(&self, piece: NonNull<Piece>) {
            let next = self.first.get();
            // SAFETY: the piece is large enough for a link, as all pooled types are, and nobody uses it.
            unsafe { piece.write(Piece { next }) };
            self.first.set(piece.as_ptr());
            self.room.set(self.room.get() - 1);
        }
    }

    /// Its destructor is the end of a thread's lists.
    struct GiveBack;

    impl Drop for GiveBack {
        fn drop(&mut self) {
            STAGE.set(Stage::Closed);
            LISTS.with(|lists| {
                for (number, list) in lists.iter().enumerate() {
                    while let Some(piece) = list.take() {
                        // SAFETY: a piece of this list, which nobody uses.
                        unsafe { super::dealloc(number, piece.cast()) };
                    }
                    list.room.set(0);
                }
            });
        }
    }
}

/// No lists: each piece comes from the allocator and goes back to it.
#[cfg(any(loom, shuttle, miri, bequest_no_pool))]
mod lists {
    use std::ptr::NonNull;

    pub(super) fn take(_list: usize) -> Option<NonNull<()>> {
        None
    }

    pub(super) fn keep(_list: usize, _piece: NonNull<()>) -> bool {
        false
    }

    pub(super) fn open() -> bool {
        false
    }
}
