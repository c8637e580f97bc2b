//! What hyper calls for HTTP/1: one request after the other of a connection, each on its way through its handler.

use std::fmt;
use std::sync::Arc;

use bequest::Canceled;
use http::{Request, Response};

use super::body::ResponseBody;
use super::connection::Connection;
use super::incoming::Incoming;
use super::service::{App, Exchanging};

/// What a connection of HTTP/1 gives to hyper.
pub(super) struct ConnectionService<S> {
    conn: Arc<Connection>,
    service: S,
}

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
    type Future = Exchanging<S::Body>;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Exchanging<S::Body> {
        self.conn.glance();
        let (head, body) = request.into_parts();
        let request = Incoming::of_http1(body).under(head);
        Exchanging::begin(&self.conn, self.service.clone(), request)
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
