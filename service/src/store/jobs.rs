//! What the store keeps of a job: for whom it was begun, and how it ended.

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
