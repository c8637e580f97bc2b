//! What the logs know of a request. It is put into the request's context before anything else happens, and travels with
//! it: to handlers, to the answers that the server gives by itself, and on into jobs that outlive the request.
//!
//! # Invariants
//!
//! 1. Identity comes from the server's own middleware alone, through [`identify`], and once.
//! 2. Nothing here holds a credential: a session is known by a piece of its hash.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bequest::{Context, Key};
use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version, header};

use super::handler::Handler;

/// Private, so that only [`remember`] puts it there.
static REQUEST: Key<Arc<Request>> = Key::new("request");

/// One request, as far as its lines need it.
pub(crate) struct Request {
    number: u64,
    trace: Option<TraceId>,
    pub(super) begun: SystemTime,
    pub(super) peer: SocketAddr,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) referer: Option<HeaderValue>,
    pub(super) agent: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    /// Set once, by [`identify`].
    session: OnceLock<LoggedSession>,
    log: Arc<dyn Handler>,
}

/// What a log line may say of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedSession {
    /// The first eight hexadecimal digits of the SHA-256 of its id.
    pub(crate) digest: String,
    pub(crate) user: String,
    pub(crate) login_time: SystemTime,
    /// Personal: logged only when asked for by the settings.
    pub(crate) gender: String,
    /// Personal: logged only when asked for by the settings.
    pub(crate) age: Option<u8>,
}

/// The 32 hexadecimal digits of a W3C trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TraceId([u8; 32]);

/// A request's number, unique beyond this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(u64);

/// `ctx` with what the logs need of the request with this head. Its lines go to `log`.
pub(crate) fn remember(ctx: &Context, head: &Parts, peer: SocketAddr, log: &Arc<dyn Handler>) -> Context {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let field = |name| head.headers.get(name).cloned();
    ctx.with_value(
        &REQUEST,
        Arc::new(Request {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            trace: head.headers.get("traceparent").and_then(TraceId::read),
            begun: SystemTime::now(),
            peer,
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            referer: field(header::REFERER),
            agent: field(header::USER_AGENT),
            accept: field(header::ACCEPT),
            session: OnceLock::new(),
            log: Arc::clone(log),
        }),
    )
}

/// The request for which `ctx` was made, if it was made for one.
pub(crate) fn of(ctx: &Context) -> Option<&Arc<Request>> {
    ctx.value(&REQUEST)
}

/// Lets the lines about the request of `ctx` say whose it is. Whether it was heard: a request is identified once, and a
/// context of no request never.
pub(crate) fn identify(ctx: &Context, session: LoggedSession) -> bool {
    of(ctx).is_some_and(|request| request.session.set(session).is_ok())
}

impl Request {
    pub(crate) fn id(&self) -> RequestId {
        RequestId(self.number)
    }

    /// The trace it belongs to: the caller's if it sent one, otherwise one of its own.
    pub(crate) fn trace_id(&self) -> String {
        match &self.trace {
            Some(TraceId(digits)) => digits.iter().copied().map(char::from).collect(),
            None => format!("{:016x}{:016x}", process(), self.number),
        }
    }

    pub(crate) fn session(&self) -> Option<&LoggedSession> {
        self.session.get()
    }

    /// Where lines about it go.
    pub(crate) fn log(&self) -> &dyn Handler {
        &*self.log
    }

    /// The `Accept` it came with.
    pub(crate) fn accept(&self) -> &str {
        self.accept
            .as_ref()
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or("")
    }
}

impl TraceId {
    /// Reads a `traceparent`: `00-{32 digits}-{16 digits}-{2 digits}`, lower case, neither id of zeros alone.
    fn read(value: &HeaderValue) -> Option<TraceId> {
        let text = value.as_bytes();
        let shape = text.len() == 55 && text.starts_with(b"00-") && text[35] == b'-' && text[52] == b'-';
        let is_hex = |part: &[u8]| {
            part.iter()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|&digit| digit != b'0');
        if !(shape && is_id(&text[3..35]) && is_id(&text[36..52]) && is_hex(&text[53..])) {
            return None;
        }
        text[3..35].try_into().ok().map(TraceId)
    }
}

/// A number of this process, so that two of them, or one before and after a restart, do not name two requests alike.
fn process() -> u64 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    *PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", process(), self.0)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id().to_string())
            .field("method", &self.method)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Option<TraceId> {
        TraceId::read(&HeaderValue::from_static(text))
    }

    #[test]
    fn a_trace_is_taken_only_whole() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(good).unwrap().0.as_slice(), &good.as_bytes()[3..35]);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47 6-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
