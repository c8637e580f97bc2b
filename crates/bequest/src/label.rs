//! A name and a reason that many scopes share.
//!
//! Here lives what a program knows of its scopes before they are made. What is known of one scope alone, its number and the
//! cause of its deadline, is kept with that scope.

use std::panic::Location;

use crate::reason::Reason;

/// What is said of every scope that one place makes: its name, and the reason of its own deadline's passing.
///
/// A scope that is [named](crate::CancelScope::named) keeps the name in memory of its own. A label is made once, and a scope
/// that is [labelled](crate::CancelScope::labelled) with it only points there: for scopes that are made by the million.
///
/// ```
/// use bequest::{Context, Label, Reason};
/// use std::time::Duration;
///
/// static QUERY: Label = Label::new("query").reason(Reason::Limit("query"));
///
/// let query = Context::background().with_timeout(Duration::ZERO).labelled(&QUERY);
/// let end = query.err().unwrap();
/// assert_eq!(end.reason(), Reason::Limit("query"));
/// assert!(end.to_string().contains("(query "));
/// ```
#[derive(Clone, Debug)]
pub struct Label {
    pub(crate) name: &'static str,
    pub(crate) reason: Reason,
    pub(crate) made_at: &'static Location<'static>,
}

impl Label {
    /// A label with this name. The reason is [`Reason::Deadline`].
    #[track_caller]
    pub const fn new(name: &'static str) -> Label {
        Label {
            name,
            reason: Reason::Deadline,
            made_at: Location::caller(),
        }
    }

    /// The same with this reason, which the error has if the scope's own deadline passes.
    #[must_use]
    pub const fn reason(self, reason: Reason) -> Label {
        Label { reason, ..self }
    }
}
