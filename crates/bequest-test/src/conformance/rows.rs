//! The clauses for stores that hand on rows while they have more: the context governs the reading, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bequest::Reason;

use super::store::Streaming;
use super::wait::{ROOT, aftermath, dropped_once, end_of, until, within};

/// The row at which the reading ends.
const ROW: u64 = 3;

/// Reading ends with the context, and what was cut off is an error.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn reading_and_cancelled<S: Streaming>(store: &S) {
    let request = ROOT.with_cancel();
    let client = request.canceller();
    let reading = store.read(&request, move |row| {
        if row == ROW {
            client.cancel_for(Reason::StreamReset);
        }
    });
    let answer = within::<S, _>("reading on after a cancel", reading).await;
    assert_eq!(end_of::<S>(&answer).reason(), Reason::StreamReset);
    aftermath(store).await;
}

/// Reading ends when its future is dropped, and no row of it reaches the next user.
///
/// # Panics
///
/// If the store does not hold to it.
pub async fn reading_and_dropped<S: Streaming>(store: &S) {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    // Relaxed: a number for a condition; nothing is published under it.
    let reading = store.read(&ROOT, move |row| counter.store(row, Ordering::Relaxed));
    let begun = until::<S>("rows are read", async || match seen.load(Ordering::Relaxed) {
        rows if rows < ROW => Err(format!("{rows} rows")),
        _ => Ok(()),
    });
    within::<S, _>("reading", dropped_once(reading, begun)).await;
    aftermath(store).await;
}
