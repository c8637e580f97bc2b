//! Driving the engine of one connection: to its end, to a limit, or through the drain.
//!
//! # Invariants
//!
//! 1. Limits are looked at by a slow tick, not by a timer for each request. The tick is no longer than the shortest of
//!    them, and when it finds less time gone than the limit it sleeps for the exact rest, so none is ever late.
//! 2. A client that has left, a header that is late, writes that stall and too many resets are not worth an orderly close.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;

use super::BoxError;
use super::attend::Attendant;
use super::bell::{Either, beside};
use super::connection::{Connection, FRESH};
use super::silence;
use super::wire::Wire;

/// Why an engine is not polled any more.
pub(super) enum Over {
    /// It finished by itself.
    Finished(Result<(), BoxError>),
    /// A limit passed.
    Limit(&'static str),
    /// The client takes nothing more, or has closed what can not be half-closed.
    Departed,
}

/// The limit on streams that are reset.
pub(super) const RESETS: &str = "resets";

/// What speaks the protocol of a connection.
pub(super) trait Engine: Future<Output = Result<(), Self::Error>> {
    type Error: Into<BoxError>;

    /// Lets it take no further requests, and end once those in flight are answered.
    fn close(self: Pin<&mut Self>);
}

/// Polls an engine to its end, to a limit, or through the drain.
pub(super) async fn drive<H: Engine>(
    conn: &Connection,
    mut http: Pin<&mut H>,
    mut attendant: Attendant,
) -> Over {
    let limits = &conn.server().limits;
    let sides = async {
        tokio::select! {
            biased;
            () = conn.departure_seen() => Some(departed(conn)),
            limit = limit_passed(conn, limits.idle) => Some(Over::Limit(limit)),
            _ = conn.server().draining.done() => None,
        }
    };
    let over = match beside(attendant.attend(http.as_mut()), sides).await {
        Either::Main(result) => Some(Over::finished(result)),
        Either::Side(over) => over,
    };
    if let Some(
        over @ (Over::Finished(_) | Over::Departed | Over::Limit("header" | "write stall" | RESETS)),
    ) = over
    {
        return over;
    }
    // Of HTTP/2 the goodbye says which requests are still answered.
    if over.is_none() && !conn.is_http2() {
        if let Some(over) = ask_once_more(conn, http.as_mut(), &mut attendant).await {
            return over;
        }
        // hyper would close an idle connection without a look at what has come on it.
        let taken = attendant.take_in(http.as_mut());
        if let Ok(Some(result)) = conn.server().clock.timeout(FRESH, taken).await {
            return Over::finished(result);
        }
    }
    http.as_mut().close();
    if over.is_none() {
        conn.end_tunnels();
    }
    conn.restart_idle();
    let sides = async {
        tokio::select! {
            biased;
            () = conn.departure_seen() => departed(conn),
            limit = limit_passed(conn, limits.drain_grace) => Over::Limit(limit),
        }
    };
    let last = match beside(attendant.attend(http.as_mut()), sides).await {
        Either::Main(result) => Over::finished(result),
        Either::Side(over) => over,
    };
    over.unwrap_or(last)
}

impl Over {
    fn finished<E: Into<BoxError>>(result: Result<(), E>) -> Over {
        Over::Finished(result.map_err(Into::into))
    }
}

/// Why nothing can be answered any more, or is to be.
fn departed(conn: &Connection) -> Over {
    match conn.is_flooded() {
        true => Over::Limit(RESETS),
        false => Over::Departed,
    }
}

/// Lets the client of HTTP/1 ask once more; what it is answered says goodbye, and the engine closes behind that. `None`: it has asked
/// for nothing.
async fn ask_once_more<H: Engine>(
    conn: &Connection,
    http: Pin<&mut H>,
    attendant: &mut Attendant,
) -> Option<Over> {
    let longest = conn.server().limits.drain_idle;
    if longest.is_zero() || conn.is_busy() {
        return None;
    }
    conn.restart_idle();
    let sides = async {
        tokio::select! {
            biased;
            () = conn.departure_seen() => departed(conn),
            limit = limit_passed(conn, longest) => Over::Limit(limit),
        }
    };
    match beside(attendant.attend(http), sides).await {
        Either::Main(result) => Some(Over::finished(result)),
        Either::Side(Over::Limit("idle")) => None,
        Either::Side(over) => Some(over),
    }
}

/// No limit is looked at more often than this.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// Waits until a limit of the connection has passed, and says which.
async fn limit_passed(conn: &Connection, idle: Duration) -> &'static str {
    let limits = &conn.server().limits;
    let mut tick = limits.header.min(idle).min(limits.write_stall);
    if conn.server().draining.is_done() {
        tick = tick.min(limits.answer).max(SHORTEST_TICK);
    }
    loop {
        match conn.nearest_limit(idle) {
            Some((Duration::ZERO, name)) => {
                if name == "write stall" {
                    // Then that is the reason.
                    silence::finds_lost(conn);
                }
                return name;
            }
            nearest => {
                let rest = nearest.map_or(tick, |(rest, _)| rest);
                conn.server().pause(rest.min(tick)).await;
            }
        }
    }
}

impl<S, B> Engine for http1::UpgradeableConnection<TokioIo<Wire>, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    type Error = hyper::Error;

    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
