//! Go's client behaviours, on HTTP/1 where the protocol matters; `http2.rs` has the other side.

use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::client::{Client, Limits, Step};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Channel};

use super::support::{Gated, Peer, get, guard, outcome, start, text};

#[tokio::test]
async fn h1_the_context_governs_the_body_too() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let mut body = outcome(task).await.expect("a head").into_body();
    let first = guard("half a body", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "half");
    caller.cancel_for(Reason::ClientGone);
    let error = guard("the body to end", body.frame()).await.unwrap().unwrap_err();
    assert_eq!(error.step(), Step::Reading);
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert!(guard("the end", body.frame()).await.is_none(), "it fails once");
    conn.closed().await;
}

#[tokio::test]
async fn h2_a_context_that_has_ended_sends_and_dials_nothing() {
    let connector = Gated::shut();
    connector.open();
    let client = Client::builder().build_with(connector.clone());
    let peer = Peer::start().await;
    let caller = Context::background().with_cancel();
    caller.cancel();
    let error = client.send(&caller, get(peer.url("/never"))).await.unwrap_err();
    assert_eq!(
        (error.step(), error.canceled().unwrap().kind()),
        (Step::Waiting, Kind::Canceled)
    );
    assert_eq!(connector.dials(), 0);

    let alive = Context::background();
    let task = start(&client, &alive, get(peer.url("/alive")));
    assert!(
        peer.accept().await.head().await.starts_with("get /alive "),
        "the first to be seen"
    );
    task.abort();
}

#[tokio::test]
async fn h4_cancel_while_waiting_for_the_head() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    caller.cancel_with("not needed");
    let error = outcome(task).await.unwrap_err();
    assert_eq!(error.step(), Step::Answering);
    assert_eq!(
        error.canceled().unwrap().cause().unwrap().to_string(),
        "not needed"
    );
    conn.closed().await;
}

#[tokio::test]
async fn h5_leaving_the_queue_of_a_host_frees_the_place() {
    let limits = Limits {
        exchanges_per_host: 1,
        ..Limits::default()
    };
    let client = Client::builder().limits(limits).build();
    let peer = Peer::start().await;
    let (first, second, third) = (
        Context::background().with_cancel(),
        Context::background().with_cancel(),
        Context::background().with_cancel(),
    );
    let served = start(&client, &first, get(peer.url("/1")));
    let mut conn = peer.accept().await;
    assert!(conn.head().await.starts_with("get /1 "));
    let leaves = start(&client, &second, get(peer.url("/2")));
    let stays = start(&client, &third, get(peer.url("/3")));
    tokio::task::yield_now().await;
    second.cancel();
    let error = outcome(leaves).await.unwrap_err();
    assert_eq!(error.step(), Step::Waiting);

    conn.answer("one").await;
    assert_eq!(text(outcome(served).await.unwrap()).await.unwrap(), "one");
    assert!(
        conn.head().await.starts_with("get /3 "),
        "next in the queue, on the same connection"
    );
    conn.answer("three").await;
    assert_eq!(text(outcome(stays).await.unwrap()).await.unwrap(), "three");
}

#[tokio::test]
async fn h5_another_host_has_a_queue_of_its_own() {
    let limits = Limits {
        exchanges_per_host: 1,
        ..Limits::default()
    };
    let client = Client::builder().limits(limits).build();
    let (one, two) = (Peer::start().await, Peer::start().await);
    let ctx = Context::background();
    let waits = start(&client, &ctx, get(one.url("/")));
    let mut held = one.accept().await;
    held.head().await;
    let served = start(&client, &ctx, get(two.url("/")));
    let mut conn = two.accept().await;
    conn.head().await;
    conn.answer("two").await;
    assert_eq!(text(outcome(served).await.unwrap()).await.unwrap(), "two");
    held.answer("one").await;
    assert_eq!(text(outcome(waits).await.unwrap()).await.unwrap(), "one");
}

#[tokio::test]
async fn h6_a_connection_given_up_is_never_used_again() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let ctx = Context::background();
    let exchange = start(&client, &ctx, get(peer.url("/warm")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("warm").await;
    text(outcome(exchange).await.unwrap()).await.unwrap();

    for opening in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let caller = Context::background().with_cancel();
        let task = start(&client, &caller, get(peer.url("/given-up")));
        conn.head().await;
        conn.send(opening).await;
        let response = if opening.is_empty() {
            caller.cancel();
            outcome(task).await.map(drop).unwrap_err().to_string()
        } else {
            let response = outcome(task).await.unwrap();
            caller.cancel();
            text(response).await.unwrap_err().to_string()
        };
        assert!(response.starts_with("context canceled"), "{response}");
        conn.closed().await;

        let next = start(&client, &ctx, get(peer.url("/next")));
        conn = peer.accept().await;
        assert!(
            conn.head().await.starts_with("get /next "),
            "on another connection"
        );
        conn.answer("next").await;
        assert_eq!(text(outcome(next).await.unwrap()).await.unwrap(), "next");
    }
}

#[tokio::test]
async fn h7_the_body_of_the_request_is_let_go_of() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let request = Request::post(peer.url("/")).body(body).unwrap();
    let task = start(&client, &caller, request);
    let mut conn = peer.accept().await;
    conn.head().await;
    sender
        .send_data(Bytes::from_static(b"part"))
        .await
        .expect("it is read");
    caller.cancel();
    let error = outcome(task).await.unwrap_err();
    assert_eq!(error.step(), Step::Sending);
    guard("the body to be dropped", async {
        while sender.send_data(Bytes::from_static(b"more")).await.is_ok() {}
    })
    .await;
    conn.closed().await;
}

#[tokio::test]
async fn h7_nothing_stays_behind_on_the_callers_context() {
    let leak = bequest_test::Leak::watch();
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    {
        let caller = leak.context().with_timeout(Duration::from_secs(60));
        let task = start(&client, &caller, get(peer.url("/")));
        let mut conn = peer.accept().await;
        conn.head().await;
        conn.answer("done").await;
        assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "done");
        let task = start(&client, &caller, get(peer.url("/")));
        conn.head().await;
        caller.cancel();
        outcome(task).await.unwrap_err();
    }
    leak.assert_none_within(Duration::from_secs(20));
}

#[tokio::test]
async fn h8_only_a_deadline_is_a_timeout() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let clock = bequest_test::Clock::new();
    for (is_timeout, begins) in [
        (true, "context deadline exceeded: "),
        (false, "context canceled: "),
    ] {
        let caller = clock
            .context()
            .with_timeout(Duration::from_secs(5))
            .named("caller");
        let task = start(&client, &caller, get(peer.url("/")));
        let mut conn = peer.accept().await;
        conn.head().await;
        match is_timeout {
            true => clock.advance(Duration::from_secs(5)),
            false => caller.cancel(),
        }
        let error = outcome(task).await.unwrap_err();
        assert_eq!(error.is_timeout(), is_timeout);
        assert!(!error.is_connect());
        assert!(error.to_string().starts_with(begins), "{error}");
        assert!(
            error.to_string().ends_with("while waiting for the answer"),
            "{error}"
        );
        assert!(error.canceled().unwrap().is_from(&caller));
    }
    let nobody = Peer::start().await;
    let url = nobody.url("/");
    drop(nobody);
    let error = client.send(&Context::background(), get(url)).await.unwrap_err();
    assert!(error.is_connect() && !error.is_timeout(), "{error}");
}

#[tokio::test]
async fn h9_the_clients_own_limit_covers_the_body_and_says_so() {
    let limits = Limits {
        exchange: Duration::from_secs(2),
        ..Limits::default()
    };
    let client = Client::builder().limits(limits).build();
    let peer = Peer::start().await;
    let clock = bequest_test::Clock::new();
    let caller = clock.context();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    let head = conn.head().await;
    assert!(
        head.contains("bequest-timeout-ms: 1995\r\n"),
        "the peer is told of it: {head}"
    );
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = outcome(task).await.unwrap();
    clock.advance(Duration::from_secs(2));
    let error = text(response).await.unwrap_err();
    let end = error.canceled().unwrap();
    assert_eq!(
        (end.kind(), end.reason()),
        (Kind::DeadlineExceeded, Reason::Limit("exchange"))
    );
    assert!(
        !error.used_up_budget(&caller),
        "the caller itself has time for another try"
    );
}

#[tokio::test]
async fn h10_the_kind_survives_any_cause() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    peer.accept().await.head().await;
    caller.cancel_with(std::io::Error::other("quota"));
    let error = outcome(task).await.unwrap_err();
    assert_eq!(error.canceled().unwrap(), &Kind::Canceled);
    let source = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert_eq!(source.unwrap().to_string(), "quota");
}

#[tokio::test]
async fn h11_redirects_are_answers() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let task = start(&client, &Context::background(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(outcome(task).await.unwrap().status(), 302);
}

#[tokio::test]
async fn h13_the_remaining_time_is_told_to_the_peer() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(Duration::from_millis(250));
    let task = start(&client, &caller, get(peer.url("/")));
    let head = peer.accept().await.head().await;
    assert!(head.contains("bequest-timeout-ms: 245\r\n"), "{head}");
    task.abort();
}
