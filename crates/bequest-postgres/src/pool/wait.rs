//! Waiting for a connection.

use std::sync::Arc;

use bequest::Context;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Lease, Pool};
use crate::error::{Error, Step};

/// A place in the queue, given up by dropping it. A connection that is on its way to it then goes to the next.
#[derive(Debug)]
pub(super) struct Waiting {
    pool: Arc<Pool>,
    number: u64,
    receiver: oneshot::Receiver<Result<Lease, Error>>,
    step: Step,
    since: Instant,
    answered: bool,
}

impl Waiting {
    pub(super) fn new(
        pool: Arc<Pool>,
        number: u64,
        receiver: oneshot::Receiver<Result<Lease, Error>>,
        connecting: bool,
    ) -> Waiting {
        Waiting {
            pool,
            number,
            receiver,
            step: if connecting {
                Step::Connecting
            } else {
                Step::Waiting
            },
            since: Instant::now(),
            answered: false,
        }
    }

    pub(super) async fn wait(mut self, ctx: &Context) -> Result<Lease, Error> {
        match ctx.run(&mut self.receiver).await {
            Ok(answer) => {
                self.answered = true;
                answer.unwrap_or_else(|_| Err(Error::closed()))
            }
            Err(end) => Err(Error::canceled_at(self.step, end)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = {
            let mut state = self.pool.lock();
            state.numbers.waited += 1;
            state.numbers.wait_time += self.since.elapsed();
            state.numbers.abandoned += u64::from(!self.answered);
            let place = state
                .waiting
                .binary_search_by_key(&self.number, |(number, _)| *number);
            place.ok().and_then(|place| state.waiting.remove(place))
        };
        drop(left);
    }
}
