//! Connecting again and again, a little later each time, until it works or nobody waits any more.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bequest::Context;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use crate::error::{Error, Step, is_of_connection};

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// Calls `attempt` until it succeeds, fails for good, `limit` has passed or the context has ended.
pub(crate) async fn until_connected<T, F>(
    ctx: &Context,
    limit: Duration,
    mut attempt: impl FnMut(u32) -> F,
) -> Result<T, Error>
where
    F: Future<Output = RedisResult<T>>,
{
    let mut last = None;
    let tries = async {
        let mut failures = 0;
        loop {
            match attempt(failures).await {
                Err(error) if is_worth_a_retry(&error) => last = Some(error),
                result => return result,
            }
            failures = failures.saturating_add(1);
        }
    };
    match ctx.timeout(limit, tries).await {
        Ok(result) => result.map_err(Error::connecting),
        Err(end) if ctx.is_done() => Err(Error::canceled_at(Step::Connecting, end)),
        Err(_) => Err(Error::connecting(last.unwrap_or_else(no_answer))),
    }
}

/// Makes one attempt, within `limit` and until the context has ended.
pub(crate) async fn once<T>(
    ctx: &Context,
    limit: Duration,
    attempt: impl Future<Output = RedisResult<T>>,
) -> Result<T, Error> {
    match ctx.timeout(limit, attempt).await {
        Ok(result) => result.map_err(Error::connecting),
        Err(end) if ctx.is_done() => Err(Error::canceled_at(Step::Connecting, end)),
        Err(_) => Err(Error::connecting(no_answer())),
    }
}

/// How long to wait before the next try, after `failures` of them: twice as long each time, less up to a half by
/// chance, so that many clients do not come back at the same instant.
pub(crate) fn delay(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let whole = FIRST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST);
    // The keys of a new state are as random as is needed here.
    let chance = RandomState::new().build_hasher().finish() % 1024;
    whole - whole.mul_f64(chance as f64 / 2048.0)
}

/// A server that is away or still loading its data may be back; a wrong password or certificate stays wrong.
pub(crate) fn is_worth_a_retry(error: &RedisError) -> bool {
    #[cfg(feature = "tls")]
    if crate::tls::is_refusal(error) {
        return false;
    }
    is_of_connection(error) || error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
}

pub(crate) fn no_answer() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_a_bound_and_is_never_below_its_half() {
        assert_eq!(delay(0), Duration::ZERO);
        for failures in 1..40 {
            let whole = FIRST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST);
            let drawn = delay(failures);
            assert!(drawn <= whole && drawn >= whole / 2, "{failures}: {drawn:?}");
        }
    }
}
