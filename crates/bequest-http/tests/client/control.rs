//! The negative control: hyper's bare client, which ends its wait by a context and leaves the rest as it is.

use bequest::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::support::{Gated, Peer, get, guard};

#[tokio::test]
async fn h1_control_a_bare_body_outlives_its_context() {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let peer = Peer::start().await;
    let caller = Context::background().with_cancel();
    let ctx = caller.context();
    let request = get(peer.url("/"));
    let task = tokio::spawn(async move { ctx.run(client.request(request)).await });
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")
        .await;
    let response = guard("a head", task).await.unwrap().unwrap().unwrap();
    let mut body = response.into_body();
    guard("half a body", body.frame()).await.unwrap().unwrap();
    caller.cancel();
    conn.send("rest").await;
    let rest = guard("the rest", body.frame()).await.unwrap();
    assert_eq!(rest.unwrap().into_data().unwrap(), "rest", "nobody told it");
}

#[tokio::test]
async fn h3_control_a_bare_dial_is_given_up_with_its_request() {
    let connector = Gated::shut();
    let client: Client<Gated, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector.clone());
    let peer = Peer::start().await;
    let caller = Context::background().with_cancel();
    let (ctx, first, request) = (caller.context(), client.clone(), get(peer.url("/given-up")));
    let task = tokio::spawn(async move { ctx.run(first.request(request)).await });
    connector.begins().await;
    caller.cancel();
    assert!(guard("the end", task).await.unwrap().is_err());
    connector.open();
    let next = tokio::spawn(client.request(get(peer.url("/next"))));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("hello").await;
    guard("an answer", next).await.unwrap().unwrap();
    assert_eq!(connector.dials(), 2, "the first was for nothing");
}

#[tokio::test]
async fn h13_control_a_bare_client_tells_no_deadline() {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let peer = Peer::start().await;
    let caller = Context::background().with_timeout(std::time::Duration::from_secs(5));
    let (ctx, request) = (caller.context(), get(peer.url("/")));
    let task = tokio::spawn(async move { ctx.run(client.request(request)).await });
    let head = peer.accept().await.head().await;
    assert!(!head.contains("timeout"), "{head}");
    task.abort();
}

#[tokio::test]
async fn h3_control_bare_requests_fail_with_the_one_that_dials() {
    let connector = Gated::shut();
    let client: Client<Gated, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector.clone());
    let (_service, url) = super::http2::server().await;
    let caller = Context::background().with_cancel();
    let (ctx, first, request) = (caller.context(), client.clone(), get(url.clone()));
    let first = tokio::spawn(async move { ctx.run(first.request(request)).await });
    connector.begins().await;
    let second = tokio::spawn(client.request(get(format!("{url}now"))));
    tokio::task::yield_now().await;
    caller.cancel();
    assert!(guard("the end", first).await.unwrap().is_err());
    connector.open();
    assert!(
        guard("an outcome", second).await.unwrap().is_err(),
        "nobody had cancelled it"
    );
}
