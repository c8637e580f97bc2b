//! What the store keeps of a job: for whom it was begun, who wants it to end, and how it ended.

use std::time::Duration;

use bequest::Context;
use bequest_postgres::Listener;

use super::Error;

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Finished,
    /// By somebody, through its number.
    Cancelled,
    /// By its limit, or by the shutdown.
    Ended,
    Failed,
    /// The process was gone before the job was.
    Interrupted,
}

/// For whom and for which request a job is begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starter {
    pub(crate) address: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// How a job ended, other than well.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) state: State,
    pub(crate) detail: String,
    /// Why, in a few words.
    pub(crate) reason: Option<String>,
    /// The place in the source from which the end came.
    pub(crate) origin: Option<String>,
    pub(crate) passages: u32,
}

/// That a job is to end: somebody wants it, through its number, and was not at the node that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) job: i64,
    pub(crate) reason: String,
    pub(crate) by: String,
}

/// What hears of wishes.
#[derive(Debug)]
pub(crate) enum Ears {
    /// The database tells.
    Told(Listener),
    /// Nobody tells: it is worth looking every now and then.
    Untold,
}

/// A job as the table has it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: i64,
    pub(crate) state: State,
    pub(crate) detail: String,
    pub(crate) reason: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) passages: u32,
    pub(crate) starter: Starter,
    pub(crate) begun_at: String,
    pub(crate) ended_at: Option<String>,
}

/// How often it is looked where nobody tells, and how often where a word may have been lost.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_ALL_THE_SAME: Duration = Duration::from_secs(5);

impl Ears {
    /// Waits until it is worth looking.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no word is lost.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; or nobody tells any more, and what was told meanwhile is lost.
    pub(crate) async fn next(&mut self, ctx: &Context) -> Result<(), Error> {
        let Ears::Told(listener) = self else {
            return ctx.sleep(LOOK).await.map_err(Error::Ended);
        };
        let step = ctx.with_timeout(LOOK_ALL_THE_SAME).named("a word about jobs");
        match listener.recv(&step).await {
            Err(error) if error.canceled().is_none_or(|end| !end.is_from(&step)) => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Ended jobs that are remembered.
pub(super) const MOST_REMEMBERED: i64 = 1000;

impl State {
    const ALL: [State; 6] = [
        State::Running,
        State::Finished,
        State::Cancelled,
        State::Ended,
        State::Failed,
        State::Interrupted,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Finished => "finished",
            State::Cancelled => "cancelled",
            State::Ended => "ended",
            State::Failed => "failed",
            State::Interrupted => "interrupted",
        }
    }

    /// The state of this name.
    pub(super) fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }
}
