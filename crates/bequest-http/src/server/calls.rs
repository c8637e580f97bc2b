//! What hyper calls for HTTP/1: one request after the other of a connection, each on its way through its handler.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bequest::Canceled;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;

use super::body::ResponseBody;
use super::connection::Connection;
use super::incoming::Incoming;
use super::service::{App, Exchanging};

/// What a connection of HTTP/1 gives to hyper.
pub(super) struct ConnectionService<S> {
    conn: Arc<Connection>,
    service: S,
}

/// One request of a connection on its way through its handler.
pub(super) struct Serving<B: Send + 'static>(Exchanging<B>);

/// Why there is no answer: there is nobody to give it to. The connection is closed or the stream reset on it.
#[derive(Debug)]
pub(super) struct Abandoned(pub(super) Canceled);

impl<S> ConnectionService<S> {
    pub(super) fn new(conn: Arc<Connection>, service: S) -> ConnectionService<S> {
        ConnectionService { conn, service }
    }
}

impl<S: App> hyper::service::Service<Request<hyper::body::Incoming>> for ConnectionService<S> {
    type Response = Response<ResponseBody<S::Body>>;
    type Error = Abandoned;
    type Future = Serving<S::Body>;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Serving<S::Body> {
        self.conn.glance();
        let (head, body) = request.into_parts();
        let request = Incoming::of_http1(body).under(head);
        Serving(Exchanging::begin(&self.conn, self.service.clone(), request))
    }
}

impl<B> Future for Serving<B>
where
    B: Body + Send + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, Abandoned>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        // Changed where it is, as it is large.
        let mut answer = Pin::new(&mut self.0).poll(cx);
        if let Poll::Ready(Ok(response)) = &mut answer {
            say_goodbye(response);
        }
        answer
    }
}

/// There is no other goodbye on HTTP/1: a client that hears it sends its next request elsewhere, and not into a
/// connection that is being closed.
fn say_goodbye<B>(response: &mut Response<ResponseBody<B>>) {
    let conn = response.body().exchange().conn();
    if conn.server().draining.is_done() && !conn.switches() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request abandoned: {}", self.0)
    }
}

impl std::error::Error for Abandoned {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
