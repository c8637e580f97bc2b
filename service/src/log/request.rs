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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bequest::{Context, Key};
use bequest_http::wire::Trace;
use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version, header};

use super::handler::Handler;
use crate::domain::session::Session;

/// Private, so that only [`remember`] puts it there.
static REQUEST: Key<Request> = Key::new("request");

/// One request, as far as its lines need it.
pub(crate) struct Request {
    number: u64,
    /// The caller's, if it sent one.
    trace: Option<Trace>,
    pub(super) begun: SystemTime,
    pub(super) peer: SocketAddr,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) referer: Option<HeaderValue>,
    pub(super) agent: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    /// Set once, by [`identify`].
    session: OnceLock<Arc<Session>>,
    /// The server has answered in the handler's place. Relaxed: what is lost of a race is a line more.
    stood_in: AtomicBool,
    log: Arc<dyn Handler>,
}

/// A request's number, unique beyond this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(u64);

/// `ctx` with what the logs need of the request with this head. Its lines go to `log`.
pub(crate) fn remember(ctx: &Context, head: &Parts, peer: SocketAddr, log: &Arc<dyn Handler>) -> Context {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let field = |name| head.headers.get(name).cloned();
    ctx.with_value(
        &REQUEST,
        Request {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            trace: Trace::read(&head.headers),
            begun: SystemTime::now(),
            peer,
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            referer: field(header::REFERER),
            agent: field(header::USER_AGENT),
            accept: field(header::ACCEPT),
            session: OnceLock::new(),
            stood_in: AtomicBool::new(false),
            log: Arc::clone(log),
        },
    )
}

/// The request for which `ctx` was made, if it was made for one.
pub(crate) fn of(ctx: &Context) -> Option<&Request> {
    ctx.value(&REQUEST)
}

/// Lets the lines about the request of `ctx` say whose it is. Whether it was heard: a request is identified once, and a
/// context of no request never.
pub(crate) fn identify(ctx: &Context, session: Arc<Session>) -> bool {
    of(ctx).is_some_and(|request| request.session.set(session).is_ok())
}

impl Request {
    pub(crate) fn id(&self) -> RequestId {
        RequestId(self.number)
    }

    /// The trace it belongs to: the caller's if it sent one, otherwise one of its own.
    pub(crate) fn trace_id(&self) -> String {
        match &self.trace {
            Some(trace) => format!("{:032x}", u128::from_be_bytes(trace.parent().trace_id())),
            None => format!("{:016x}{:016x}", process(), self.number),
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.get().map(|session| &**session)
    }

    /// Where lines about it go.
    pub(crate) fn log(&self) -> &dyn Handler {
        &*self.log
    }

    /// The server answers in the handler's place: whatever the handler may still say, nobody is told.
    pub(crate) fn stand_in(&self) {
        self.stood_in.store(true, Ordering::Relaxed);
    }

    /// Whether it was answered in the handler's place.
    pub(crate) fn is_stood_in(&self) -> bool {
        self.stood_in.load(Ordering::Relaxed)
    }

    /// The `Accept` it came with.
    pub(crate) fn accept(&self) -> &str {
        self.accept
            .as_ref()
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or("")
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
