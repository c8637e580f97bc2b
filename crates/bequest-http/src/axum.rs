//! The context of a request, and its [`Peer`], as axum extractors.

use axum::extract::FromRequestParts;
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use bequest::Context;

use crate::server::{ConnInfo, Peer};

/// The context of the request, as an argument of a handler.
///
/// ```
/// use axum::{Router, routing::get};
/// use bequest_http::axum::Ctx;
///
/// async fn report(Ctx(ctx): Ctx) -> String {
///     format!("{:?} left", ctx.remaining())
/// }
///
/// let app: Router = Router::new().route("/report", get(report));
/// ```
///
/// # Errors
///
/// A request that did not come through this crate's server has no context. Then the answer is 500, with a text that says
/// so: [`MissingContext`].
#[derive(Clone, Debug)]
pub struct Ctx(pub Context);

/// The request has no context, because it did not come through this crate's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingContext;

impl<S: Sync> FromRequestParts<S> for Ctx {
    type Rejection = MissingContext;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Ctx, MissingContext> {
        parts
            .extensions
            .get::<Context>()
            .cloned()
            .map(Ctx)
            .ok_or(MissingContext)
    }
}

/// The client behind the request, as an argument of a handler.
impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = MissingContext;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Peer, MissingContext> {
        parts.extensions.get::<Peer>().cloned().ok_or(MissingContext)
    }
}

/// The connection on which the request came, as an argument of a handler.
impl<S: Sync> FromRequestParts<S> for ConnInfo {
    type Rejection = MissingContext;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<ConnInfo, MissingContext> {
        let peer = parts.extensions.get::<Peer>();
        peer.map(|peer| peer.conn().clone()).ok_or(MissingContext)
    }
}

impl IntoResponse for MissingContext {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

impl std::fmt::Display for MissingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no context in this request: it is not served by bequest_http::Server")
    }
}

impl std::error::Error for MissingContext {}
