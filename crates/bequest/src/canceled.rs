//! The error of a context that has ended: one pointer that knows how, why, by whom, where and when.
//!
//! Errors are told apart by [`Kind`] and [`Reason`], never by text. The text is for people; it opens with the two
//! sentences that Go has made familiar and then says why.

use std::error::Error;
use std::fmt;
use std::io;
#[cfg(not(bequest_plain))]
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Instant;

use crate::{CancelScope, Reason};

/// The error of a context that has ended.
///
/// It is one word wide, cheap to clone, and the same for every context that ended with the same event. What it says
/// never changes: the first event wins for ever.
///
/// # Example: telling errors apart
///
/// ```
/// use bequest::{Context, Kind, Reason};
/// use std::time::Duration;
///
/// let scope = Context::background().with_timeout(Duration::ZERO).named("lookup");
/// let end = scope.err().unwrap();
/// assert_eq!(end, Kind::DeadlineExceeded);
/// assert_eq!(end.reason(), Reason::Deadline);
/// assert!(end.is_from(&scope));
/// assert!(end.to_string().starts_with("context deadline exceeded: deadline passed (lookup "));
/// ```
///
/// # Example: the cause is any error
///
/// ```
/// use bequest::Context;
/// use std::error::Error;
///
/// let scope = Context::background().with_cancel();
/// scope.cancel_with("quota used up");
/// let end = scope.err().unwrap();
/// assert_eq!(end.cause().unwrap().to_string(), "quota used up");
/// assert!(end.source().is_some());
/// assert!(end.to_string().ends_with(": quota used up"));
/// ```
pub struct Canceled(NonNull<Counted>);

// SAFETY: what it points to is immutable, `Send` and `Sync`, and counted atomically.
#[allow(unsafe_code)]
unsafe impl Send for Canceled {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Canceled {}

/// How a context ended: somebody cancelled it, or a deadline passed.
///
/// The kind survives any cause and any reason. Compare it with a [`Canceled`] directly: `end == Kind::Canceled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Somebody cancelled: an owner, a client, a shutdown.
    Canceled,
    /// Time ran out: a deadline passed, or somebody cancelled because a [`Limit`](Reason::Limit) had.
    DeadlineExceeded,
}

/// The number of a cancellation scope, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(u64);

/// What a [`Canceled`] points to: as an `Arc` would, with a count that can be taken in bulk, since one end is shared by
/// as many nodes as it has ended.
pub(crate) struct Counted {
    count: AtomicUsize,
    end: End,
}

/// All that a [`Canceled`] knows. Written once, before it is published.
pub(crate) struct End {
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) cause: Option<Cause>,
    pub(crate) origin: &'static Location<'static>,
    /// Whether `origin` is a call that cancelled, and not the line that made the scope.
    pub(crate) was_called: bool,
    pub(crate) scope: LazyId,
    pub(crate) name: Option<&'static str>,
    pub(crate) at: Option<Instant>,
}

/// The number of the scope at which an end began, drawn when somebody asks for it if it had none by then: the counter is
/// one for the whole process, and most ends are never asked.
pub(crate) struct LazyId(AtomicU64);

/// A cause, shared by all who end with it.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

impl Canceled {
    pub(crate) fn new(end: End) -> Canceled {
        Canceled(memory::make(Counted {
            count: AtomicUsize::new(1),
            end,
        }))
    }

    /// As [`new`](Canceled::new), with so many shares besides, which the caller has.
    #[cfg(not(bequest_plain))]
    pub(crate) fn with_shares(end: End, shares: usize) -> Canceled {
        Canceled(memory::make(Counted {
            count: AtomicUsize::new(1 + shares),
            end,
        }))
    }

    /// Whether somebody cancelled or a deadline passed.
    pub fn kind(&self) -> Kind {
        self.end().kind
    }

    /// What ended the context.
    pub fn reason(&self) -> Reason {
        self.end().reason
    }

    /// The error given as the cause, if one was given.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.end().cause.as_deref()
    }

    /// The source line of the call that cancelled; for a dropped scope or a deadline, of the call that made it; for a signal or a
    /// sibling that failed, of the call that listened for it or spawned it.
    pub fn origin(&self) -> &'static Location<'static> {
        self.end().origin
    }

    /// The scope that was cancelled or whose deadline passed: its name, if it has one, and its id.
    pub fn scope(&self) -> (Option<&'static str>, ScopeId) {
        (self.end().name, self.end().scope.get())
    }

    /// Whether this end began at `scope` itself, and not at a scope further out.
    ///
    /// My own limit is a failure that a retry or a fallback may answer; an outer scope's end is not: nobody waits for
    /// the answer any more.
    ///
    /// ```
    /// use bequest::Context;
    /// use std::time::Duration;
    ///
    /// let request = Context::background().with_cancel();
    /// let step = request.with_timeout(Duration::ZERO);
    /// assert!(step.err().unwrap().is_from(&step));
    ///
    /// let step = request.with_timeout(Duration::from_secs(60));
    /// request.cancel();
    /// assert!(!step.err().unwrap().is_from(&step));
    /// assert!(step.err().unwrap().is_from(&request));
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.end().scope.get() == scope.id()
    }

    /// When it ended, on the clock of its context, if anybody could see it then.
    ///
    /// For a deadline this is the moment at which its passing was noticed, never one before it.
    pub fn at(&self) -> Option<Instant> {
        self.end().at
    }

    /// Whether a deadline passed: what network errors call a timeout.
    pub fn is_timeout(&self) -> bool {
        self.end().kind == Kind::DeadlineExceeded
    }
}

/// The counting, and the only `unsafe` of this module.
///
/// Its invariant: each `Canceled`, and each share that was taken in bulk, counts for one; so what it points to is there.
#[allow(unsafe_code)]
impl Canceled {
    fn end(&self) -> &End {
        // SAFETY: the invariant.
        &unsafe { self.0.as_ref() }.end
    }

    /// The pointer, which counts for one.
    #[cfg(not(bequest_plain))]
    pub(crate) fn into_raw(self) -> NonNull<Counted> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    ///
    /// `raw` counts for one, which this takes over.
    #[cfg(not(bequest_plain))]
    pub(crate) unsafe fn from_raw(raw: NonNull<Counted>) -> Canceled {
        Canceled(raw)
    }

    /// # Safety
    ///
    /// Somebody holds a share of `raw` during the call.
    pub(crate) unsafe fn clone_raw(raw: NonNull<Counted>) -> Canceled {
        // SAFETY: as the caller promises.
        unsafe { Canceled::share(raw, 1) };
        Canceled(raw)
    }

    /// Takes `shares` at once.
    ///
    /// # Safety
    ///
    /// Somebody holds a share of `raw` during the call.
    pub(crate) unsafe fn share(raw: NonNull<Counted>, shares: usize) {
        // SAFETY: as the caller promises. Relaxed: a share is made from one that is held.
        let count = unsafe { raw.as_ref() }.count.fetch_add(shares, Ordering::Relaxed);
        if count > isize::MAX as usize {
            // As `Arc` does: the count must not wrap.
            std::process::abort();
        }
    }

    /// Gives `shares` back; what they pointed to, if they were the last, to be dropped.
    ///
    /// # Safety
    ///
    /// The caller has so many shares and gives them up.
    pub(crate) unsafe fn unshare(raw: NonNull<Counted>, shares: usize) -> Option<End> {
        if shares == 0 {
            return None;
        }
        // SAFETY: as the caller promises.
        let count = unsafe { &raw.as_ref().count };
        // Acquire: pairs with the Release decrements of those who went before. If these are all the shares there are,
        // nobody can take another.
        if count.load(Ordering::Acquire) != shares {
            // Release: pairs with the load above, or the fence below, of whoever is last.
            if count.fetch_sub(shares, Ordering::Release) != shares {
                return None;
            }
            fence(Ordering::Acquire);
        }
        // SAFETY: made by `memory::make`, and nobody has a share any more.
        Some(unsafe { memory::take(raw) }.end)
    }
}

/// Where ends are kept: for the fast tree in the lists of its pool, since one is made for each cancel that somebody sees.
#[allow(unsafe_code)]
mod memory {
    use super::{Counted, NonNull};
    #[cfg(not(bequest_plain))]
    use crate::tree::pool::{self, Pooled};

    #[cfg(not(bequest_plain))]
    impl Pooled for Counted {
        const LIST: usize = 4;
    }

    #[cfg(not(bequest_plain))]
    pub(super) fn make(counted: Counted) -> NonNull<Counted> {
        pool::make(counted)
    }

    #[cfg(bequest_plain)]
    pub(super) fn make(counted: Counted) -> NonNull<Counted> {
        NonNull::from(Box::leak(Box::new(counted)))
    }

    /// Gives the memory back; what was in it is returned.
    ///
    /// # Safety
    ///
    /// `counted` was made here, and nobody uses it any more.
    #[cfg(not(bequest_plain))]
    pub(super) unsafe fn take(counted: NonNull<Counted>) -> Counted {
        // SAFETY: as the caller promises, it is there to be moved out, once.
        let content = unsafe { counted.read() };
        // SAFETY: made by `make`, for this list.
        unsafe { pool::free(Counted::LIST, counted.cast()) };
        content
    }

    #[cfg(bequest_plain)]
    pub(super) unsafe fn take(counted: NonNull<Counted>) -> Counted {
        // SAFETY: made by `Box::leak` in `make`, and given up by the caller.
        *unsafe { Box::from_raw(counted.as_ptr()) }
    }
}

#[cfg(not(bequest_plain))]
impl Counted {
    pub(crate) fn end(&self) -> &End {
        &self.end
    }
}

#[allow(unsafe_code)]
impl Clone for Canceled {
    fn clone(&self) -> Canceled {
        // SAFETY: this is a share.
        unsafe { Canceled::clone_raw(self.0) }
    }
}

#[allow(unsafe_code)]
impl Drop for Canceled {
    fn drop(&mut self) {
        // SAFETY: this is a share, given up now.
        drop(unsafe { Canceled::unshare(self.0, 1) });
    }
}

impl PartialEq<Kind> for Canceled {
    fn eq(&self, kind: &Kind) -> bool {
        self.end().kind == *kind
    }
}

impl PartialEq<Canceled> for Kind {
    fn eq(&self, end: &Canceled) -> bool {
        *self == end.kind()
    }
}

impl Error for Canceled {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.end()
            .cause
            .as_ref()
            .map(|cause| &**cause as &(dyn Error + 'static))
    }
}

impl fmt::Display for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end();
        write!(f, "{}: {} (", end.kind, end.reason)?;
        match (end.name, end.was_called) {
            (Some(name), _) => write!(f, "{name} {}", end.scope.get())?,
            (None, true) => write!(f, "cancelled at {}:{}", end.origin.file(), end.origin.line())?,
            (None, false) => write!(f, "made at {}:{}", end.origin.file(), end.origin.line())?,
        }
        f.write_str(")")?;
        match &end.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Canceled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end();
        let mut out = f.debug_struct("Canceled");
        out.field("kind", &end.kind).field("reason", &end.reason);
        if let Some(name) = end.name {
            out.field("name", &name);
        }
        out.field("scope", &end.scope.get().0)
            .field("origin", &format_args!("{}", end.origin));
        if let Some(cause) = &end.cause {
            out.field("cause", &format_args!("{cause}"));
        }
        out.finish()
    }
}

impl From<Canceled> for io::Error {
    /// `TimedOut` for a deadline, `Other` for a cancellation.
    ///
    /// Not `Interrupted`: readers and writers of the standard library retry on that, for ever.
    fn from(end: Canceled) -> io::Error {
        let kind = if end.is_timeout() {
            io::ErrorKind::TimedOut
        } else {
            io::ErrorKind::Other
        };
        io::Error::new(kind, end)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Canceled => "context canceled",
            Kind::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl ScopeId {
    /// A number that no scope of this process had before.
    pub(crate) fn next() -> ScopeId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only uniqueness is asked for; nothing is published under a number.
        ScopeId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The scope of this number, which it was given before.
    #[cfg(not(bequest_plain))]
    pub(crate) fn known(number: u64) -> ScopeId {
        ScopeId(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl LazyId {
    /// The number of a scope, or nought if it has none yet.
    pub(crate) const fn of(number: u64) -> LazyId {
        LazyId(AtomicU64::new(number))
    }

    /// The number; the same to everybody.
    pub(crate) fn get(&self) -> ScopeId {
        // Relaxed, here and below: a number, under which nothing is published.
        match self.0.load(Ordering::Relaxed) {
            0 => self.draw(),
            number => ScopeId(number),
        }
    }

    #[cold]
    fn draw(&self) -> ScopeId {
        let mine = ScopeId::next();
        match self
            .0
            .compare_exchange(0, mine.0, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => mine,
            Err(first) => ScopeId(first),
        }
    }
}

impl From<ScopeId> for LazyId {
    fn from(id: ScopeId) -> LazyId {
        LazyId::of(id.0)
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
