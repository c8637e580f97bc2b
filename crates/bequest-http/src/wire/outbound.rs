//! What goes out with a request: the time that is left, the trace, and the values that its destination may see.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bequest::Context;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Uri, header};

use super::allow::Allow;
use super::timeout::{
    DEADLINE_HEADER, encode_grpc_timeout, encode_milliseconds, parse_grpc_timeout, parse_milliseconds,
    read_once,
};
use super::trace::Trace;

/// What a client sends along. A parameter struct: name what differs and take the rest from [`Outbound::default`].
///
/// ```
/// use bequest::Context;
/// use bequest_http::wire::Outbound;
/// use http::Request;
/// use std::time::Duration;
///
/// let ctx = Context::background().with_timeout(Duration::from_secs(1));
/// let outbound = Outbound { margin: Duration::from_millis(100), ..Outbound::default() };
/// let (mut head, ()) = Request::get("http://example.test/").body(()).unwrap().into_parts();
/// outbound.apply(&ctx, &mut head).unwrap();
/// let told: u64 = head.headers["bequest-timeout-ms"].to_str().unwrap().parse().unwrap();
/// assert!(told <= 900);
/// ```
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The header in which the remaining time is written.
    pub deadline: DeadlineHeader,
    /// What is kept of the remaining time for the way back and for the work with the answer. Default 5 ms.
    pub margin: Duration,
    /// Whether `traceparent` and `tracestate` go along, if the context has a trace: each request in a span of its own. A
    /// `traceparent` that the request has already is left as it is. Default: no.
    pub trace: bool,
    /// Which values go along to any destination. Default: none.
    pub baggage: Allow,
    /// Lists that hold in place of `baggage` for one destination each, by host and port as the request's URI has them
    /// (`"search.test:9000"`).
    pub baggage_to: Vec<(String, Allow)>,
}

/// Where the remaining time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlineHeader {
    /// Nowhere.
    None,
    /// In milliseconds, under this name; as `grpc-timeout` if the request's content type is gRPC's.
    Milliseconds(HeaderName),
}

/// So little time is left that the margin takes all of it: the request is not worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleLeft {
    left: Duration,
    margin: Duration,
}

impl Outbound {
    /// Sets the headers of a request that is about to be sent for `ctx`. A context without a deadline sets none.
    ///
    /// What the program has set itself stays: a `traceparent`, a `baggage`, and a remaining time that is shorter.
    ///
    /// # Errors
    ///
    /// If less than a millisecond is left above the margin.
    pub fn apply(&self, ctx: &Context, head: &mut Parts) -> Result<(), TooLittleLeft> {
        self.apply_deadline(ctx, &mut head.headers)?;
        if self.trace && !head.headers.contains_key("traceparent") {
            if let Some(trace) = Trace::of(ctx) {
                trace.child().write(&mut head.headers);
            }
        }
        if !head.headers.contains_key("baggage") {
            let selected = self.allowed_to(&head.uri).select(ctx);
            if let Some(baggage) = selected.to_header() {
                head.headers.insert("baggage", baggage);
            }
        }
        Ok(())
    }

    fn apply_deadline(&self, ctx: &Context, headers: &mut HeaderMap) -> Result<(), TooLittleLeft> {
        let Some(left) = ctx.remaining() else {
            return Ok(());
        };
        let too_little = TooLittleLeft {
            left,
            margin: self.margin,
        };
        let told = left
            .checked_sub(self.margin)
            .filter(|told| *told >= Duration::from_millis(1))
            .ok_or(too_little)?;
        let DeadlineHeader::Milliseconds(name) = &self.deadline else {
            return Ok(());
        };
        let (name, value, set) = match is_grpc(headers) {
            true => {
                let name = HeaderName::from_static("grpc-timeout");
                let set = read_once(headers, &name, parse_grpc_timeout);
                (name, encode_grpc_timeout(told), set)
            }
            false => {
                let set = read_once(headers, name, parse_milliseconds);
                (name.clone(), encode_milliseconds(told), set)
            }
        };
        if set.is_none_or(|set| set > told) {
            headers.insert(name, value.ok_or(too_little)?);
        }
        Ok(())
    }

    fn allowed_to(&self, uri: &Uri) -> &Allow {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        self.baggage_to
            .iter()
            .find(|(destination, _)| destination.eq_ignore_ascii_case(authority))
            .map_or(&self.baggage, |(_, allow)| allow)
    }
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound {
            deadline: DeadlineHeader::Milliseconds(DEADLINE_HEADER),
            margin: Duration::from_millis(5),
            trace: false,
            baggage: Allow::nothing(),
            baggage_to: Vec::new(),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl TooLittleLeft {
    /// What was left.
    pub fn left(&self) -> Duration {
        self.left
    }
}

impl fmt::Display for TooLittleLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} left, of which {:?} are kept for the answer",
            self.left, self.margin
        )
    }
}

impl Error for TooLittleLeft {}
