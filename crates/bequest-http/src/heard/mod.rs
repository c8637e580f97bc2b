//! What the system has heard of a peer of TCP, and when that means that nobody is there.
//!
//! The system asks by itself: by keepalive while nothing is on its way, and by repeating what stays unacknowledged. The former ends
//! after as many probes as it is told; the latter goes on for a quarter of an hour. `TCP_USER_TIMEOUT` shortens that, and with it
//! the patience with peers that are there: it ends the connection of one that takes nothing for that long, and even of one that
//! takes all of it, little by little, through a window smaller than what is to be sent next. So where the system tells what it has
//! heard (Linux), it is asked.
//!
//! # Invariants
//!
//! 1. A peer whose system says anything at all is there.
//! 2. The system is not asked before a connection is as old as the limit, so about most it never is.

use std::time::Duration;

mod sock_diag;

pub(crate) use sock_diag::{Heard, SockDiag};

/// Longer limits than this are none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Within less the system has not repeated anything.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// Into how many steps a limit is cut for a second look.
const STEPS: u32 = 6;

/// When the system is to ask a peer of which it hears nothing, so that it gives up as the limit passes. It counts whole seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    /// The quiet before the first probe.
    pub(crate) time: Duration,
    /// From one probe to the next, and from the last to the end.
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

/// What a look at a peer has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nobody is there.
    Lost,
    /// To be looked at again after this.
    Again(Duration),
}

/// A limit on silence, if it is one.
pub(crate) fn bounded(limit: Duration) -> Option<Duration> {
    (limit < LONGEST).then_some(limit)
}

impl Keepalive {
    /// Half the limit or more in quiet, and then a probe each eighth of it.
    pub(crate) fn within(limit: Duration) -> Keepalive {
        // The system takes no more than nine hours of quiet.
        let limit = limit.min(Duration::from_secs(12 * 3600));
        let seconds = (limit.as_secs() + u64::from(limit.subsec_nanos() > 0)).max(2);
        let interval = (seconds / 8).max(1);
        let probes = ((seconds - 1) / interval).min(4);
        Keepalive {
            time: Duration::from_secs(seconds - probes * interval),
            interval: Duration::from_secs(interval),
            probes: u32::try_from(probes).expect("four at most"),
        }
    }
}

impl Heard {
    /// Looks at a peer that may have been silent for the limit.
    pub(crate) fn look(self, limit: Duration) -> Look {
        match limit.checked_sub(self.quiet) {
            Some(rest) if !rest.is_zero() => Look::Again(rest),
            _ if self.is_in_vain() => Look::Lost,
            _ => Look::Again((limit / STEPS).max(Duration::from_millis(1))),
        }
    }

    /// Whether the system gets no answer, and not merely has none yet. A single question may be on its way, or lost; and one that is
    /// close behind another is not answered.
    pub(crate) fn is_in_vain(self) -> bool {
        self.unanswered > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keepalive_gives_up_as_the_limit_passes() {
        for seconds in 2..10_000 {
            let limit = Duration::from_secs(seconds);
            let Keepalive {
                time,
                interval,
                probes,
            } = Keepalive::within(limit);
            assert_eq!(time + interval * probes, limit);
            assert!(time >= SECOND && interval >= SECOND && (1..=4).contains(&probes));
        }
    }

    #[test]
    fn a_limit_that_the_system_can_not_count_is_rounded() {
        let end = |limit| {
            let keepalive = Keepalive::within(limit);
            keepalive.time + keepalive.interval * keepalive.probes
        };
        assert_eq!(end(Duration::ZERO), 2 * SECOND);
        assert_eq!(end(Duration::from_millis(2001)), 3 * SECOND);
        assert_eq!(end(Duration::MAX), 12 * 3600 * SECOND);
        assert!(Keepalive::within(Duration::MAX).time < Duration::from_secs(32_767));
    }

    fn look(quiet: u64, unanswered: u8) -> Look {
        let heard = Heard {
            quiet: Duration::from_secs(quiet),
            unanswered,
        };
        heard.look(30 * SECOND)
    }

    #[test]
    fn a_peer_is_lost_when_it_answers_nothing_for_the_limit() {
        assert_eq!(look(20, 5), Look::Again(10 * SECOND), "not yet");
        assert_eq!(look(30, 2), Look::Lost);
        assert_eq!(look(3600, 255), Look::Lost);
    }

    #[test]
    fn a_peer_that_nobody_asks_or_only_once_is_not_lost() {
        assert_eq!(look(3600, 0), Look::Again(5 * SECOND));
        assert_eq!(look(30, 1), Look::Again(5 * SECOND));
    }
}
