//! What hyper calls: one request after the other of a connection, each on its way through its handler, or refused.
//!
//! # Invariants
//!
//! 1. A connection never has more handlers than its caps allow together, whatever its client resets; those aside that other
//!    threads are dropping at that moment.
//! 2. Who is refused is told that nothing was begun, and so may ask again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll};

use bequest::Canceled;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;

use super::body::ResponseBody;
use super::connection::Connection;
use super::service::{App, Exchanging};

/// What one connection gives to hyper.
pub(super) struct ConnectionService<S> {
    conn: Arc<Connection>,
    service: S,
}

/// One request of a connection: on its way through its handler, or refused.
pub(super) struct Serving<B: Send + 'static>(Option<Exchanging<B>>);

/// Why there is no answer. hyper closes the connection or resets the stream on it.
#[derive(Debug)]
pub(super) enum Abandoned {
    /// There is nobody to answer.
    Ended(Canceled),
    /// There are too many handlers. As hyper finds this error, the client is told that it may ask again.
    Refused(h2::Error),
}

impl<S> ConnectionService<S> {
    pub(super) fn new(conn: Arc<Connection>, service: S) -> ConnectionService<S> {
        ConnectionService { conn, service }
    }
}

impl<S: App> hyper::service::Service<Request<Incoming>> for ConnectionService<S> {
    type Response = Response<ResponseBody<S::Body>>;
    type Error = Abandoned;
    type Future = Serving<S::Body>;

    fn call(&self, request: Request<Incoming>) -> Serving<S::Body> {
        if self.conn.is_full() {
            let refused = &self.conn.server().tally.refused_streams;
            refused.fetch_add(1, Relaxed);
            return Serving(None);
        }
        self.conn.glance();
        let service = self.service.clone();
        Serving(Some(Exchanging::begin(&self.conn, service, request, true)))
    }
}

impl<B> Future for Serving<B>
where
    B: Body + Send + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, Abandoned>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(exchanging) => {
                // Changed where it is, as it is large.
                let mut answer = Pin::new(exchanging).poll(cx);
                if let Poll::Ready(Ok(response)) = &mut answer {
                    say_goodbye(response);
                }
                answer
            }
            None => Poll::Ready(Err(Abandoned::Refused(h2::Reason::REFUSED_STREAM.into()))),
        }
    }
}

/// HTTP/1 has no goodbye but that of an answer: a client that hears it sends its next request elsewhere, and not into a
/// connection that is being closed.
fn say_goodbye<B>(response: &mut Response<ResponseBody<B>>) {
    let conn = response.body().exchange().conn();
    if !conn.is_http2() && conn.server().draining.is_done() && !conn.switches() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Abandoned::Ended(end) => write!(f, "request abandoned: {end}"),
            Abandoned::Refused(_) => f.write_str("request refused: too many handlers"),
        }
    }
}

impl std::error::Error for Abandoned {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Abandoned::Ended(end) => Some(end),
            Abandoned::Refused(error) => Some(error),
        }
    }
}
