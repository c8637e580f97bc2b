//! What a request hands down in its headers, and from whom it is taken.
//!
//! The formats are those of [`wire`](crate::wire). Here is decided what they may do: a stranger's deadline can only
//! shorten what the server allows anyway; a trace and values are taken from trusted peers alone.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bequest::{CancelScope, Context, Label, Reason};
use http::request::Parts;
use http::{HeaderName, StatusCode};

use super::connection::Connection;
use super::observe::ConnInfo;
use crate::wire::{Allow, DeadlineHeaders, Trace};

/// What is taken from the headers of requests. A parameter struct: name what differs and take the rest from
/// [`Inbound::default`].
///
/// The request's deadline is the earliest of the connection's, the request limit, and the caller's. The caller's time
/// runs from the first byte of its request as far as that is known, and not from the end of the header.
///
/// ```
/// use bequest_http::Server;
/// use bequest_http::server::{Inbound, Trusted};
/// use bequest_http::wire::Allow;
/// use std::time::Duration;
///
/// let server = Server::builder().inbound(Inbound {
///     least: Duration::from_millis(5),
///     trusted: Trusted::by(|conn| conn.peer_addr().ip().is_loopback()),
///     trace: true,
///     baggage: Allow::nothing().member("tenant"),
///     ..Inbound::default()
/// });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// The deadline headers that are read. Default: all four, from anybody.
    pub deadlines: DeadlineHeaders,
    /// What becomes of a request with a deadline header that cannot be read. Default: it is as none.
    pub unreadable: Unreadable,
    /// Less time than this is not worth beginning: the answer is 503 at once. Default: only none at all is too little.
    pub least: Duration,
    /// Who is trusted. Default: nobody.
    pub trusted: Trusted,
    /// How long a trusted caller's deadline may make the request limit. Default: not longer than it is.
    pub longest: Duration,
    /// Whether requests have a [`Trace`]: a trusted caller's goes on, all others begin here. Default: no.
    pub trace: bool,
    /// The values that are taken from trusted callers. Default: none.
    pub baggage: Allow,
}

/// What becomes of a request whose deadline header cannot be read: malformed, negative, too long, or there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreadable {
    /// The header counts as none: the server's own limit holds.
    #[default]
    Ignored,
    /// 400 at once.
    Refused,
}

/// Whose headers are taken at their word.
#[derive(Clone, Default)]
pub struct Trusted(Option<Arc<Trusts>>);

type Trusts = dyn Fn(&ConnInfo) -> bool + Send + Sync;

/// Why a handler was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller leaves less time than is worth beginning. 503.
    TooLittleTime,
    /// The caller's time was over before its request was here. 504.
    Spent,
    /// A deadline header cannot be read. 400.
    Unreadable,
    /// An HTTP/1 request that two servers could understand differently, and what about it: not exactly one `Host` that can be
    /// one, or a target that is neither a path nor a URI. 400, and the connection is closed.
    Malformed(&'static str),
    /// The body of an HTTP/1 request is coded in another way than chunked, once. 501, and the connection is closed.
    Coding,
}

/// The cause of the end of a context whose caller's deadline has passed: the header that said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerDeadline(HeaderName);

/// A request's context, and whether it is worth beginning.
pub(super) struct Handed {
    pub(super) scope: CancelScope,
    /// The scope's with the values that the caller hands down, if there are any.
    pub(super) context: Option<Context>,
    /// When its deadline passes, on the server's stopwatch; never before that.
    pub(super) until: Duration,
    pub(super) refusal: Option<Refusal>,
}

impl Inbound {
    /// Nothing is taken.
    pub fn nothing() -> Inbound {
        Inbound {
            deadlines: DeadlineHeaders::none(),
            ..Inbound::default()
        }
    }

    /// Makes the context of a request that has been `waited` for since its first byte.
    pub(super) fn take(&self, conn: &Connection, head: &Parts, began: Duration, waited: Duration) -> Handed {
        let is_trusted = self.trusted.trusts(conn.info());
        let (scope, until, refusal) = self.take_deadline(conn, head, began, waited, is_trusted);
        let mut context = None;
        if self.trace {
            // A stranger's is not even looked at.
            let caller = is_trusted.then(|| Trace::read(&head.headers)).flatten();
            let trace = caller.map_or_else(Trace::start, |caller| caller.child());
            context = Some(trace.carried_by(&scope));
        }
        if is_trusted {
            let plain = context.unwrap_or_else(|| scope.context());
            context = Some(self.baggage.read(&head.headers, plain));
        }
        Handed {
            scope,
            context,
            until,
            refusal,
        }
    }

    fn take_deadline(
        &self,
        conn: &Connection,
        head: &Parts,
        began: Duration,
        waited: Duration,
        is_trusted: bool,
    ) -> (CancelScope, Duration, Option<Refusal>) {
        let limit = conn.server().limits.request;
        let reading = self.deadlines.read(&head.headers);
        let refusal = match (&reading.unreadable, self.unreadable) {
            (Some(_), Unreadable::Refused) => Some(Refusal::Unreadable),
            _ => None,
        };
        let (Some(budget), Some(header)) = (reading.budget, reading.header) else {
            return (limited(conn, began, limit), began.saturating_add(limit), refusal);
        };
        let left = budget.saturating_sub(waited);
        let refusal = refusal.or_else(|| self.refuse(budget, left));
        let most = if is_trusted {
            limit.max(self.longest)
        } else {
            limit
        };
        let scope = match left < most {
            true => conn
                .context()
                .with_timeout(left)
                .named("caller")
                .caused_by(CallerDeadline(header)),
            false => limited(conn, began, most),
        };
        (scope, began.saturating_add(left.min(most)), refusal)
    }

    fn refuse(&self, budget: Duration, left: Duration) -> Option<Refusal> {
        if budget.is_zero() || budget < self.least {
            Some(Refusal::TooLittleTime)
        } else if left.is_zero() {
            Some(Refusal::Spent)
        } else if left < self.least {
            Some(Refusal::TooLittleTime)
        } else {
            None
        }
    }
}

/// Of every request whose limit is the server's.
static REQUEST: Label = Label::new("request").reason(Reason::Limit("request"));

fn limited(conn: &Connection, began: Duration, limit: Duration) -> CancelScope {
    let context = conn.context();
    let scope = match conn.server().stopwatch.instant(began.saturating_add(limit)) {
        // Spares a look at the clock.
        Some(at) => context.with_deadline(at),
        None => context.with_timeout(limit),
    };
    scope.labelled(&REQUEST)
}

impl Trusted {
    /// Nobody is trusted.
    pub fn nobody() -> Trusted {
        Trusted(None)
    }

    /// Peers are trusted by their connection, for example by their address. It runs for each request, on the thread that
    /// drives the connection, and is to be short.
    pub fn by(trusts: impl Fn(&ConnInfo) -> bool + Send + Sync + 'static) -> Trusted {
        Trusted(Some(Arc::new(trusts)))
    }

    fn trusts(&self, conn: &ConnInfo) -> bool {
        self.0.as_ref().is_some_and(|trusts| trusts(conn))
    }
}

impl Refusal {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::TooLittleTime => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Spent => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Unreadable | Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::Coding => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// Whether nothing that follows on the connection is to be believed.
    pub(super) fn ends_connection(self) -> bool {
        matches!(self, Refusal::Malformed(_) | Refusal::Coding)
    }
}

impl CallerDeadline {
    #[cfg(feature = "grpc")]
    pub(crate) fn of(header: HeaderName) -> CallerDeadline {
        CallerDeadline(header)
    }

    /// The header that said it.
    pub fn header(&self) -> &HeaderName {
        &self.0
    }
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "Trusted(by connection)",
            None => "Trusted(nobody)",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TooLittleTime => "the caller leaves too little time",
            Refusal::Spent => "the caller's time is over",
            Refusal::Unreadable => "a deadline header cannot be read",
            Refusal::Malformed(what) => return write!(f, "malformed request: {what}"),
            Refusal::Coding => "this transfer coding is not understood",
        })
    }
}

impl fmt::Display for CallerDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the caller's {}", self.0)
    }
}

impl Error for CallerDeadline {}
