//! What became of a run, and of all of them.

use std::error::Error;
use std::fmt;

use super::injection::Injection;
use super::place::Place;

/// What became of one run of the call.
#[derive(Debug)]
pub struct Outcome<T> {
    pub(super) injection: Option<Injection>,
    pub(super) output: Option<T>,
}

impl<T> Outcome<T> {
    /// What the call returned; `None` if it was dropped.
    pub fn output(&self) -> Option<&T> {
        self.output.as_ref()
    }

    /// Whether the call was dropped before it returned.
    pub fn is_dropped(&self) -> bool {
        self.output.is_none()
    }

    /// How it was ended; `None` if it was left alone, or had returned before it came to its place.
    pub fn injection(&self) -> Option<Injection> {
        self.injection
    }
}

/// What all runs have shown. Every one of them has passed.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) places: Vec<Place>,
    pub(super) injected: Vec<Injection>,
    pub(super) missed: Vec<Injection>,
}

impl Report {
    /// The places at which the undisturbed call waited, in order; not among them is place 0, before its first poll.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What was injected.
    pub fn injected(&self) -> &[Injection] {
        &self.injected
    }

    /// What could not be injected, since the call returned each time before it came to its place.
    pub fn missed(&self) -> &[Injection] {
        &self.missed
    }

    /// The places at which nothing waited on the context: [`Place::hears`] is false.
    pub fn deaf(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.hears())
    }
}

/// Why a run has failed: where it was ended, how, and what was wrong.
///
/// It prints on one line what one would search for, and how to replay it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) injection: Option<Injection>,
    pub(super) place: Option<Place>,
    pub(super) what: String,
}

/// The environment variable that names the only injection to be tried, such as `drop@17`.
pub(super) const REPLAY: &str = "BEQUEST_CANCEL_AT";

impl Failure {
    /// What was injected; `None` if the run failed undisturbed, or before its place.
    pub fn injection(&self) -> Option<Injection> {
        self.injection
    }

    /// The place at which it was injected; `None` before the first poll.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            injection,
            place,
            what,
        } = self;
        match (injection, place) {
            (None, _) => return write!(f, "undisturbed: {what}"),
            (Some(injection), None) => write!(f, "{} before the first poll: {what}", injection.how())?,
            (Some(injection), Some(place)) => write!(f, "{} at {place}: {what}", injection.how())?,
        }
        match injection {
            Some(injection) => write!(f, " (to replay: {REPLAY}={injection})"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}
