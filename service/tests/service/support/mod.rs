//! What every test stands on: the real binary on free ports, and clients that know nothing of it.
//!
//! Nothing here sleeps for a time and hopes. What is waited for is a condition that is asked again and again, under a
//! guard that only a hanging service ever meets.

pub(crate) mod access;
pub(crate) mod authority;
pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod instance;
pub(crate) mod signing_in;

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes that does not hang.
pub(crate) const GUARD: Duration = Duration::from_secs(20);

/// Between two questions.
const REST: Duration = Duration::from_millis(2);

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < GUARD, "waited {GUARD:?} for {what}");
        thread::sleep(REST);
    }
}
