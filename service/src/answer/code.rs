//! The words for what was answered: one enum makes the answer, its log line and its metric.

use std::sync::atomic::{AtomicU64, Ordering};

use bequest::Context;
use http::StatusCode;

use crate::log::{Handler, Record};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $word:literal, $title:literal;)*) => {
        /// What was answered, as programs read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them, in the order of their numbers.
            const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The status that goes with it.
            pub(crate) const fn status(self) -> StatusCode {
                match self {
                    $(Code::$name => StatusCode::$status,)*
                }
            }

            /// The word that programs may branch on.
            pub(crate) const fn word(self) -> &'static str {
                match self {
                    $(Code::$name => $word,)*
                }
            }

            /// What it means, for people, whatever the occasion.
            pub(crate) const fn title(self) -> &'static str {
                match self {
                    $(Code::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    Ok = OK, "ok", "All is well";
    Created = CREATED, "created", "It has been made";
    Accepted = ACCEPTED, "accepted", "It has been begun and goes on";
    /// An answer below 400 that says everything by its status and headers.
    Elsewhere = SEE_OTHER, "elsewhere", "The answer is somewhere else, or there is none";

    BadRequest = BAD_REQUEST, "bad_request", "The request cannot be understood";
    BadKey = BAD_REQUEST, "key", "The key is missing or not one";
    NoQuery = BAD_REQUEST, "no_query", "Nothing was asked for";
    BadTimeout = BAD_REQUEST, "bad_timeout", "The timeout is not a duration";
    BadAddress = BAD_REQUEST, "bad_address", "The client's address is not one";
    BadReason = BAD_REQUEST, "bad_reason", "The reason is missing or too long";
    BadVersion = BAD_REQUEST, "version", "This version is not spoken here";
    BadHost = FORBIDDEN, "host", "This listener is not reached by that name";
    BadUser = BAD_REQUEST, "bad_user", "The user is missing or not one";
    AmbiguousSession = BAD_REQUEST, "ambiguous_session", "More than one session was sent";
    InvalidToken = UNAUTHORIZED, "invalid_token", "The token is missing or not taken";
    NoSession = FORBIDDEN, "no_session", "This needs a session";
    CrossSite = FORBIDDEN, "cross_site", "Another site asked the browser to send this";
    NotFound = NOT_FOUND, "not_found", "There is nothing there";
    NoFetch = NOT_FOUND, "no_fetch", "Nothing has been fetched yet";
    NoJob = NOT_FOUND, "no_job", "There is no such job";
    NoSuchSession = NOT_FOUND, "no_such_session", "There is no such session";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take that method";
    JobOver = CONFLICT, "job_over", "The job has ended already";
    /// Never sent: 499 in the logs and the metrics; see [`bequest_http::server::client_closed_request`].
    ClientGone = BAD_REQUEST, "client_gone", "The client left before the answer";

    Internal = INTERNAL_SERVER_ERROR, "internal", "Something here is broken";
    Panicked = INTERNAL_SERVER_ERROR, "panicked", "Something here is broken";
    Canceled = INTERNAL_SERVER_ERROR, "canceled", "A part of the work was cancelled";
    SearchBackEnd = BAD_GATEWAY, "search_back_end", "The search back end gave no answer";
    Issuer = BAD_GATEWAY, "issuer", "The authentication server gave no answer";
    IssuerUnavailable = SERVICE_UNAVAILABLE, "issuer_unavailable", "Tokens cannot be checked at present";
    SessionsUnavailable = SERVICE_UNAVAILABLE, "sessions_unavailable", "It cannot be told who is asking";
    TooLittleTime = SERVICE_UNAVAILABLE, "too_little_time", "Less time is left than this is worth starting for";
    TooManyJobs = SERVICE_UNAVAILABLE, "too_many_jobs", "As many jobs are running as may";
    TooManyFollowers = SERVICE_UNAVAILABLE, "too_many_followers", "As many follow as may";
    ShuttingDown = SERVICE_UNAVAILABLE, "shutting_down", "The service is shutting down";
    DeadlineExceeded = GATEWAY_TIMEOUT, "deadline_exceeded", "The time was up before there was an answer";
}

/// How often each code was answered.
static COUNTS: [AtomicU64; Code::ALL.len()] = [const { AtomicU64::new(0) }; Code::ALL.len()];

impl Code {
    /// The code of an answer that says no more than its status.
    pub(crate) fn of_status(status: StatusCode) -> Code {
        match status.as_u16() {
            ..=299 => Code::Ok,
            300..=399 => Code::Elsewhere,
            404 => Code::NotFound,
            405 => Code::MethodNotAllowed,
            400..=499 => Code::BadRequest,
            503 => Code::ShuttingDown,
            504 => Code::DeadlineExceeded,
            _ => Code::Internal,
        }
    }

    /// Every code that was answered so far, other than with 200, and how often.
    pub(crate) fn counts() -> impl Iterator<Item = (Code, u64)> {
        let counts = Code::ALL.iter().zip(&COUNTS);
        counts
            .map(|(&code, count)| (code, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}

/// Counts answers by their code.
#[derive(Debug)]
pub(crate) struct Counting;

impl Handler for Counting {
    fn enabled(&self, _ctx: &Context, status: StatusCode) -> bool {
        status != StatusCode::OK
    }

    fn handle(&self, _ctx: &Context, record: &Record) {
        COUNTS[record.code as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_a_word_of_its_own_and_its_place() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, number);
        }
    }
}
