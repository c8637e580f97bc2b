//! What is kept of a session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::domain::session::Session;

/// A session as the database knows it and the cache remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) session: Arc<Session>,
    /// Grows with every change that must not be undone. Of two records of a session the one with the higher generation
    /// is the newer, whatever any clock says.
    pub(crate) generation: i64,
    /// When somebody last used it, at most a minute behind.
    pub(crate) last_seen: SystemTime,
    /// It ends then, however busy it is.
    pub(crate) absolute_end: SystemTime,
    /// When the database last said that it stands.
    pub(crate) confirmed_at: SystemTime,
}

/// A session that has been ended, and the generation that its end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) id: crate::domain::session::SessionHash,
    pub(crate) generation: i64,
}

impl Record {
    /// Whether it may still be used at `now`: its absolute end has not come, and it was not left idle for `idle`.
    pub(crate) fn is_live(&self, now: SystemTime, idle: Duration) -> bool {
        now < self.absolute_end && since(self.last_seen, now) < idle
    }

    /// Whether the database has confirmed it within `span` before `now`. A confirmation that lies ahead of the clock
    /// says that the clock was set back, and confirms nothing.
    pub(crate) fn is_confirmed(&self, now: SystemTime, span: Duration) -> bool {
        now < self.absolute_end && now.duration_since(self.confirmed_at).is_ok_and(|age| age < span)
    }
}

/// From `then` to `now`; nothing if the clock was set back in between.
pub(crate) fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

/// As databases and caches keep a point in time: milliseconds since 1970.
pub(super) fn millis(at: SystemTime) -> i64 {
    span_millis(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn span_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn from_millis(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::session::{Gender, SessionHash, User};

    pub(crate) fn record(id: u8, now: SystemTime) -> Record {
        Record {
            session: Arc::new(Session {
                id: SessionHash([id; 32]),
                user: User {
                    id: "ann".into(),
                    gender: Gender::Undisclosed,
                    age: None,
                },
                login_time: now,
            }),
            generation: 1,
            last_seen: now,
            absolute_end: now + Duration::from_secs(100),
            confirmed_at: now,
        }
    }

    #[test]
    fn ends_when_idle_and_at_its_absolute_end() {
        let now = SystemTime::now();
        let (idle, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let record = record(1, now);
        assert!(record.is_live(now + idle - second, idle));
        assert!(!record.is_live(now + idle, idle));
        let busy = Record {
            last_seen: now + Duration::from_secs(99),
            ..record
        };
        assert!(busy.is_live(now + Duration::from_secs(99), idle));
        assert!(!busy.is_live(now + Duration::from_secs(100), idle));
    }

    #[test]
    fn a_confirmation_ages_and_one_from_the_future_is_none() {
        let now = SystemTime::now();
        let span = Duration::from_secs(60);
        let record = record(1, now);
        assert!(record.is_confirmed(now, span));
        assert!(!record.is_confirmed(now + span, span));
        assert!(!record.is_confirmed(now - Duration::from_secs(1), span));
    }
}
