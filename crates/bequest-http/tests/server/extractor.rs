//! The axum extractor, and modes set for one route of a router.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bequest::{Context, Reason};
use bequest_http::axum::{Ctx, MissingContext};
use bequest_http::server::{Disconnect, DisconnectLayer, Peer, PeerState};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::common::{Http1, TestServer, guard, until};

#[tokio::test]
async fn the_extractors_give_the_context_of_the_request_and_its_peer() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(move |Ctx(ctx): Ctx, peer: Peer| async move {
            assert_eq!(peer.state(), PeerState::Open);
            tell.send(ctx.clone()).expect("the test listens");
            ctx.check().map(|()| "live").unwrap_or("ended")
        }),
    );
    let server = TestServer::start(app).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    assert_eq!(client.answer().await.body, "live");
    let ctx = told.recv().await.expect("a context");
    assert_eq!(guard("the end", ctx.done()).await.reason(), Reason::ResponseEnded);
}

#[tokio::test]
async fn a_request_from_elsewhere_is_a_clear_500() {
    let app = Router::new().route("/", get(|Ctx(_): Ctx| async { "never" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let mut client = Http1::connect(addr).await;
    client.request("GET", "/").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body), (500, MissingContext.to_string()));
    server.abort();
}

#[tokio::test]
async fn a_route_may_detach_beside_one_that_does_not() {
    let (tell, mut told) = mpsc::unbounded_channel::<(&'static str, Context)>();
    let route = |name: &'static str| {
        let tell = tell.clone();
        get(move |Ctx(ctx): Ctx| async move {
            tell.send((name, ctx)).expect("the test listens");
            std::future::pending::<()>().await
        })
    };
    let detach = DisconnectLayer::new(Disconnect::Detach(Duration::from_secs(60)));
    let app = Router::new()
        .route("/job", route("job").layer(detach))
        .route("/page", route("page"));
    let server = TestServer::start(app).await;
    let mut contexts = Vec::new();
    for path in ["/job", "/page"] {
        let mut client = Http1::connect(server.addr).await;
        client.request("GET", path).await;
        contexts.push(guard("the handler", told.recv()).await.expect("a context"));
    }
    until("both to linger", || {
        let counted = server.statistics.snapshot();
        (counted.detached, counted.in_grace) == (1, 1)
    })
    .await;
    let [(_, job), (_, page)] = &contexts[..] else {
        unreachable!()
    };
    assert!(!job.is_done());
    assert_eq!(page.err().expect("ended").reason(), Reason::ClientGone);
}
