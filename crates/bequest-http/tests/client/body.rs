//! The body of an answer, when nobody reads it and when its end is near.

use bequest::Context;
use bequest_http::client::Client;
use http_body::Body;
use http_body_util::BodyExt;

use super::support::{Peer, get, guard, outcome, start, text};

#[tokio::test]
async fn a_body_that_nobody_polls_is_given_up_as_soon_as_its_context_ends() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let unread = outcome(task).await.unwrap();
    caller.cancel();
    conn.closed().await;
    drop(unread);
}

#[tokio::test]
async fn a_body_that_is_dropped_is_given_up() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let task = start(&client, &Context::background(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    drop(outcome(task).await.unwrap());
    conn.closed().await;
}

#[tokio::test]
async fn an_answer_that_is_complete_stays_complete() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("whole").await;
    let mut body = outcome(task).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    let frame = guard("the body", body.frame()).await.unwrap().unwrap();
    caller.cancel();
    assert_eq!(frame.into_data().unwrap(), "whole");
    assert!(body.is_end_stream());
    assert!(
        guard("the end", body.frame()).await.is_none(),
        "no error after the last byte"
    );
}

#[tokio::test]
async fn an_answer_without_a_body_is_at_its_end() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    let response = outcome(task).await.unwrap();
    caller.cancel();
    assert_eq!(text(response).await.unwrap(), "");
}

#[tokio::test]
async fn a_helper_may_not_end_the_scope_of_the_body_it_returns() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let scope = Context::background().with_cancel();
    let task = start(&client, &scope, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = outcome(task).await.unwrap();
    drop(scope);
    let error = text(response).await.unwrap_err();
    assert!(
        error.to_string().contains("scope ended (made at "),
        "it says where: {error}"
    );
}

#[tokio::test]
async fn a_peer_that_breaks_off_is_no_end_of_the_context() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let task = start(&client, &Context::background(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = outcome(task).await.unwrap();
    drop(conn);
    let error = text(response).await.unwrap_err();
    assert!(error.canceled().is_none() && !error.is_timeout(), "{error}");
}
