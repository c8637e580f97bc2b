//! How many streams a client of HTTP/2 may reset.
//!
//! A request that is given up is nothing to its client, and to the server a handler that was begun in vain. Who asks for
//! something and then does not want it any more resets now and then, all that is open at once if its own caller has left; who
//! floods resets whatever it opens. So each connection has an account: as many resets as [`Limits::resets`], of which each takes
//! one. A request that is answered to its end gives one back, and time gives back all within [`BACK`].
//!
//! [`Limits::resets`]: super::Limits::resets
//!
//! # Invariants
//!
//! 1. A request that ends well costs nothing: how many were answered is counted for other reasons, and reckoned with when a stream
//!    is reset.
//! 2. What is counted is a request that has ended because its stream was reset, by the client or by its doing, and not a frame:
//!    a reset behind a complete answer is none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// In this time as many resets come back as there may be.
const BACK: Duration = Duration::from_secs(5);

/// The resets of one connection. Locked when a stream was reset, and then for a few additions.
#[derive(Debug, Default)]
pub(super) struct Resets(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    /// Requests that had been served when this was reckoned last.
    served: u64,
    /// When that was.
    at: Duration,
    /// Resets that have been taken and not come back.
    taken: f64,
}

impl Resets {
    /// A request has ended because its stream was reset, at `now`; so many were `served`. Answers whether that is one more than
    /// the `limit` allows.
    pub(super) fn one_more(&self, served: u64, now: Duration, limit: u32) -> bool {
        let mut account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        account.one_more(served, now, limit)
    }
}

impl Account {
    fn one_more(&mut self, served: u64, now: Duration, limit: u32) -> bool {
        let limit = f64::from(limit);
        // Who has read the two before somebody else and comes after them brings old ones.
        let (served, now) = (served.max(self.served), now.max(self.at));
        let by_answers = (served - self.served) as f64;
        let by_time = (now - self.at).div_duration_f64(BACK) * limit;
        self.taken = (self.taken - by_answers - by_time).max(0.0) + 1.0;
        (self.served, self.at) = (served, now);
        self.taken > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 100;

    /// A connection on which one thing happens after the other.
    #[derive(Default)]
    struct Played {
        resets: Resets,
        served: u64,
        now: Duration,
    }

    impl Played {
        /// Whether a reset is too many.
        fn reset(&self) -> bool {
            self.resets.one_more(self.served, self.now, LIMIT)
        }

        /// How many resets are not too many.
        fn left(&self) -> usize {
            (0..).find(|_| self.reset()).expect("it ends")
        }
    }

    #[test]
    fn as_many_as_the_limit_at_once_and_no_more() {
        let played = Played::default();
        assert_eq!(played.left(), 100);
        assert!(played.reset(), "nor after that");
    }

    #[test]
    fn an_answer_gives_one_back_and_no_more_than_were_taken() {
        let mut played = Played::default();
        played.served += 1_000;
        assert_eq!(played.left(), 100, "nothing is saved up");
        played.served += 30;
        assert_eq!(played.left(), 29, "less the one that was too many");
        played.served += 1;
        for _ in 0..10_000 {
            played.served += 1;
            assert!(!played.reset(), "every other one, for ever");
        }
    }

    #[test]
    fn time_gives_all_back_and_no_more_than_were_taken() {
        let mut played = Played::default();
        played.now += 10 * BACK;
        assert_eq!(played.left(), 100);
        played.now += BACK / 2;
        assert_eq!(played.left(), 49, "less the one that was too many");
        played.now += 2 * BACK;
        assert_eq!(played.left(), 100);
        played.now += BACK;
        for _ in 0..10_000 {
            played.now += BACK / LIMIT;
            assert!(!played.reset(), "so many in that time, for ever");
        }
    }

    #[test]
    fn who_comes_late_with_old_numbers_takes_nothing_back() {
        let played = Played {
            served: 50,
            now: BACK,
            ..Played::default()
        };
        assert!((0..50).all(|_| !played.reset()));
        assert!((0..50).all(|_| !played.resets.one_more(0, Duration::ZERO, LIMIT)));
        assert!(played.reset());
    }

    #[test]
    fn none_at_all_and_any_number_can_be_said() {
        let resets = Resets::default();
        assert!(resets.one_more(0, Duration::ZERO, 0));
        let resets = Resets::default();
        assert!((0..100_000).all(|_| !resets.one_more(0, Duration::ZERO, u32::MAX)));
    }
}
