//! The guard of a registered callback.

use std::fmt;

use crate::Context;
use crate::tree::{Callback, NodeRef, Ticket};

/// The registration of a callback, made by [`Context::after_func`]. Dropping it prevents the call, if it has not begun.
///
/// # Example: stopped in time
///
/// ```
/// use bequest::Context;
///
/// let scope = Context::background().with_cancel();
/// let guard = scope.after_func(|_| unreachable!("it was stopped"));
/// assert!(guard.stop(), "this call prevented it");
/// scope.cancel();
/// ```
///
/// # Example: let it stand
///
/// ```
/// use bequest::Context;
/// use std::sync::mpsc;
///
/// let scope = Context::background().with_cancel();
/// let (tell, told) = mpsc::channel();
/// scope.after_func(move |_| tell.send(()).unwrap()).detach();
/// scope.cancel();
/// assert!(told.try_recv().is_ok());
/// ```
#[must_use = "dropping the guard prevents the call; `detach` lets it stand"]
pub struct AfterFunc(Option<Registered>);

struct Registered {
    node: NodeRef,
    ticket: Ticket,
}

impl AfterFunc {
    pub(crate) fn register(context: &Context, callback: Callback) -> AfterFunc {
        // The background never ends: the callback is dropped, as it would be with the guard.
        let Some(node) = &context.node else {
            return AfterFunc(None);
        };
        let ticket = node.add_callback(callback);
        AfterFunc(ticket.map(|ticket| Registered {
            node: node.clone(),
            ticket,
        }))
    }

    /// Prevents the call; true if this did prevent it, false if it has begun or can never come.
    ///
    /// It never waits: after `false` the callback may still be running on another thread.
    pub fn stop(mut self) -> bool {
        self.take_out()
    }

    /// Lets the registration stand without a guard: the context is kept until it has ended and the callback has run.
    ///
    /// On a context that can never end, such as the background, the callback is dropped.
    pub fn detach(mut self) {
        if let Some(Registered { node, ticket }) = self.0.take() {
            node.detach_callback(ticket);
        }
    }

    fn take_out(&mut self) -> bool {
        self.0
            .take()
            .is_some_and(|Registered { node, ticket }| node.remove_callback(ticket))
    }
}

impl Drop for AfterFunc {
    fn drop(&mut self) {
        self.take_out();
    }
}

impl fmt::Debug for AfterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFunc")
            .field("registered", &self.0.is_some())
            .finish()
    }
}
