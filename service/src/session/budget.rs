//! Each step of a request gets the less of its own budget and of what is left of the request's; and its error says
//! which step it was.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bequest::{CancelScope, Canceled, Context};

use crate::domain::duration::GoDuration;

/// A step and its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) step: &'static str,
    pub(crate) limit: Duration,
}

/// A step failed: which, and why.
#[derive(Debug)]
pub(crate) struct StepError {
    step: &'static str,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Ended(Canceled),
    Failed(Box<dyn Error + Send + Sync>),
}

impl Budget {
    pub(crate) const fn new(step: &'static str, limit: Duration) -> Budget {
        Budget { step, limit }
    }

    /// A scope for the step under `ctx`. If the step's own limit ends it, the cause is this budget.
    #[track_caller]
    pub(crate) fn scope(self, ctx: &Context) -> CancelScope {
        ctx.with_timeout(self.limit).named(self.step).caused_by(self)
    }
}

impl StepError {
    /// The step's context ended.
    pub(crate) fn ended(step: &'static str, end: Canceled) -> StepError {
        StepError {
            step,
            why: Why::Ended(end),
        }
    }

    /// What the step asked, failed.
    pub(crate) fn failed(step: &'static str, error: impl Into<Box<dyn Error + Send + Sync>>) -> StepError {
        StepError {
            step,
            why: Why::Failed(error.into()),
        }
    }

    /// Whether what was asked failed with this error.
    pub(crate) fn is<E: Error + 'static>(&self) -> bool {
        matches!(&self.why, Why::Failed(error) if error.is::<E>())
    }

    /// The end of the context, if that is why.
    pub(crate) fn canceled(&self) -> Option<&Canceled> {
        match &self.why {
            Why::Ended(end) => Some(end),
            Why::Failed(_) => None,
        }
    }
}

/// `session cache: 20ms budget`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} budget", self.step, GoDuration::from_std(self.limit))
    }
}

impl Error for Budget {}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Ended(end) => write!(f, "{}: {end}", self.step),
            Why::Failed(error) => write!(f, "{}: {error}", self.step),
        }
    }
}

impl Error for StepError {}

#[cfg(test)]
mod tests {
    use super::*;
    use bequest_test::Clock;

    #[test]
    fn the_less_of_the_two_and_the_error_says_which() {
        let clock = Clock::new();
        let cache = Budget::new("session cache", Duration::from_millis(20));
        let request = clock
            .context()
            .with_timeout(Duration::from_secs(1))
            .named("request");
        let step = cache.scope(&request);
        assert_eq!(step.remaining(), Some(Duration::from_millis(20)));
        clock.advance(Duration::from_millis(20));
        let end = step.err().unwrap();
        assert_eq!(end.cause().unwrap().to_string(), "session cache: 20ms budget");
        assert!(!request.is_done());

        clock.advance(Duration::from_millis(975));
        let late = cache.scope(&request);
        assert_eq!(late.remaining(), Some(Duration::from_millis(5)));
        clock.advance(Duration::from_millis(5));
        assert_eq!(late.err().unwrap().scope().0, Some("request"));
    }
}
