//! What is done to a call, and at which of its places.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// A way to end a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// The future is dropped where it stands: what a `select!` does, a timeout, or a server whose client has left.
    Drop,
    /// The context is cancelled, and the call is polled to its end.
    Cancel,
    /// The context ends as at its deadline, and its clock moves beyond it; then the call is polled to its end. So
    /// whatever else the call waits for on that clock is over, too, but came later.
    Deadline,
    /// The context is cancelled, the call is polled once if that has woken it, and then dropped: told, and given no
    /// grace.
    CancelThenDrop,
}

/// One way to end a call, at one place: it replays a run.
///
/// ```
/// use bequest_test::cancel_at::{How, Injection};
///
/// let injection = Injection::new(How::Drop, 17);
/// assert_eq!(injection.to_string(), "drop@17");
/// assert_eq!("drop@17".parse(), Ok(injection));
/// assert!("drop@the end".parse::<Injection>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injection {
    how: How,
    place: usize,
}

impl How {
    /// All of them.
    pub const ALL: [How; 4] = [How::Drop, How::Cancel, How::Deadline, How::CancelThenDrop];

    fn name(self) -> &'static str {
        match self {
            How::Drop => "drop",
            How::Cancel => "cancel",
            How::Deadline => "deadline",
            How::CancelThenDrop => "cancel-then-drop",
        }
    }
}

impl Injection {
    /// The end `how` at the place of this number; 0 is before the first poll.
    pub const fn new(how: How, place: usize) -> Injection {
        Injection { how, place }
    }

    /// How the call is ended.
    pub const fn how(self) -> How {
        self.how
    }

    /// The number of the place.
    pub const fn place(self) -> usize {
        self.place
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.how, self.place)
    }
}

impl FromStr for Injection {
    type Err = NotAnInjection;

    fn from_str(text: &str) -> Result<Injection, NotAnInjection> {
        let parse = || {
            let (name, place) = text.split_once('@')?;
            let how = How::ALL.into_iter().find(|how| how.name() == name)?;
            Some(Injection::new(how, place.parse().ok()?))
        };
        parse().ok_or_else(|| NotAnInjection(text.to_owned()))
    }
}

/// A text that names no [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnInjection(String);

impl fmt::Display for NotAnInjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = How::ALL.map(How::name).join(", ");
        write!(
            f,
            "{:?} is no injection: it is one of {names}, then @ and a number",
            self.0
        )
    }
}

impl Error for NotAnInjection {}
