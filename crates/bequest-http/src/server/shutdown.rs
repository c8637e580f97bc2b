//! The end of a server: drain, tell, drop. Bounded at each step.
//!
//! # Invariants
//!
//! 1. The order is fixed: nothing new is accepted and idle connections close; after `Limits::drain` every context ends
//!    with `Shutdown`; after `Limits::drain_grace` whatever is left is dropped.
//! 2. Each step ends early as soon as nothing is left.
//! 3. It ends even if a handler blocks its thread and can not be dropped: that is reported, not waited for.

use bequest::{CancelScope, Canceled, Reason};

use super::shared::Shared;
use super::statistics::Snapshot;

/// What a server leaves behind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Why the server ended: the end of the context given to `serve`.
    pub end: Canceled,
    /// The counters at the end.
    pub statistics: Snapshot,
    /// How many tasks were still running when the server stopped waiting: handlers that block a thread. 0 if all is well.
    pub unfinished: usize,
}

/// The owners of a server's three contexts. Dropped without [`run`](Stages::run), they end all at once.
pub(super) struct Stages {
    // In this order, so that a drop tells the requests before it drops them.
    pub(super) draining: CancelScope,
    pub(super) context: CancelScope,
    pub(super) dropping: CancelScope,
}

impl Stages {
    /// Brings the server to its end. Says how many tasks are still running.
    pub(super) async fn run(self, server: &Shared) -> usize {
        let limits = &server.limits;
        self.draining.cancel_for(Reason::Shutdown);
        let drained = server.clock.timeout(limits.drain, server.tally.idle()).await;
        self.context.cancel_for(Reason::Shutdown);
        if drained.is_err() {
            let told = server
                .clock
                .timeout(limits.drain_grace, server.tally.idle())
                .await;
            self.dropping.cancel_for(Reason::Shutdown);
            if told.is_err() {
                // Either way the tally says what is left.
                let _ = server
                    .clock
                    .timeout(limits.drain_grace, server.tally.idle())
                    .await;
            }
        }
        server.tally.tasks()
    }
}
