//! Numbers by which one can see that nothing runs any more.

use std::time::Duration;

/// What a [`Database`](crate::Database) is doing and has done, from [`Database::statistics`](crate::Database::statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The reading threads, together.
    pub readers: Lane,
    /// The one writing thread.
    pub writer: Lane,
}

/// The numbers of one queue and the threads that serve it. They are taken at one instant, so they fit together:
/// `accepted` is always the sum of `queued`, `running`, `completed`, `failed`, `interrupted`, `panicked` and
/// `abandoned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lane {
    /// Threads that are alive.
    pub threads: usize,
    /// Calls that were ever accepted.
    pub accepted: u64,
    /// Calls waiting for a thread.
    pub queued: usize,
    /// Calls on a thread. The thread itself lowers it, after the last statement has returned, the connection is clean
    /// and before the caller hears of it: if this is 0, SQLite is executing nothing.
    pub running: usize,
    /// Calls that ended well.
    pub completed: u64,
    /// Calls that SQLite, or the work, refused.
    pub failed: u64,
    /// Calls that had begun when their context ended, and were stopped.
    pub interrupted: u64,
    /// Calls whose work panicked.
    pub panicked: u64,
    /// Calls that left before their turn. Nothing of them ran.
    pub abandoned: u64,
    /// Transactions begun and rolled back, for whatever reason.
    pub rolled_back: u64,
    /// Connections thrown away because they could not be made clean, and opened anew for the next call.
    pub discarded: u64,
    /// From the end of the context to the end of the work, at the last interrupted call; with a virtual clock it
    /// means nothing.
    pub last_stop: Option<Duration>,
}

impl Statistics {
    /// Calls that are on a thread, reading or writing.
    pub fn running(&self) -> usize {
        self.readers.running + self.writer.running
    }

    /// Calls that wait for a thread, to read or to write.
    pub fn queued(&self) -> usize {
        self.readers.queued + self.writer.queued
    }
}
