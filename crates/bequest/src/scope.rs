//! Owners: a [`CancelScope`] whose end ends everything derived from it, and the [`Canceller`], the right without the
//! ownership.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::canceled::{Canceled, Cause, ScopeId};
use crate::key::Key;
use crate::label::Label;
use crate::tree::{Blame, NodeRef};
use crate::{Context, Reason};

/// The owner of a context: dropping it cancels everything derived from it.
///
/// It is a [`Context`] by `Deref`, so it is passed on as `&scope`. Not `Clone`: there is one owner. What Go's users
/// write as `defer cancel()`, and forget, is its destructor here.
///
/// Beware of `ctx.with_timeout(d).clone()`: that clones the context and drops the scope in the same statement, so the
/// clone is dead on arrival; its error says where. A temporary in a call is fine: `fetch(&ctx.with_timeout(d)).await`.
///
/// # Example: dropped, so cancelled
///
/// ```
/// use bequest::{Context, Reason};
///
/// let child = {
///     let scope = Context::background().with_cancel();
///     scope.context()
/// };
/// assert_eq!(child.err().unwrap().reason(), Reason::ScopeEnded);
/// assert_eq!(child.err().unwrap().origin().file(), file!());
/// ```
#[must_use = "a scope that is dropped at once cancels everything derived from it at once"]
pub struct CancelScope {
    context: Context,
    /// Whether dropping it cancels. Given up by `into_context` and by handing the context to another scope.
    owns: bool,
    /// The right that cancellers share, once there is one.
    right: OnceLock<Arc<Right>>,
}

/// The right to cancel a scope, without owning it: dropping it does nothing.
///
/// ```
/// use bequest::{Context, Reason};
///
/// let scope = Context::background().with_cancel();
/// let canceller = scope.canceller();
/// std::thread::spawn(move || canceller.cancel_for(Reason::Shutdown)).join().unwrap();
/// assert_eq!(scope.err().unwrap().reason(), Reason::Shutdown);
/// ```
#[derive(Clone)]
pub struct Canceller(Arc<Right>);

/// The right to cancel a node. When the last holder is gone and the scope has been given up, nobody can.
struct Right(NodeRef);

impl Drop for Right {
    fn drop(&mut self) {
        // If it is a scope's that is being dropped, the node has ended by now and this does nothing.
        self.0.give_up();
    }
}

impl CancelScope {
    pub(crate) fn own(context: Context) -> CancelScope {
        CancelScope {
            context,
            owns: true,
            right: OnceLock::new(),
        }
    }

    /// A handle that observes: it ends with this scope and does not keep it.
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// The right to cancel, to be handed to somebody else.
    pub fn canceller(&self) -> Canceller {
        let right = self.right.get_or_init(|| Arc::new(Right(self.node().clone())));
        Canceller(Arc::clone(right))
    }

    /// The number that this scope has in errors and lists.
    pub fn id(&self) -> ScopeId {
        self.node().id()
    }

    /// Ends everything derived from this scope, for [`Reason::Explicit`].
    ///
    /// When the call returns, every context derived from this scope reads as done, even those derived at that instant
    /// on other threads, whichever of several concurrent callers this is; the first has also woken all who wait and run
    /// all callbacks (but those that a cancel further out, at the same time on another thread, has taken upon itself). If it had ended before, nothing changes: the first event wins.
    #[track_caller]
    #[inline(never)]
    pub fn cancel(&self) {
        self.node().cancel_explicitly(Location::caller());
    }

    /// As [`cancel`](CancelScope::cancel), with an error that says why.
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        blame(self.node(), Reason::Explicit, Some(cause.into().into()));
    }

    /// As [`cancel`](CancelScope::cancel), for a reason that programs can tell apart. A reason that
    /// [is a timeout](Reason::is_timeout) makes the kind `DeadlineExceeded`.
    #[track_caller]
    pub fn cancel_for(&self, reason: Reason) {
        blame(self.node(), reason, None);
    }

    /// Whether nobody but the owner can see that this scope ends: it has not ended, and there is no other handle on it, no
    /// child, waiter or callback.
    ///
    /// For an owner who ends scopes by the million with a reason of its own: where this is `true` the reason has no reader,
    /// and dropping the scope is all that is left to do.
    ///
    /// ```
    /// # use bequest::Context;
    /// let scope = Context::background().with_cancel();
    /// assert!(scope.is_unobserved());
    /// let handle = scope.context();
    /// assert!(!scope.is_unobserved());
    /// drop(handle);
    /// assert!(scope.is_unobserved());
    /// ```
    pub fn is_unobserved(&self) -> bool {
        self.node().is_unobserved()
    }

    /// How it has ended, as far as that is written down: without a look at the clock, so that a deadline counts only once
    /// somebody has looked at it, or waits for it, since it has passed.
    ///
    /// For an owner who asks whether *somebody has cancelled*. Whoever does the work asks [`err`](Context::err).
    ///
    /// ```
    /// # use bequest::{Context, Reason};
    /// # use std::time::Duration;
    /// let scope = Context::background().with_timeout(Duration::ZERO);
    /// assert!(scope.known_end().is_none());
    /// assert!(scope.is_done());
    /// assert_eq!(scope.known_end().unwrap().reason(), Reason::Deadline);
    /// ```
    pub fn known_end(&self) -> Option<Canceled> {
        self.node().known_end()
    }

    /// Gives the scope a name, which its errors, `Debug` and the list of live contexts show.
    pub fn named(self, name: &'static str) -> CancelScope {
        self.node().set_name(name);
        self
    }

    /// Gives the scope the name and the reason of a [`Label`], in one step and without memory of its own.
    ///
    /// To be called right after the derivation; errors and lists then show the label's line in place of that one. What is
    /// said of the scope afterwards holds.
    pub fn labelled(self, label: &'static Label) -> CancelScope {
        self.node().set_label(label);
        self
    }

    /// The cause that the error has if this scope's own deadline passes.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// let step = Context::background().with_timeout(Duration::ZERO).caused_by("cache: 20 ms budget");
    /// assert_eq!(step.err().unwrap().cause().unwrap().to_string(), "cache: 20 ms budget");
    /// ```
    pub fn caused_by(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> CancelScope {
        self.node().set_cause(cause.into().into());
        self
    }

    /// The reason that the error has if this scope's own deadline passes, in place of [`Reason::Deadline`]; its kind
    /// is [`DeadlineExceeded`](crate::Kind::DeadlineExceeded) all the same.
    pub fn reason(self, reason: Reason) -> CancelScope {
        self.node().set_reason(reason);
        self
    }

    /// This scope with one more value: Go's order, `ctx.with_timeout(d).with_value(&KEY, v)`, keeps its owner.
    ///
    /// It takes the scope. To add a value for a part of the work and keep the scope, derive from its context:
    /// `scope.context().with_value(&KEY, v)`.
    pub fn with_value<T: Send + Sync + 'static>(mut self, key: &'static Key<T>, value: T) -> CancelScope {
        self.context.values = std::mem::take(&mut self.context.values).into_with(key, value);
        self
    }

    /// Gives ownership up: the context ends with its parent, at its deadline, or by a [`Canceller`] made before, but
    /// not with a scope.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// fn limited(ctx: &Context) -> Context {
    ///     ctx.with_timeout(Duration::from_secs(5)).into_context()
    /// }
    /// assert!(!limited(&Context::background()).is_done());
    /// ```
    #[must_use]
    pub fn into_context(mut self) -> Context {
        self.owns = false;
        let node = self.node();
        let is_shared = self.right.get().is_some();
        if !is_shared {
            node.give_up();
        }
        let is_bare = !node.owns_deadline() && !is_shared && node.known_end().is_none();
        let mut parents = node.parents().into_iter();
        match (is_bare, parents.next(), parents.next()) {
            // Nothing of its own can end it, so it is its parent in all but the node, and need not keep that.
            (true, parent, None) => Context {
                node: parent,
                values: self.context.values.clone(),
            },
            _ => self.context.clone(),
        }
    }

    fn node(&self) -> &NodeRef {
        // Made by `own` alone, always with a node that a derivation has just made.
        self.context.node.as_ref().expect("a scope has a node")
    }
}

impl Canceller {
    /// As [`CancelScope::cancel`].
    #[track_caller]
    pub fn cancel(&self) {
        self.0.0.cancel_explicitly(Location::caller());
    }

    /// As [`CancelScope::cancel_with`].
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        blame(&self.0.0, Reason::Explicit, Some(cause.into().into()));
    }

    /// As [`CancelScope::cancel_for`].
    #[track_caller]
    pub fn cancel_for(&self, reason: Reason) {
        blame(&self.0.0, reason, None);
    }

    /// As [`cancel_for`](Canceller::cancel_for), by a task that works for the line `origin`.
    #[cfg(feature = "tokio")]
    pub(crate) fn cancel_on_behalf(&self, reason: Reason, origin: &'static Location<'static>) {
        self.0.0.cancel(Blame {
            reason,
            cause: None,
            origin,
        });
    }
}

#[track_caller]
#[inline]
fn blame(node: &NodeRef, reason: Reason, cause: Option<Cause>) {
    node.cancel(Blame {
        reason,
        cause,
        origin: Location::caller(),
    });
}

impl Drop for CancelScope {
    #[inline(always)]
    fn drop(&mut self) {
        if self.owns {
            self.node().end_scope();
        }
    }
}

impl Deref for CancelScope {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl AsRef<Context> for CancelScope {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelScope").field(&self.context).finish()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("scope", &self.0.0.id())
            .field("name", &self.0.0.name())
            .finish()
    }
}
