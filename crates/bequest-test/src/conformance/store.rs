//! What a store's tests have to say, so that the suite can be applied to it.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bequest::{Canceled, Context};

/// An integration under test, with a store behind it.
///
/// The methods take the store's calls as they are; they do not catch, retry or tidy up.
pub trait Store {
    /// The error of the calls.
    type Error: Error + 'static;

    /// How long anything is waited for. Whatever takes longer hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A new store with one connection; `None` where there is no server to start.
    fn open() -> impl Future<Output = Option<Self>>
    where
        Self: Sized;

    /// A call that is answered at once.
    fn quick(&self, ctx: &Context) -> impl Future<Output = Result<(), Self::Error>>;

    /// A call that keeps its connection busy for ever.
    fn slow(&self, ctx: &Context) -> impl Future<Output = Result<(), Self::Error>>;

    /// How many slow calls run at this instant, as the store's own side sees it: the server, if it can be asked.
    fn running(&self) -> impl Future<Output = usize>;

    /// The context's end, if the call failed for that.
    fn end(error: &Self::Error) -> Option<&Canceled>;

    /// Whether at this instant, with nobody calling, the pool has all that it is to have, and every connection is
    /// clean.
    ///
    /// # Errors
    ///
    /// What is amiss.
    fn whole(&self) -> impl Future<Output = Result<(), String>>;
}

/// A store whose calls wait for one of a bounded number of connections.
pub trait Pooled: Store {
    /// How many calls wait for a connection.
    fn waiting(&self) -> usize;
}

/// A store that can write whole or not at all.
pub trait Transactional: Store {
    /// Writes `key` in a transaction, calls `before_commit`, and commits.
    fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// How often `key` is there, as another user sees it.
    fn count(&self, key: u64) -> impl Future<Output = usize>;

    /// Whether the error says that the transaction may have been committed.
    fn is_in_doubt(error: &Self::Error) -> bool;
}

/// A store whose transactions hold more than one call.
pub trait LongTransactions: Transactional {
    /// Writes `key` in a transaction, then makes a call in it that takes for ever, counted by
    /// [`running`](Store::running).
    fn write_slowly(&self, ctx: &Context, key: u64) -> impl Future<Output = Result<(), Self::Error>>;
}

/// A store that hands on rows while it still has more.
pub trait Streaming: Store {
    /// Reads rows without end, and calls `on_row` with the number of each, from 1.
    fn read(
        &self,
        ctx: &Context,
        on_row: impl FnMut(u64) + Send + 'static,
    ) -> impl Future<Output = Result<(), Self::Error>>;
}

/// A store on a server that the tests may mistreat.
pub trait Hosted: Store {
    /// Stops the server in its tracks: it keeps its connections and answers nothing.
    fn freeze(&self);

    /// Lets a frozen server go on.
    fn thaw(&self);

    /// Ends the server without warning.
    fn kill(&self);

    /// Starts it anew, where it was.
    fn restart(&self);
}
