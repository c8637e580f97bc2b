//! A context that ends when the process receives a signal, with the signal as the reason.
//!
//! Unix only: elsewhere [`notify`] answers an error. The handlers are tokio's; once installed for a signal they stay,
//! so its default action does not come back when the scope is gone. That differs from Go's `stop` (N2) and is why
//! [`Signals::again`] exists: a second signal is heard, and the program decides what "at once" means.

use std::fmt;
use std::io;
use std::ops::Deref;

use crate::{CancelScope, Context, Reason, Signal};

/// A scope that ends with the first of some signals. Made by [`notify`].
#[must_use = "dropping it cancels its context and stops listening"]
pub struct Signals {
    first: CancelScope,
    again: CancelScope,
    listener: tokio::task::JoinHandle<()>,
}

/// A scope below `ctx` that is cancelled for [`Reason::Signal`] by the first of `signals`.
///
/// From the call on, the signals no longer end the process by themselves. The [origin](crate::Canceled::origin) of the end is
/// the line of this call.
///
/// # Errors
///
/// If the system refuses a handler: some signals cannot be caught.
///
/// # Panics
///
/// If called outside a tokio runtime with its I/O driver.
///
/// ```
/// use bequest::{Context, Reason, Signal, signal};
///
/// # #[cfg(unix)]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let signals = signal::notify(&Context::background(), &[Signal::from_raw(10)]).unwrap(); // SIGUSR1
/// std::process::Command::new("kill").args(["-10", &std::process::id().to_string()]).status().unwrap();
/// assert_eq!(signals.done().await.reason(), Reason::Signal(Signal::from_raw(10)));
/// # });
/// ```
#[cfg(unix)]
#[track_caller]
pub fn notify(ctx: &Context, signals: &[Signal]) -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut streams = Vec::with_capacity(signals.len());
    for &kind in signals {
        streams.push((kind, signal(SignalKind::from_raw(kind.as_raw()))?));
    }
    let first = ctx.with_cancel().named("signal");
    let again = ctx.with_cancel().named("second signal");
    let cancellers = [first.canceller(), again.canceller()];
    let origin = std::panic::Location::caller();
    let listener = tokio::spawn(async move {
        for canceller in cancellers {
            let next = std::future::poll_fn(|task| {
                let ready = streams
                    .iter_mut()
                    .find_map(|(kind, stream)| match stream.poll_recv(task) {
                        std::task::Poll::Ready(Some(())) => Some(*kind),
                        _ => None,
                    });
                ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
            });
            canceller.cancel_on_behalf(Reason::Signal(next.await), origin);
        }
    });
    Ok(Signals {
        first,
        again,
        listener,
    })
}

/// Signals are Unix's.
///
/// # Errors
///
/// Always: [`io::ErrorKind::Unsupported`].
#[cfg(not(unix))]
pub fn notify(_ctx: &Context, _signals: &[Signal]) -> io::Result<Signals> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Signals {
    /// The context that ends with the second signal: time to stop at once.
    ///
    /// ```
    /// use bequest::{Context, Signal, signal};
    ///
    /// # #[cfg(unix)]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let signals = signal::notify(&Context::background(), &[Signal::HANGUP]).unwrap();
    /// let raise = || std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status();
    /// raise().unwrap();
    /// signals.done().await;                                       // time to drain
    /// raise().unwrap();
    /// let drain = std::future::pending::<()>();                   // … which takes too long
    /// assert!(signals.again().run(drain).await.is_err());
    /// # });
    /// ```
    pub fn again(&self) -> &Context {
        &self.again
    }
}

impl Deref for Signals {
    type Target = CancelScope;

    fn deref(&self) -> &CancelScope {
        &self.first
    }
}

impl AsRef<Context> for Signals {
    fn as_ref(&self) -> &Context {
        &self.first
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signals").field(&self.first).finish()
    }
}
