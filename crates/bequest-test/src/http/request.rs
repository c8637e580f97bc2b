//! Requests in memory.

use bequest::Context;
use bytes::Bytes;
use http::request::Builder;
use http::{Method, Request};
use http_body_util::{Empty, Full};

/// A builder of a request that carries `ctx` among its extensions, where handlers look for it.
///
/// ```
/// use bequest::Context;
///
/// let ctx = Context::background().with_cancel();
/// let request = bequest_test::http::request(&ctx)
///     .method("PUT")
///     .uri("/store?key=report")
///     .header("x-trace", "7")
///     .body(())
///     .unwrap();
/// ctx.cancel();
/// assert!(request.extensions().get::<Context>().unwrap().is_done());
/// ```
pub fn request(ctx: &Context) -> Builder {
    Request::builder().extension(ctx.clone())
}

/// A `GET` request that carries `ctx`, without a body.
///
/// ```
/// # use bequest::Context;
/// let request = bequest_test::http::get(&Context::background(), "/search?q=golang");
/// assert_eq!(request.uri().query(), Some("q=golang"));
/// assert!(request.extensions().get::<Context>().is_some());
/// ```
///
/// # Panics
///
/// If `uri` is not one.
#[track_caller]
pub fn get(ctx: &Context, uri: &str) -> Request<Empty<Bytes>> {
    build(request(ctx).uri(uri), uri, Empty::new())
}

/// A `POST` request that carries `ctx`, with this body.
///
/// ```
/// # use bequest::Context;
/// let request = bequest_test::http::post(&Context::background(), "/jobs", "{}");
/// assert_eq!(request.method(), http::Method::POST);
/// ```
///
/// # Panics
///
/// If `uri` is not one.
#[track_caller]
pub fn post(ctx: &Context, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let builder = request(ctx).method(Method::POST).uri(uri);
    build(builder, uri, Full::new(body.into()))
}

#[track_caller]
fn build<B>(builder: Builder, uri: &str, body: B) -> Request<B> {
    match builder.body(body) {
        Ok(request) => request,
        Err(error) => panic!("no request can be made for {uri:?}: {error}"),
    }
}
