//! The error of a child process.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitStatus;

use crate::{CancelScope, Canceled};

/// Why there is no answer of a child: its context ended, or the system refused something.
#[derive(Debug)]
pub struct ProcessError(Why);

#[derive(Debug)]
enum Why {
    Ended {
        end: Canceled,
        status: Option<ExitStatus>,
    },
    System {
        /// What it was that could not be done.
        what: String,
        error: io::Error,
    },
}

impl ProcessError {
    pub(super) fn ended(end: Canceled, status: Option<ExitStatus>) -> ProcessError {
        ProcessError(Why::Ended { end, status })
    }

    pub(super) fn system(what: impl Into<String>, error: io::Error) -> ProcessError {
        ProcessError(Why::System {
            what: what.into(),
            error,
        })
    }

    /// Whether the context of the child ended, by a cancel or by its deadline.
    pub fn is_canceled(&self) -> bool {
        self.canceled().is_some()
    }

    /// The end of the context, if that is why.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.0 {
            Why::Ended { end, .. } => Some(end),
            Why::System { .. } => None,
        }
    }

    /// Whether the context of the child ended at `scope` itself: my own limit, which a fallback may answer, and not an end from
    /// further out.
    ///
    /// ```
    /// use bequest::{Context, process::{self, Ending}};
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let request = Context::background().with_cancel();
    /// let step = request.with_timeout(Duration::from_millis(10));
    /// let mut command = std::process::Command::new("sleep");
    /// command.arg("1000");
    /// let error = process::output(&step, command, Ending::default()).await.unwrap_err();
    /// assert!(error.is_from(&step) && !error.is_from(&request));
    /// # });
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.canceled().is_some_and(|end| end.is_from(scope))
    }

    /// How the child exited: after it was told, or before that if it was its output which was still waited for. `None` if none
    /// was started, or if it could not be reaped in time.
    pub fn status(&self) -> Option<ExitStatus> {
        match &self.0 {
            Why::Ended { status, .. } => *status,
            Why::System { .. } => None,
        }
    }

    /// What the system said, for example that there is no such program.
    pub fn io(&self) -> Option<&io::Error> {
        match &self.0 {
            Why::Ended { .. } => None,
            Why::System { error, .. } => Some(error),
        }
    }
}

impl fmt::Display for ProcessError {
    /// One line that stands for itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Ended {
                end,
                status: Some(status),
            } => write!(f, "{end}; the process ended ({status})"),
            Why::Ended { end, status: None } => fmt::Display::fmt(end, f),
            Why::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl Error for ProcessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Why::Ended { end, .. } => Some(end),
            Why::System { error, .. } => Some(error),
        }
    }
}
