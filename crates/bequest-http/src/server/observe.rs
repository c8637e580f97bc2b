//! Telling a program what its server sees: the access log and the metrics hang here.
//!
//! Here live the observer and what it is told. Formatting does not: that is the business of whoever writes the log.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bequest::{Canceled, Context};
use http::{Method, StatusCode, Uri, Version};

use super::BoxError;
use super::inbound::Refusal;
use super::panic::Panic;

/// What a program wants to hear from its server. Each method does nothing unless said otherwise.
///
/// The methods are called on the thread where the thing happened, often one that drives connections: they are to be
/// short and must not block. A panic in one is caught.
///
/// ```
/// use bequest_http::server::{Finished, Observer};
///
/// struct AccessLog;
///
/// impl Observer for AccessLog {
///     fn request_finished(&self, request: &Finished<'_>) {
///         eprintln!("{} {} {} {:?}", request.method, request.uri, request.logged_status(), request.elapsed);
///     }
/// }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted.
    fn connection_opened(&self, _conn: &ConnInfo) {}

    /// A connection is over, for this reason.
    fn connection_closed(&self, _conn: &ConnInfo, _end: &Canceled) {}

    /// A connection came no further than its TLS handshake: the client gave up or spoke something else, or a limit passed.
    /// Neither of the two above is told of it.
    fn handshake_failed(&self, _conn: &ConnInfo, _end: &Canceled) {}

    /// The operating system refused to give up a connection; the server pauses and tries again. Writes one line to the
    /// standard error stream.
    fn accept_failed(&self, error: &io::Error, pause: Duration) {
        eprintln!("bequest-http: accept failed, next try in {pause:?}: {error}");
    }

    /// The exchange with the client is over: answered to the end, or not.
    ///
    /// It is told once for each request. A handler that lingers may still be running then.
    fn request_finished(&self, _request: &Finished<'_>) {}

    /// A handler or the body of its response panicked. Writes one line to the standard error stream.
    fn panicked(&self, panic: &PanicReport<'_>) {
        eprintln!(
            "bequest-http: {} {}: handler {}",
            panic.method,
            panic.uri.path(),
            panic.panic
        );
    }

    /// A handler was dropped before it had finished.
    fn handler_dropped(&self, _dropped: &Dropped<'_>) {}
}

/// Hears nothing but what goes to the standard error stream.
impl Observer for () {}

/// A connection: its number, its two addresses, and with TLS what the handshake has shown. A request has it as
/// [`Peer::conn`](super::Peer::conn).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    pub(super) id: u64,
    pub(super) peer_addr: SocketAddr,
    pub(super) local_addr: SocketAddr,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<std::sync::Arc<super::tls::TlsInfo>>,
}

/// The listener whose server's context is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    pub(super) local_addr: SocketAddr,
}

/// How an exchange with a client ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// The connection it came on.
    pub conn: &'a ConnInfo,
    /// The request's context, with its values.
    pub context: &'a Context,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The request's version of HTTP.
    pub version: Version,
    /// The status of the answer. `None`: nothing was written.
    pub status: Option<StatusCode>,
    /// Whether the client had left, or closed its sending side, before the status was written: perhaps to nobody.
    pub late: bool,
    /// How many bytes of the response's body were handed to the connection.
    pub bytes: u64,
    /// From the end of the request's header until now.
    pub elapsed: Duration,
    /// Why the request's context ended; `ResponseEnded` if all is well.
    pub end: &'a Canceled,
}

/// A panic, and the request in which it happened.
#[derive(Debug)]
#[non_exhaustive]
pub struct PanicReport<'a> {
    /// The connection the request came on.
    pub conn: &'a ConnInfo,
    /// The request's context, with its values.
    pub context: &'a Context,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The message and the place.
    pub panic: &'a Panic,
}

/// An answer that the server gives in a handler's place; see [`Builder::stand_in`](super::Builder::stand_in).
#[derive(Debug)]
#[non_exhaustive]
pub struct StandIn<'a> {
    /// The connection the request came on.
    pub conn: &'a ConnInfo,
    /// The request's context, with its values.
    pub context: &'a Context,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The status that fits.
    pub status: StatusCode,
    /// Why the handler did not answer.
    pub why: WhyStandIn<'a>,
}

/// Why the server answers in a handler's place.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum WhyStandIn<'a> {
    /// The handler panicked.
    Panicked(&'a Panic),
    /// The service answered an error.
    Failed(&'a BoxError),
    /// The request's context ended, for another reason than that the client left, and the handler had not answered when
    /// the time to react to that was over.
    Ended(&'a Canceled),
    /// The handler was not begun: what the caller asks for is not worth beginning.
    Refused(Refusal),
}

/// A handler that was dropped before it had finished.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dropped<'a> {
    /// The connection the request came on.
    pub conn: &'a ConnInfo,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// Why it was not waited for any longer.
    pub why: WhyDropped,
}

/// Why a handler was not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhyDropped {
    /// Its route has no grace: [`Disconnect::Drop`](super::Disconnect::Drop).
    NoGrace,
    /// It was told, and did not end within its grace.
    GraceOver,
    /// Too many handlers were lingering already.
    TooManyLinger,
    /// The shutdown of the server had come to its last step.
    Shutdown,
}

/// The status that stands in logs and metrics for "the client left, nothing was written".
///
/// It is never sent. The number is the one nginx made customary.
pub fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is within the range of status codes")
}

impl ConnInfo {
    pub(super) fn new(id: u64, peer_addr: SocketAddr, local_addr: SocketAddr) -> ConnInfo {
        ConnInfo {
            id,
            peer_addr,
            local_addr,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The connection's number, unique within its server; 0 where nothing is known of it, as somebody else's accept loop has
    /// not introduced it ([`Layers`](super::Layers)).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client's address; unspecified where nothing is known of it.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// The address on which the client reached us.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

#[cfg(feature = "tls")]
impl ConnInfo {
    /// What the TLS handshake has shown; `None` without TLS.
    pub fn tls(&self) -> Option<&super::TlsInfo> {
        self.tls.as_deref()
    }
}

impl ListenerInfo {
    /// The address on which the listener accepts.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Finished<'_> {
    /// Whether the client left, or reset the stream, before the answer was complete.
    pub fn client_left(&self) -> bool {
        self.end.reason().is_departure()
    }

    /// The status for a log line: the one that was written; 499 if the client left before one was, or was seen to close its
    /// sending side before; 503 if the server ended the exchange without an answer.
    pub fn logged_status(&self) -> StatusCode {
        match self.status {
            _ if self.late => client_closed_request(),
            Some(status) => status,
            None if self.client_left() => client_closed_request(),
            None => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for WhyStandIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyStandIn::Panicked(_) => "the handler panicked",
            WhyStandIn::Failed(_) => "the service failed",
            WhyStandIn::Ended(end) if end.is_timeout() => "the request took too long",
            WhyStandIn::Ended(_) => "the request was cancelled",
            WhyStandIn::Refused(refusal) => return fmt::Display::fmt(refusal, f),
        })
    }
}

impl fmt::Display for WhyDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyDropped::NoGrace => "its route has no grace",
            WhyDropped::GraceOver => "its grace is over",
            WhyDropped::TooManyLinger => "too many handlers linger",
            WhyDropped::Shutdown => "the server has shut down",
        })
    }
}
