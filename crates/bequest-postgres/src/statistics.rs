//! Numbers by which one can see that nothing runs any more.

use std::time::Duration;

/// What a [`Database`](crate::Database) is doing and has done, from [`Database::statistics`](crate::Database::statistics).
///
/// Those of the pool are taken at one instant, so they fit together: `connections` is always the sum of `idle`, `in_use`,
/// `settling` and `connecting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Connections that there are, each of them holding one of the pool's places.
    pub connections: usize,
    /// Connections that wait for somebody.
    pub idle: usize,
    /// Connections that somebody has.
    pub in_use: usize,
    /// Connections of which it is being found out whether they can be used again.
    pub settling: usize,
    /// Connections being made.
    pub connecting: usize,
    /// Calls waiting for a connection.
    pub waiting: usize,
    /// Calls that had to wait for a connection.
    pub waited: u64,
    /// How long they waited, together.
    pub wait_time: Duration,
    /// Calls that left before a connection was there for them. Nothing of them was sent.
    pub abandoned: u64,
    /// Connections ever made.
    pub opened: u64,
    /// Connections closed because they were lost, could not be made clean, or were not to be used again after a cancel.
    pub discarded: u64,
    /// Connections closed because of their age.
    pub expired: u64,
    /// Connections that somebody had given up half-way, and that were clean again in time.
    pub settled: u64,
    /// How long the last of those took, until it was clean.
    pub last_settled: Option<Duration>,
    /// Cancel requests that are on their way, each on a connection of its own.
    pub cancels: usize,
    /// The most of them there ever were at once; never above [`Options::cancels`](crate::Options::cancels).
    pub most_cancels: usize,
    /// Cancel requests ever sent.
    pub cancels_sent: u64,
}
