//! Child processes that end with their context: the whole process group is told, has a grace, is killed, and is reaped.
//!
//! Unix only. A child that starts children of its own leaves them behind when it alone is killed; so each child here leads a
//! process group, and signals go to the group. A process that leaves the group (`setsid`) is out of reach, and only the pipes
//! that it holds are given up in time.
//!
//! ```text
//! the context ends ──► SIGTERM to the group ──► grace ──► SIGKILL to the group ──► the leader is reaped
//!                                            └► the leader exits ──┘
//! ```
//!
//! # Invariants
//!
//! 1. A signal goes to the group only while its leader is unreaped, so that its number cannot be another's by then.
//! 2. Whoever waits, or nobody: a task of its own sees to the child until it is reaped. Dropping a [`Child`] ends its scope.
//! 3. The error of a child that its context ended is the context's, with its cause; how the child exited stands beside it.

mod child;
mod error;
mod output;

pub use child::{Child, spawn};
pub use error::ProcessError;
pub use output::{Output, output};

use std::time::Duration;

use crate::Signal;

/// How a child is ended. A parameter struct: name what differs and take the rest from [`Ending::default`].
///
/// ```
/// use bequest::{Signal, process::Ending};
/// use std::time::Duration;
///
/// let ending = Ending { signal: Signal::INTERRUPT, ..Ending::default() };
/// assert_eq!(ending.grace, Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the group is told with. Default SIGTERM.
    pub signal: Signal,
    /// How long it then has, before it is killed; zero: killed at once. Default 5 s.
    pub grace: Duration,
    /// How long, after the child has exited, its output is waited for if somebody else holds the pipe. Default 1 s.
    pub pipes: Duration,
}

impl Default for Ending {
    fn default() -> Ending {
        Ending {
            signal: Signal::TERMINATE,
            grace: Duration::from_secs(5),
            pipes: Duration::from_secs(1),
        }
    }
}
