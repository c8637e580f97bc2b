//! What a node is made of, and the raw pointers by which nodes know each other.
//!
//! A node is one allocation of 56 bytes, in the smallest chunk of 64 that common allocators hand out. What only some
//! nodes need follows behind it, so that a plain child does not pay for it: a deadline, a place in the wheel, a clock.
//! [`Kind`](super::state::Kind) says what there is.
//!
//! All fields that change are atomics, most of them read and written `Relaxed` under a lock: a plain access would be
//! as cheap, and a mistake then undefined. What guards each is said beside it. Those that are `Guarded` are never touched
//! without their lock, so the model checker need not explore them.

use std::ops::Deref;
use std::panic::Location;
use std::ptr::{self, NonNull, addr_of};
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicPtr as Guarded;

use super::stamp::Stamp;
use super::state::{self, HAS_AT, HAS_ENTRY, Kind, Word};
use super::timer::{TimerKey, Timers};
use super::wheel::Entry;
use crate::canceled::Cause;
use crate::label::Label;
use crate::reason::Reason;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sync::{self, EXPLORED};

/// What all nodes have.
#[repr(C)]
pub(super) struct Node {
    pub(super) state: Word,
    /// How many handles there are. The last one to go releases the node.
    pub(super) handles: AtomicU32,
    /// The node that it ends with. Never changes, and lives as long as this node is in its list (invariant 1).
    pub(super) parent: Option<Ptr>,
    /// Neighbours in the parent's list; guarded by that list's lock.
    pub(super) next: Guarded<Node>,
    pub(super) prev: Guarded<Node>,
    /// The first child, or the lists of a sharded node. Guarded by the lock.
    pub(super) kids: AtomicPtr<Node>,
    /// Of a live node: the first who waits, guarded by the lock. Of one that has ended: the end, published with it
    /// (invariant 2).
    pub(super) tail: AtomicPtr<()>,
    /// The line that made the node; or its [`Label`] or [`Details`], each tagged. Written under the lock, details once.
    pub(super) origin: Guarded<()>,
}

/// A node that inherits a deadline.
#[repr(C)]
pub(super) struct Heir {
    node: Node,
    at: Stamp,
}

/// A node with a deadline of its own, which begins where that of an [`Heir`] does.
#[repr(C)]
pub(super) struct Timed {
    node: Node,
    entry: Entry,
}

/// A node with everything.
#[repr(C)]
pub(super) struct Full {
    node: Node,
    entry: Entry,
    /// Its clock, unless that is the system's. Never changes.
    pub(super) timers: Option<Arc<Timers>>,
    /// What its clock rings. Never changes.
    pub(super) bell: Option<Arc<NodeBell>>,
    /// Where it is armed on a clock of its own. Guarded by the node's lock.
    pub(super) key: StdMutex<Option<TimerKey>>,
    /// Its stand-ins, one for each parent, if it has several. Written before anybody else can reach the node, and
    /// emptied after.
    pub(super) tethers: StdMutex<Vec<Ptr>>,
}

/// A stand-in in one parent's list.
#[repr(C)]
pub(super) struct Tether {
    node: Node,
    target: Ptr,
}

/// What few nodes need beyond a label. Guarded by the node's lock, but for `made_at`, which never changes.
pub(super) struct Details {
    pub(super) made_at: &'static Location<'static>,
    /// Zero until it is asked for.
    pub(super) id: u64,
    pub(super) name: Option<&'static str>,
    /// Reason and cause of the own deadline's passing.
    pub(super) reason: Reason,
    pub(super) cause: Option<Cause>,
}

/// The way from a clock of the user's to a node, cut before the node is freed.
pub(super) struct NodeBell(pub(super) sync::Mutex<Option<Ptr>>);

const _: () = assert!(!cfg!(target_pointer_width = "64") || EXPLORED || size_of::<Node>() == 56);
const _: () = assert!(!cfg!(target_pointer_width = "64") || EXPLORED || size_of::<Heir>() == 64);
const _: () = assert!(!cfg!(target_pointer_width = "64") || EXPLORED || size_of::<Timed>() == 88);

impl Node {
    pub(super) fn new(bits: u32, parent: Option<Ptr>, made_at: &'static Location<'static>) -> Node {
        Node {
            state: Word::new(bits),
            handles: AtomicU32::new(1),
            parent,
            next: Guarded::new(ptr::null_mut()),
            prev: Guarded::new(ptr::null_mut()),
            kids: AtomicPtr::new(ptr::null_mut()),
            tail: AtomicPtr::new(ptr::null_mut()),
            origin: Guarded::new(ptr::from_ref(made_at).cast_mut().cast()),
        }
    }
}

impl Heir {
    pub(super) fn new(node: Node, at: Stamp) -> Heir {
        Heir { node, at }
    }
}

impl Timed {
    pub(super) fn new(node: Node, at: Stamp) -> Timed {
        Timed {
            node,
            entry: Entry::of_node(at),
        }
    }
}

impl Full {
    pub(super) fn new(node: Node, at: Stamp, timers: Option<Arc<Timers>>) -> Full {
        let bell = timers
            .as_ref()
            .map(|_| Arc::new(NodeBell(sync::Mutex::new(None))));
        Full {
            node,
            entry: Entry::of_node(at),
            timers,
            bell,
            key: StdMutex::new(None),
            tethers: StdMutex::new(Vec::new()),
        }
    }
}

impl Tether {
    pub(super) fn new(node: Node, target: Ptr) -> Tether {
        Tether { node, target }
    }
}

/// A pointer to a node that is held: by a handle, a pin, a child in its list, or the lock of the list that it is in.
///
/// It reaches the whole allocation and not the 56 bytes of [`Node`] alone, so it is made from the allocation and never
/// from a reference. Making one from a link is the unsafe step; whoever does so says what holds the node, and does not
/// use the pointer longer than that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ptr(NonNull<Node>);

// SAFETY: nodes are made to be shared: their fields are atomics, immutable, or behind locks.
unsafe impl Send for Ptr {}
// SAFETY: as above.
unsafe impl Sync for Ptr {}

impl Ptr {
    /// # Safety
    ///
    /// `raw` is null or a node that is held for as long as the pointer is used.
    #[inline]
    pub(super) unsafe fn held(raw: *mut Node) -> Option<Ptr> {
        NonNull::new(raw).map(Ptr)
    }

    /// The node, for as long as the caller says and not as long as this pointer is there.
    ///
    /// # Safety
    ///
    /// The node is held for all of `'l`.
    #[inline]
    pub(super) unsafe fn node<'l>(self) -> &'l Node {
        // SAFETY: as the caller promises.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn raw(self) -> *mut Node {
        self.0.as_ptr()
    }

    /// Where the node is in memory.
    pub(super) fn place(self) -> usize {
        self.0.addr().get()
    }

    /// The deadline that ends it at the latest, its own or inherited.
    #[inline]
    pub(super) fn deadline(self) -> Stamp {
        self.deadline_by(self.state.load())
    }

    /// As [`deadline`](Ptr::deadline), with the node's bits in hand. Those of the kind never change.
    #[inline]
    pub(super) fn deadline_by(self, bits: u32) -> Stamp {
        if bits & HAS_AT == 0 {
            return Stamp::NEVER;
        }
        // SAFETY: of these kinds is each allocation that begins with a `Heir`, or has the same layout up to there:
        // `Entry` is `repr(C)` and begins with the stamp.
        unsafe { *addr_of!((*self.raw().cast::<Heir>()).at) }
    }

    /// Its place in the wheel, if it is of a kind that has one.
    #[inline]
    pub(super) fn entry(self) -> Option<NonNull<Entry>> {
        if self.state.load() & HAS_ENTRY == 0 {
            return None;
        }
        // SAFETY: both kinds that have one begin with a `Timed`; the pointer reaches the whole allocation.
        NonNull::new(unsafe { &raw mut (*self.raw().cast::<Timed>()).entry })
    }

    /// The node whose place in the wheel `entry` is.
    ///
    /// # Safety
    ///
    /// `entry` is the place of a node, and that node is held as [`Ptr`] asks.
    pub(super) unsafe fn of_entry(entry: NonNull<Entry>) -> Ptr {
        let offset = std::mem::offset_of!(Timed, entry);
        // SAFETY: the place is a field of a node's allocation, which the pointer reaches.
        Ptr(unsafe { entry.cast::<u8>().sub(offset).cast() })
    }

    #[inline]
    pub(super) fn full(&self) -> Option<&Full> {
        // SAFETY: the kind says that the allocation is a `Full`, and it is held.
        state::is_full(self.state.load()).then(|| unsafe { &*self.raw().cast::<Full>() })
    }

    #[inline]
    pub(super) fn tether_target(self) -> Option<Ptr> {
        // SAFETY: as in `full`.
        (state::kind(self.state.load()) == Kind::Tether)
            .then(|| unsafe { (*self.raw().cast::<Tether>()).target })
    }

    /// The clock of its own; `None` for the system's.
    #[inline]
    pub(super) fn timers(&self) -> Option<&Arc<Timers>> {
        self.full()?.timers.as_ref()
    }

    pub(super) fn made_at(self) -> &'static Location<'static> {
        match untag(self.origin.load(Ordering::Acquire)) {
            Origin::Line(line) => line,
            Origin::Label(label) => label.made_at,
            // SAFETY: details live as long as their node, and this field never changes.
            Origin::Details(details) => unsafe { (*details).made_at },
        }
    }

    #[inline]
    pub(super) fn has_details(self) -> bool {
        self.origin.load(Ordering::Relaxed).addr() & DETAILS != 0
    }

    /// The details, if there are any. Under the node's lock.
    ///
    /// # Safety
    ///
    /// The caller has the node's lock, or the node to itself, and uses the reference no longer than that.
    pub(super) unsafe fn details<'l>(self) -> Option<&'l mut Details> {
        match untag(self.origin.load(Ordering::Relaxed)) {
            Origin::Line(_) | Origin::Label(_) => None,
            // SAFETY: they live as long as their node, and the lock makes this the only reference.
            Origin::Details(details) => Some(unsafe { &mut *details }),
        }
    }

    /// What the node's owner has said of it, in a label or one by one. Under the node's lock.
    ///
    /// # Safety
    ///
    /// As [`details`](Ptr::details).
    pub(super) unsafe fn said<'l>(self) -> Said<'l> {
        match untag(self.origin.load(Ordering::Relaxed)) {
            Origin::Line(_) => Said {
                id: 0,
                name: None,
                reason: Reason::Deadline,
                cause: None,
            },
            Origin::Label(label) => Said {
                id: 0,
                name: Some(label.name),
                reason: label.reason,
                cause: None,
            },
            Origin::Details(details) => {
                // SAFETY: as in `details`.
                let details = unsafe { &*details };
                Said {
                    id: details.id,
                    name: details.name,
                    reason: details.reason,
                    cause: details.cause.as_ref(),
                }
            }
        }
    }

    /// Gives the node a label, in place of what was said before. Under the node's lock.
    ///
    /// # Safety
    ///
    /// As [`details`](Ptr::details).
    pub(super) unsafe fn set_label(self, label: &'static Label) {
        // SAFETY: as the caller promises.
        if let Some(details) = unsafe { self.details() } {
            (details.name, details.reason) = (Some(label.name), label.reason);
            return;
        }
        let label = ptr::from_ref(label).cast_mut().cast::<()>();
        // Release: pairs with the Acquire load in `made_at`, which takes no lock.
        self.origin
            .store(label.map_addr(|address| address | LABEL), Ordering::Release);
    }

    /// The details, made if there were none. Under the node's lock.
    ///
    /// # Safety
    ///
    /// As [`details`](Ptr::details).
    pub(super) unsafe fn details_or_new<'l>(self) -> &'l mut Details {
        let details = match untag(self.origin.load(Ordering::Relaxed)) {
            Origin::Details(details) => details,
            origin => {
                let details = Box::into_raw(Box::new(Details::after(&origin)));
                // Release: pairs with the Acquire load in `made_at`, which takes no lock.
                self.origin.store(
                    details.cast::<()>().map_addr(|address| address | DETAILS),
                    Ordering::Release,
                );
                details
            }
        };
        // SAFETY: as in `details`.
        unsafe { &mut *details }
    }

    /// Takes the details out for good.
    ///
    /// # Safety
    ///
    /// The caller has the node to itself and is about to free it.
    pub(super) unsafe fn take_details(self) -> Option<Box<Details>> {
        match untag(self.origin.load(Ordering::Relaxed)) {
            Origin::Line(_) | Origin::Label(_) => None,
            // SAFETY: made by `Box::into_raw` above, and taken once, since the node is freed once.
            Origin::Details(details) => Some(unsafe { Box::from_raw(details) }),
        }
    }
}

impl Details {
    fn after(origin: &Origin) -> Details {
        let (made_at, name, reason) = match origin {
            Origin::Line(made_at) => (*made_at, None, Reason::Deadline),
            Origin::Label(label) => (label.made_at, Some(label.name), label.reason),
            Origin::Details(_) => unreachable!("details are made once"),
        };
        Details {
            made_at,
            id: 0,
            name,
            reason,
            cause: None,
        }
    }
}

/// What [`Ptr::said`] reads.
pub(super) struct Said<'l> {
    /// Zero if nobody has asked for it.
    pub(super) id: u64,
    pub(super) name: Option<&'static str>,
    /// Reason and cause of the own deadline's passing.
    pub(super) reason: Reason,
    pub(super) cause: Option<&'l Cause>,
}

enum Origin {
    Line(&'static Location<'static>),
    Label(&'static Label),
    Details(*mut Details),
}

const DETAILS: usize = 1;
const LABEL: usize = 2;
const _: () =
    assert!(align_of::<Location<'_>>() > (DETAILS | LABEL) && align_of::<Label>() > (DETAILS | LABEL));

fn untag(origin: *mut ()) -> Origin {
    let bare = origin.map_addr(|address| address & !(DETAILS | LABEL));
    match origin.addr() & (DETAILS | LABEL) {
        DETAILS => Origin::Details(bare.cast()),
        // SAFETY: such an origin is the `&'static Label` that `set_label` put there.
        LABEL => Origin::Label(unsafe { &*bare.cast::<Label>() }),
        // SAFETY: an untagged origin is the `&'static Location` that `Node::new` put there.
        _ => Origin::Line(unsafe { &*bare.cast::<Location<'static>>() }),
    }
}

impl Deref for Ptr {
    type Target = Node;

    #[inline]
    fn deref(&self) -> &Node {
        // SAFETY: the node is held, which is what whoever made the pointer has promised.
        unsafe { self.0.as_ref() }
    }
}
