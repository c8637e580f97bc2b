//! What a program adds to each request's context, and what it answers in a handler's place.

use bequest::{Context, Key};
use bequest_http::server::{RequestBody, Server, StandIn, WhyStandIn, service_fn};
use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::common::{Http1, Http2, TestServer, full};

static NAME: Key<String> = Key::new("name");

/// Puts the header `name` into the context.
fn named(ctx: Context, head: &http::request::Parts) -> Context {
    match head.headers.get("name").and_then(|name| name.to_str().ok()) {
        Some(name) => ctx.with_value(&NAME, name.to_owned()),
        None => ctx,
    }
}

/// Says who asked, and why there is no better answer.
fn excuse(missing: &StandIn<'_>) -> Response<Bytes> {
    let name = missing.context.value(&NAME).map_or("nobody", String::as_str);
    let place = match missing.why {
        WhyStandIn::Panicked(panic) => panic.place().map_or("", |place| place.file()),
        _ => "",
    };
    let file = place.rsplit('/').next().unwrap_or("");
    let text = format!(
        "{name}: {} {} ({}) {file}",
        missing.method,
        missing.uri.path(),
        missing.why
    );
    let mut answer = Response::new(Bytes::from(text));
    *answer.status_mut() = missing.status;
    answer.headers_mut().insert("x-excuse", missing.conn.id().into());
    answer
}

fn panicking(_: Request<RequestBody>) -> std::future::Ready<Response<String>> {
    panic!("out of order")
}

#[tokio::test]
async fn values_of_the_head_reach_the_handler_and_the_stand_in() {
    let service = service_fn(|request: Request<RequestBody>| async move {
        assert_ne!(request.uri().path(), "/broken", "this one is not answered");
        let ctx = request.extensions().get::<Context>().expect("a context");
        full(ctx.value(&NAME).cloned().unwrap_or_else(|| "nobody".to_owned()))
    });
    let builder = Server::builder()
        .request_context(|ctx, head, _| named(ctx, head))
        .stand_in(excuse);
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("GET / HTTP/1.1\r\nhost: test\r\nname: ann\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.body, "ann");
    client.request("GET", "/").await;
    assert_eq!(client.answer().await.body, "nobody", "each request has its own");
    client
        .send("GET /broken HTTP/1.1\r\nhost: test\r\nname: ben\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("x-excuse"), Some("1"));
    assert_eq!(answer.body, "ben: GET /broken (the handler panicked) stand_in.rs");
    server.stop().await;
}

#[tokio::test]
async fn a_stand_in_that_panics_leaves_the_short_text() {
    let builder = Server::builder().stand_in(|_| panic!("no excuse either"));
    let server = TestServer::with(builder, Context::background(), service_fn(panicking)).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (500, "the handler panicked")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_stand_in_is_given_on_http2_as_well() {
    let builder = Server::builder().stand_in(excuse);
    let server = TestServer::with(builder, Context::background(), service_fn(panicking)).await;
    let client = Http2::connect(server.addr).await;
    let (status, text) = client.request("/x").await.answer().await.expect("an answer");
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "nobody: GET /x (the handler panicked) stand_in.rs");
    server.stop().await;
}
