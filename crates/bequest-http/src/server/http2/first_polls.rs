//! Whether the next stream of a connection is worth a first poll in the task of the connection.
//!
//! What first polls take of one poll of the connection is bounded: once they are seen to be beyond [`LONG`], streams become
//! tasks unpolled. The clock is looked at after each, and as long as they are short only after every [`SELDOM`]th.

use std::time::Duration;

/// So much of a poll of the connection may go to first polls of its streams.
const LONG: Duration = Duration::from_micros(100);

/// How many streams become tasks unpolled after one whose first poll was in vain, and after first polls that took too long.
const AFTER_WAIT: u32 = 16;
const AFTER_LONG: u32 = 64;

/// After how many short first polls the clock is looked at, at the most.
const SELDOM: u32 = 8;

/// What the last first polls have been like.
#[derive(Debug, Default)]
pub(super) struct FirstPolls {
    /// So many of the next streams are not worth one.
    skip: u32,
    /// So many first polls go by before the clock is looked at again.
    unseen: u32,
    /// How many went by the last time.
    seldom: u32,
}

impl FirstPolls {
    /// Whether the stream that is about to be started is worth one.
    pub(super) fn begin(&mut self) -> bool {
        let is_worth_one = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        is_worth_one
    }

    /// One has answered its request; `spent` of the present poll of the connection is gone.
    pub(super) fn ended(&mut self, spent: impl FnOnce() -> Duration) {
        if self.unseen > 0 {
            self.unseen -= 1;
            return;
        }
        let is_long = spent() > LONG;
        if is_long {
            self.skip = AFTER_LONG;
        }
        self.seldom = match is_long {
            true => 0,
            false => (2 * self.seldom + 1).min(SELDOM - 1),
        };
        self.unseen = self.seldom;
    }

    /// One was in vain.
    pub(super) fn waited(&mut self) {
        self.skip = AFTER_WAIT;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn first_polls_are_left_out_for_a_while_after_one_in_vain_and_after_long_ones() {
        let mut polls = FirstPolls::default();
        let next = |polls: &mut FirstPolls| (1..=100).find(|_| polls.begin()).expect("one at last");
        assert_eq!(next(&mut polls), 1);
        polls.ended(|| LONG);
        assert_eq!(next(&mut polls), 1, "as long as it may be");
        polls.waited();
        assert_eq!(next(&mut polls), AFTER_WAIT + 1);
        polls.ended(|| unreachable!("the one before was short"));
        polls.ended(|| LONG + Duration::from_nanos(1));
        assert_eq!(next(&mut polls), AFTER_LONG + 1);
    }

    #[test]
    fn the_clock_is_looked_at_seldom_while_first_polls_are_short_and_at_once_after_a_long_one() {
        let mut polls = FirstPolls::default();
        let mut looks = |spent: Duration, first_polls: u32| {
            let looks = Cell::new(0);
            for _ in 0..first_polls {
                polls.ended(|| {
                    looks.set(looks.get() + 1);
                    spent
                });
            }
            looks.get()
        };
        // After the first, the third, the seventh, and then every eighth.
        assert_eq!(looks(LONG, 7), 3);
        assert_eq!(looks(LONG, 10 * SELDOM), 10);
        assert_eq!(looks(2 * LONG, SELDOM), 1, "seen at last");
        assert_eq!(looks(2 * LONG, 10), 10);
    }
}
