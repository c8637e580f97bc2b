//! A call that is being answered: its context, from the request to the last byte of the answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bequest::{CancelScope, Canceled, Context, DoneOwned, Reason};

/// A call that is being answered.
///
/// On this crate's server its context ends with the request's, which knows why. Elsewhere it ends with the call: with the
/// answer's end, or, if it is dropped before, as that of a caller who has left.
pub(super) struct Call {
    /// `None` once the call is over.
    scope: Option<CancelScope>,
    context: Context,
    /// Waits for the end.
    end: DoneOwned,
    is_on_our_server: bool,
}

impl Call {
    pub(super) fn new(scope: CancelScope, is_on_our_server: bool) -> Call {
        Call {
            context: scope.context(),
            end: scope.context().done_owned(),
            scope: Some(scope),
            is_on_our_server,
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Ready if the context has ended and the caller is still there to be told.
    pub(super) fn poll_end(&mut self, cx: &mut TaskContext<'_>) -> Poll<Canceled> {
        // A deadline counts as soon as it has passed: its timer may be late, and somebody else's may not be.
        let is_over = self.context.remaining().is_some_and(|left| left.is_zero());
        if let Some(scope) = self.scope.as_ref().filter(|_| is_over) {
            scope.cancel_for(Reason::Deadline);
        }
        let end = ready!(Pin::new(&mut self.end).poll(cx));
        match end.reason().is_departure() {
            true => Poll::Pending,
            false => Poll::Ready(end),
        }
    }

    /// The end of the context, if it has ended and the caller is still there to be told.
    pub(super) fn ended(&self) -> Option<Canceled> {
        self.context.err().filter(|end| !end.reason().is_departure())
    }

    /// The call is over: its answer is complete, or nobody waits for it. The first reason holds.
    pub(super) fn finish(&mut self, reason: Reason) {
        match self.scope.take() {
            Some(scope) if self.is_on_our_server => drop(scope.into_context()),
            Some(scope) => scope.cancel_for(reason),
            None => {}
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish(Reason::ClientGone);
    }
}
