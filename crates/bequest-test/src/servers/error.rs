//! Why there is no server.

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};

/// Why a server did not start.
///
/// # Example
///
/// ```
/// use bequest_test::servers::Postgres;
///
/// match Postgres::start() {
///     Ok(server) => assert_ne!(server.address().port(), 0),
///     Err(error) => assert!(error.is_not_installed(), "{error}"),
/// }
/// ```
pub struct StartError(Failure);

enum Failure {
    /// No such program in any of the places where it is looked for.
    NotInstalled(&'static str),
    /// The system refused a step.
    System(&'static str, io::Error),
    /// The program started and said no, or we did.
    Refused(String),
}

impl StartError {
    /// Whether the server's program is not on this machine: a reason to leave a test out.
    pub fn is_not_installed(&self) -> bool {
        matches!(self.0, Failure::NotInstalled(_))
    }

    pub(super) fn not_installed(program: &'static str) -> StartError {
        StartError(Failure::NotInstalled(program))
    }

    pub(super) fn system(step: &'static str, error: io::Error) -> StartError {
        StartError(Failure::System(step, error))
    }

    pub(super) fn refused(why: impl Into<String>) -> StartError {
        StartError(Failure::Refused(why.into()))
    }
}

/// The server, or `None` with a line on the standard error stream if it is not installed.
///
/// # Panics
///
/// If it did not start for any other reason, or if servers are required.
pub(super) fn or_leave_out<S>(what: &str, started: Result<S, StartError>) -> Option<S> {
    let required = env::var_os(super::REQUIRE).is_some_and(|value| value == "1");
    match started {
        Ok(server) => Some(server),
        Err(error) if error.is_not_installed() && !required => {
            // Not `eprintln!`: the harness would swallow it, and nobody would know what was left out.
            let _ = writeln!(io::stderr(), "left out: {what}: {error}");
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::NotInstalled(program) => write!(f, "`{program}` is not installed"),
            Failure::System(step, error) => write!(f, "{step}: {error}"),
            Failure::Refused(why) => f.write_str(why),
        }
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StartError({self})")
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Failure::System(_, error) => Some(error),
            Failure::NotInstalled(_) | Failure::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a server: no room")]
    fn only_what_is_not_installed_is_left_out() {
        or_leave_out::<()>("a server", Err(StartError::refused("no room")));
    }
}
