//! How little time is worth starting for.
//!
//! Work that cannot be finished in the time left is refused before it costs anything: no query is begun for a caller
//! who will have gone before its first row.

use std::fmt;
use std::time::Duration;

use bequest::Context;

/// Less time is left than the work is worth starting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLittleTime {
    pub(crate) left: Duration,
    pub(crate) least: Duration,
}

/// Refuses if `ctx` leaves less than `least`. A context without a deadline leaves enough.
pub(crate) fn at_least(ctx: &Context, least: Duration) -> Result<(), TooLittleTime> {
    match ctx.remaining() {
        Some(left) if left < least => Err(TooLittleTime { left, least }),
        _ => Ok(()),
    }
}

impl fmt::Display for TooLittleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} left, and this is not begun with less than {:?}",
            self.left, self.least
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_refused_and_none_is_plenty() {
        let background = Context::background();
        assert_eq!(at_least(&background, Duration::from_secs(1)), Ok(()));
        let long = background.with_timeout(Duration::from_secs(60));
        assert_eq!(at_least(&long, Duration::from_secs(1)), Ok(()));
        let spent = background.with_timeout(Duration::ZERO);
        let refusal = at_least(&spent, Duration::from_secs(1)).unwrap_err();
        assert_eq!(refusal.left, Duration::ZERO);
        assert_eq!(
            refusal.to_string(),
            "0ns left, and this is not begun with less than 1s"
        );
    }
}
