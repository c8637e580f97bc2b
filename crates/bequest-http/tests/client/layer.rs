//! The layer, around hyper's bare client.

use bequest::{Context, Reason};
use bequest_http::client::{ContextLayer, Step};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_layer::Layer;
use tower_service::Service;

use super::support::{Peer, get, guard};

fn bare() -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

#[tokio::test]
async fn a_wrapped_client_ends_and_tells_as_ours_does() {
    let mut client = ContextLayer::default().layer(bare());
    let peer = Peer::start().await;
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(std::time::Duration::from_secs(5));
    let mut request = get(peer.url("/"));
    request.extensions_mut().insert(caller.context());
    let task = tokio::spawn(client.call(request));
    let mut conn = peer.accept().await;
    let head = conn.head().await;
    assert!(head.contains("bequest-timeout-ms: 4995\r\n"), "{head}");
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let mut body = guard("a head", task).await.unwrap().unwrap().into_body();
    guard("half a body", body.frame()).await.unwrap().unwrap();
    caller.cancel_for(Reason::ClientGone);
    let error = guard("the end", body.frame()).await.unwrap().unwrap_err();
    assert_eq!(
        (error.step(), error.canceled().unwrap().reason()),
        (Step::Reading, Reason::ClientGone)
    );
    conn.closed().await;
}

#[tokio::test]
async fn a_wrapped_client_is_let_go_of_before_the_head_too() {
    let mut client = ContextLayer::default().layer(bare());
    let peer = Peer::start().await;
    let caller = Context::background().with_cancel();
    let mut request = get(peer.url("/"));
    request.extensions_mut().insert(caller.context());
    let task = tokio::spawn(client.call(request));
    let mut conn = peer.accept().await;
    conn.head().await;
    caller.cancel();
    let error = guard("the end", task).await.unwrap().unwrap_err();
    assert_eq!(error.step(), Step::Sending);
    conn.closed().await;
}

#[tokio::test]
async fn without_a_context_it_is_the_bare_client() {
    let mut client = ContextLayer::default().layer(bare());
    let peer = Peer::start().await;
    let task = tokio::spawn(client.call(get(peer.url("/"))));
    let mut conn = peer.accept().await;
    let head = conn.head().await;
    assert!(!head.contains("timeout"), "{head}");
    conn.answer("hello").await;
    let response = guard("an answer", task).await.unwrap().unwrap();
    let body = guard("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
}
