//! Numbers by which one can see what was given up, what still runs, and what became of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::stripes::StripedCounter;

/// What a [`Client`](crate::Client) is doing and has done, from [`Client::statistics`](crate::Client::statistics).
///
/// Each number is exact; they are read one after the other, so while calls run they need not fit together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Commands, pipelines and scripts handed to the shared connection.
    pub sent: u64,
    /// Of these: given up before their answer, by the context or by the drop of their future.
    pub given_up: u64,
    /// Connections made, of every kind.
    pub connected: u64,
    /// Tries to connect that failed.
    pub connect_failed: u64,
    /// Shared connections that stopped answering and were replaced.
    pub replaced: u64,
    /// Of a cluster: how often a node sent a command elsewhere, or asked for patience.
    pub redirected: u64,
    /// Of a cluster: how often it was asked anew which node has which slots.
    pub refreshed: u64,
    /// What blocks.
    pub blocking: Blocking,
}

/// The numbers of the blocking commands and of their connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocking {
    /// Commands that are running, or that are being ended.
    pub running: usize,
    /// Commands that wait for one of the connections.
    pub waiting: usize,
    /// Connections that wait for a command.
    pub idle: usize,
    /// Commands that were ever begun.
    pub begun: u64,
    /// Commands ended on the server before their time, with nothing taken.
    pub unblocked: u64,
    /// Connections closed because the server did not say in time what had become of the command, or because it could
    /// not be asked.
    pub closed: u64,
    /// Answers whose caller was gone, and which were undone on the server: the elements are back where they were.
    pub put_back: u64,
    /// Answers whose caller was gone, and which were given to [`Options::orphans`](crate::Options::orphans).
    pub handed_over: u64,
    /// Answers whose caller was gone, and which could not be put back.
    pub lost: u64,
}

/// Where the numbers are counted. All but `running` and `waiting` are only ever added to; all but `running` are read for
/// people: Relaxed throughout.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: StripedCounter,
    pub(crate) given_up: Counter,
    pub(crate) connected: Counter,
    pub(crate) connect_failed: Counter,
    pub(crate) replaced: Counter,
    pub(crate) redirected: Counter,
    pub(crate) refreshed: Counter,
    pub(crate) begun: Counter,
    pub(crate) unblocked: Counter,
    pub(crate) closed: Counter,
    pub(crate) put_back: Counter,
    pub(crate) handed_over: Counter,
    pub(crate) lost: Counter,
    /// How many blocking commands run or are being ended.
    pub(crate) running: watch::Sender<usize>,
    /// How many wait for their turn; changed by [`Waiting`].
    waiting: AtomicUsize,
}

/// Counts a command as waiting for a connection while it exists.
pub(crate) struct Waiting<'a>(&'a Counters);

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    pub(crate) fn read(&self, idle: usize) -> Statistics {
        Statistics {
            sent: self.sent.get(),
            given_up: self.given_up.get(),
            connected: self.connected.get(),
            connect_failed: self.connect_failed.get(),
            replaced: self.replaced.get(),
            redirected: self.redirected.get(),
            refreshed: self.refreshed.get(),
            blocking: Blocking {
                running: *self.running.borrow(),
                waiting: self.waiting.load(Ordering::Relaxed),
                idle,
                begun: self.begun.get(),
                unblocked: self.unblocked.get(),
                closed: self.closed.get(),
                put_back: self.put_back.get(),
                handed_over: self.handed_over.get(),
                lost: self.lost.get(),
            },
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
