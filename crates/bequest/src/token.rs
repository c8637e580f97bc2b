//! Both ways between a context and tokio-util's `CancellationToken`, so that people can move file by file.
//!
//! Neither way needs a task, a thread or a runtime: a context cancels its token from a callback, and a token wakes the
//! scope that follows it with a waker that cancels. So in both directions the other side reads as cancelled when the
//! `cancel()` that caused it returns. A token has no reason, so one that ends a scope does it for
//! [`Reason::Explicit`] with a cause that says so.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Wake, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{AfterFunc, CancelScope, Canceller, Context};

/// A token that is cancelled when a context ends. Made by [`Context::token`].
#[derive(Debug)]
#[must_use = "dropping it unlinks the token from its context"]
pub struct LinkedToken {
    token: CancellationToken,
    _link: AfterFunc,
}

/// A scope that is cancelled when a token is. Made by [`Context::with_token`].
#[must_use = "dropping it cancels the scope"]
pub struct LinkedScope {
    scope: CancelScope,
    /// Registered with the token by its one poll; dropping it withdraws.
    _wait: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Context {
    /// A token that is cancelled when this context ends; at once, if it has. Dropping the link leaves the token as it
    /// is; it is then a token like any other.
    ///
    /// ```
    /// # use bequest::Context;
    /// let scope = Context::background().with_cancel();
    /// let token = scope.token();
    /// scope.cancel();
    /// assert!(token.is_cancelled());
    /// ```
    pub fn token(&self) -> LinkedToken {
        let token = CancellationToken::new();
        let link = self.after_func({
            let token = token.clone();
            move |_| token.cancel()
        });
        LinkedToken { token, _link: link }
    }

    /// A scope below this context that is also cancelled when `token` is; at once, if it has been.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use tokio_util::sync::CancellationToken;
    /// let token = CancellationToken::new();
    /// let scope = Context::background().with_token(&token);
    /// token.cancel();
    /// assert!(scope.err().unwrap().to_string().ends_with(": CancellationToken cancelled"));
    /// ```
    #[track_caller]
    pub fn with_token(&self, token: &CancellationToken) -> LinkedScope {
        let scope = self.with_cancel();
        let follower = Arc::new(Follower {
            token: token.clone(),
            canceller: scope.canceller(),
        });
        let mut wait = Box::pin(token.clone().cancelled_owned());
        let waker = Waker::from(Arc::clone(&follower));
        if wait
            .as_mut()
            .poll(&mut TaskContext::from_waker(&waker))
            .is_ready()
        {
            follower.follow();
        }
        LinkedScope { scope, _wait: wait }
    }
}

struct Follower {
    token: CancellationToken,
    canceller: Canceller,
}

impl Follower {
    /// A waker may be woken for nothing, so the token is asked.
    fn follow(&self) {
        if self.token.is_cancelled() {
            self.canceller.cancel_with("CancellationToken cancelled");
        }
    }
}

impl Wake for Follower {
    fn wake(self: Arc<Self>) {
        self.follow();
    }
}

impl Deref for LinkedToken {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.token
    }
}

impl Deref for LinkedScope {
    type Target = CancelScope;

    fn deref(&self) -> &CancelScope {
        &self.scope
    }
}

impl AsRef<Context> for LinkedScope {
    fn as_ref(&self) -> &Context {
        &self.scope
    }
}

impl fmt::Debug for LinkedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkedScope").field(&self.scope).finish()
    }
}
