//! Dials that outlive their requests.

use std::time::Duration;

use bequest::Context;
use bequest_http::client::{Client, Limits, Step};
use tokio::io::AsyncWriteExt;

use super::support::{Gated, Peer, get, guard, outcome, start, text};

/// A client whose first request was given up while it dialled.
async fn given_up(peer: &Peer, limits: Limits) -> (Client<Gated>, Gated) {
    let connector = Gated::shut();
    let client = Client::builder().limits(limits).build_with(connector.clone());
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/given-up")));
    connector.begins().await;
    caller.cancel();
    let error = outcome(task).await.unwrap_err();
    assert_eq!(error.step(), Step::Dialling);
    (client, connector)
}

#[tokio::test]
async fn h3_the_dial_of_a_cancelled_request_goes_on_and_is_pooled() {
    let peer = Peer::start().await;
    let (client, connector) = given_up(&peer, Limits::default()).await;
    connector.open();
    let mut conn = peer.accept().await;
    let task = start(&client, &Context::background(), get(peer.url("/next")));
    assert!(
        conn.head().await.starts_with("get /next "),
        "it comes on what was dialled"
    );
    conn.answer("hello").await;
    assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "hello");
    assert_eq!(connector.dials(), 1);
}

#[tokio::test]
async fn h3_a_dial_under_way_is_taken_over() {
    let peer = Peer::start().await;
    let (client, connector) = given_up(&peer, Limits::default()).await;
    let task = start(&client, &Context::background(), get(peer.url("/next")));
    tokio::task::yield_now().await;
    connector.open();
    let mut conn = peer.accept().await;
    assert!(conn.head().await.starts_with("get /next "));
    conn.answer("hello").await;
    assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "hello");
    assert_eq!(connector.dials(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closes_or_speaks_on_is_not_used() {
    for says_something in [false, true] {
        let peer = Peer::start().await;
        let (client, connector) = given_up(&peer, Limits::default()).await;
        connector.open();
        let mut conn = peer.accept().await;
        match says_something {
            true => conn.send("HTTP/1.1 408 Request Timeout\r\n\r\n").await,
            false => conn.stream.shutdown().await.unwrap(),
        }
        conn.closed().await;
        let task = start(&client, &Context::background(), get(peer.url("/next")));
        let mut conn = peer.accept().await;
        conn.head().await;
        conn.answer("hello").await;
        assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "hello");
        assert_eq!(connector.dials(), 2);
    }
}

#[tokio::test]
async fn a_kept_connection_is_closed_when_its_time_is_over() {
    let peer = Peer::start().await;
    let limits = Limits {
        idle: Duration::from_millis(1),
        ..Limits::default()
    };
    let (_client, connector) = given_up(&peer, limits).await;
    connector.open();
    peer.accept().await.closed().await;
}

#[tokio::test]
async fn nothing_is_kept_beyond_the_cap() {
    let peer = Peer::start().await;
    let limits = Limits {
        idle_per_host: 0,
        ..Limits::default()
    };
    let (_client, connector) = given_up(&peer, limits).await;
    connector.open();
    peer.accept().await.closed().await;
}

#[tokio::test]
async fn what_was_kept_goes_with_its_client() {
    let peer = Peer::start().await;
    let (client, connector) = given_up(&peer, Limits::default()).await;
    connector.open();
    let mut conn = peer.accept().await;
    drop(client);
    conn.closed().await;
}

#[tokio::test]
async fn a_dial_has_a_limit_of_its_own() {
    let peer = Peer::start().await;
    let connector = Gated::shut();
    let limits = Limits {
        connect: Duration::from_millis(1),
        ..Limits::default()
    };
    let client = Client::builder().limits(limits).build_with(connector.clone());
    let caller = Context::background();
    let error = guard("the limit", client.send(&caller, get(peer.url("/"))))
        .await
        .unwrap_err();
    assert_eq!(error.step(), Step::Dialling);
    assert!(error.is_connect() && !error.used_up_budget(&caller), "{error}");
}

#[tokio::test]
async fn requests_that_wait_for_one_dial_survive_the_one_that_began_it() {
    let (service, url) = super::http2::server().await;
    let connector = Gated::shut();
    let client = Client::builder().http2().build_with(connector.clone());
    let caller = Context::background().with_cancel();
    let first = start(&client, &caller, get(url.clone()));
    connector.begins().await;
    let second = start(&client, &Context::background(), get(format!("{url}now")));
    tokio::task::yield_now().await;
    caller.cancel();
    assert_eq!(outcome(first).await.unwrap_err().step(), Step::Dialling);
    connector.open();
    assert_eq!(text(outcome(second).await.unwrap()).await.unwrap(), "now");
    assert_eq!(connector.dials(), 1, "and it is the same dial");
    drop(service);
}
