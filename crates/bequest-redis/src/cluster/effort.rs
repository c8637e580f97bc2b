//! How long a call goes on trying to have its command run.

use std::time::{Duration, Instant};

use bequest::Context;
use redis::RedisError;

use crate::error::{Error, Step};
use crate::retry::{delay, no_answer};

/// What one call may still spend on finding the node that runs its command. The time in which a command has been sent
/// and its answer is awaited is not its.
pub(super) struct Effort<'a> {
    ctx: &'a Context,
    limit: Duration,
    left: Duration,
    /// How often it has been sent elsewhere, or was asked for patience, or found nobody.
    turns: u32,
    /// Why it has not succeeded yet, and since when that is known.
    last: Option<(RedisError, Instant)>,
}

/// How many times in a row a call follows its directions without a pause.
const AT_ONCE: u32 = 4;
/// A command that a node has kept for this long has not failed: what comes then is counted afresh.
const KEPT: Duration = Duration::from_secs(1);

impl<'a> Effort<'a> {
    pub(super) fn new(ctx: &'a Context, limit: Duration) -> Effort<'a> {
        Effort {
            ctx,
            limit,
            left: limit,
            turns: 0,
            last: None,
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.left
    }

    pub(super) fn turns(&self) -> u32 {
        self.turns
    }

    /// Does `work`, and counts its time.
    pub(super) async fn spend<F: Future>(&mut self, work: F) -> Result<F::Output, Error> {
        let began = self.ctx.now();
        let done = self.ctx.timeout(self.left, work).await;
        self.took(self.ctx.now().saturating_duration_since(began));
        match done {
            Ok(result) => Ok(result),
            Err(end) if self.ctx.is_done() => Err(Error::canceled_at(Step::Connecting, end)),
            Err(_) => Err(self.over()),
        }
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Notes that a node has said where to go. Directions hold for an instant only, so they are followed at once; whether
    /// there have been too many of them for that.
    pub(super) fn sent_on(&mut self, why: RedisError) -> bool {
        self.note(why);
        self.turns > AT_ONCE
    }

    /// Notes a failure, and waits a little longer after each.
    pub(super) async fn failed(&mut self, why: RedisError) -> Result<(), Error> {
        self.note(why);
        self.pause().await
    }

    pub(super) async fn pause(&mut self) -> Result<(), Error> {
        let pause = delay(self.turns);
        self.spend(tokio::time::sleep(pause)).await
    }

    fn note(&mut self, why: RedisError) {
        let now = self.ctx.now();
        let is_kept = |at: Instant| now.saturating_duration_since(at) > KEPT + (self.limit - self.left);
        if self.last.as_ref().is_some_and(|(_, at)| is_kept(*at)) {
            (self.turns, self.left) = (0, self.limit);
        }
        self.turns = self.turns.saturating_add(1);
        self.last = Some((why, now));
    }

    fn over(&mut self) -> Error {
        Error::connecting(self.last.take().map_or_else(no_answer, |(why, _)| why))
    }
}
