//! How a node keeps its end: one word.
//!
//! Most ends are seen by nobody: a scope is cancelled, or dropped, that no child, future or other handle looks at. For
//! those the word is the line of the cancel and a tag, and the error is made from it if the owner should ask after all.
//! Every other end is a counted pointer to what a [`Canceled`] points to. A walk over many nodes takes its counts in
//! bulk.

use std::panic::Location;
use std::ptr::NonNull;

use super::layout::Ptr;
use super::state::{BEGAN, Locked};
use crate::canceled::{Canceled, Counted, End, Kind, LazyId, ScopeId};
use crate::reason::Reason;
use crate::sync::atomic::Ordering;

/// An end as a word, counted for nobody: the node's own, or borrowed from it.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Raw(NonNull<Counted>);

/// The tags of an end that nobody has seen: `cancel()` was called, or the scope ended.
const EXPLICIT: usize = 1;
const SCOPE_ENDED: usize = 2;
const TAGS: usize = 3;

/// The word of an end that nobody can see but the owner, for a reason that has one.
pub(super) fn unseen(reason: Reason, origin: &'static Location<'static>) -> Option<*mut ()> {
    let tag = match reason {
        Reason::Explicit => EXPLICIT,
        Reason::ScopeEnded => SCOPE_ENDED,
        _ => return None,
    };
    Some(tagged(origin, tag))
}

/// As [`unseen`], for a call of `cancel()`.
#[inline]
pub(super) fn explicit(origin: &'static Location<'static>) -> *mut () {
    tagged(origin, EXPLICIT)
}

#[inline]
fn tagged(origin: &'static Location<'static>, tag: usize) -> *mut () {
    const { assert!(align_of::<Location<'static>>() > TAGS) };
    let line = std::ptr::from_ref(origin).cast_mut().cast::<()>();
    line.map_addr(|address| address | tag)
}

/// Whether a node with this `tail` has something in it that has to be let go of: an end that was seen, or waiters. Those
/// are never tagged.
#[inline]
pub(super) fn has_share(tail: *mut ()) -> bool {
    !tail.is_null() && tail.addr() & TAGS == 0
}

/// The end of a node that has ended, or `None` for a word that nobody has seen yet.
#[inline]
pub(super) fn seen(node: Ptr) -> Option<Raw> {
    // Acquire: pairs with the Release store in `make_seen`; the mark itself was read with Acquire by the caller.
    let word = node.tail.load(Ordering::Acquire);
    if word.addr() & TAGS == 0 {
        NonNull::new(word.cast()).map(Raw)
    } else {
        None
    }
}

/// The end of a node that has ended, made if nobody had seen it yet.
#[inline]
pub(super) fn of(node: Ptr) -> Raw {
    match seen(node) {
        Some(end) => end,
        None => make_seen(node, &node.state.lock()),
    }
}

/// The end of a marked node that had something below it, so that it was written out. Under the lock of one of its lists.
#[inline]
pub(super) fn of_marked(node: Ptr) -> Raw {
    seen(node).expect("an end that others see is written out")
}

/// As [`of`], under the node's lock.
#[cold]
pub(super) fn make_seen(node: Ptr, own: &Locked<'_>) -> Raw {
    if let Some(end) = seen(node) {
        return end;
    }
    debug_assert!(own.has(BEGAN), "only an end that began here is kept as a line");
    let word = node.tail.load(Ordering::Relaxed);
    // SAFETY: a tagged word is a line with its tag, as `unseen` made it.
    let origin = unsafe {
        &*word
            .map_addr(|address| address & !TAGS)
            .cast::<Location<'static>>()
    };
    // SAFETY: the lock is held.
    let said = unsafe { node.said() };
    let was_called = word.addr() & TAGS == EXPLICIT;
    let end = Canceled::new(End {
        kind: Kind::Canceled,
        reason: if was_called {
            Reason::Explicit
        } else {
            Reason::ScopeEnded
        },
        cause: None,
        origin,
        was_called,
        scope: LazyId::of(said.id),
        name: said.name,
        at: None,
    });
    let raw = Raw(end.into_raw());
    // Release: pairs with `seen`, which takes no lock.
    node.tail.store(raw.word(), Ordering::Release);
    raw
}

/// Takes the end out of a node that is being freed.
///
/// # Safety
///
/// The caller has the node to itself, it has ended, and this is done once.
pub(super) unsafe fn take(node: Ptr) -> Option<Canceled> {
    // SAFETY: the node's word counts for one.
    seen(node).map(|raw| unsafe { Canceled::from_raw(raw.0) })
}

impl Raw {
    /// The node's share of `end`.
    pub(super) fn own(end: Canceled) -> Raw {
        Raw(end.into_raw())
    }

    pub(super) fn word(self) -> *mut () {
        self.0.as_ptr().cast()
    }

    /// The error, counted for the caller.
    #[inline]
    pub(super) fn canceled(&self) -> Canceled {
        // SAFETY: the word that this was read from counts for one and is not taken while the node is held.
        unsafe { Canceled::clone_raw(self.0) }
    }

    /// The scope at which it began.
    pub(super) fn scope(&self) -> ScopeId {
        // SAFETY: as in `canceled`.
        unsafe { self.0.as_ref() }.end().scope.get()
    }

    /// Gives a share back as the error that it counts for.
    pub(super) fn into_canceled(self) -> Canceled {
        // SAFETY: the share is this one's, and is given up with it.
        unsafe { Canceled::from_raw(self.0) }
    }
}

/// Shares of ends, taken in bulk.
#[derive(Default)]
pub(super) struct Shares {
    current: Option<Share>,
    /// Of ends that were met before; given back at the end, outside every lock.
    spare: Vec<Share>,
}

struct Share {
    end: Raw,
    left: usize,
}

/// How many are taken at once.
const BULK: usize = 1024;

impl Shares {
    /// A new end, for a node to keep, of which others will ask for shares.
    pub(super) fn begin(&mut self, end: End) -> Raw {
        let end = Raw::own(Canceled::with_shares(end, BULK));
        self.replace(Share { end, left: BULK });
        end
    }

    /// A share of `end`, for a node to keep. `end` is that of a node that is held.
    #[inline]
    pub(super) fn one_of(&mut self, end: Raw) -> Raw {
        match &mut self.current {
            Some(share) if share.end == end && share.left > 0 => share.left -= 1,
            _ => self.refill(end),
        }
        end
    }

    #[cold]
    fn refill(&mut self, end: Raw) {
        // SAFETY: the end is held, as the caller says.
        unsafe { Canceled::share(end.0, BULK) };
        self.replace(Share { end, left: BULK - 1 });
    }

    fn replace(&mut self, share: Share) {
        if let Some(old) = self.current.replace(share) {
            self.spare.push(old);
        }
    }
}

impl Drop for Shares {
    /// Gives back what was not needed. It may be the last, so a cause's destructor may run.
    fn drop(&mut self) {
        for share in self.current.take().into_iter().chain(self.spare.drain(..)) {
            // SAFETY: so many were taken in `refill`, or made in `begin`, and not passed on.
            drop(unsafe { Canceled::unshare(share.end.0, share.left) });
        }
    }
}
