//! What is left, what is kept of it, and whether a second try can use it.

use std::time::Duration;

use bequest::Kind;
use bequest_http::client::{Client, Step};
use bequest_http::wire::Outbound;

use super::support::{Gated, Peer, get, outcome, start, text};

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_budget_that_the_margin_takes_sends_nothing() {
    let connector = Gated::shut();
    connector.open();
    let outbound = Outbound {
        margin: 20 * MILLISECOND,
        ..Outbound::default()
    };
    let client = Client::builder().outbound(outbound).build_with(connector.clone());
    let peer = Peer::start().await;
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(20 * MILLISECOND);
    let error = client.send(&caller, get(peer.url("/"))).await.unwrap_err();
    assert!(error.is_too_little_time() && error.is_timeout() && error.used_up_budget(&caller));
    assert_eq!((error.step(), error.canceled().is_none()), (Step::Waiting, true));
    assert_eq!(
        error.to_string(),
        "not sent: 20ms left, of which 20ms are kept for the answer"
    );
    assert_eq!(connector.dials(), 0);
}

#[tokio::test]
async fn a_try_that_leaves_time_may_be_followed_by_another() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(100 * MILLISECOND);
    let mut tries = 0;
    let error = loop {
        tries += 1;
        let one_try = caller.with_timeout(40 * MILLISECOND).named("try");
        let task = start(&client, &one_try, get(peer.url("/")));
        let mut conn = peer.accept().await;
        conn.head().await;
        clock.advance(40 * MILLISECOND);
        let error = outcome(task).await.unwrap_err();
        assert_eq!(error.canceled().unwrap(), &Kind::DeadlineExceeded);
        if error.used_up_budget(&caller) {
            break error;
        }
        assert!(error.canceled().unwrap().is_from(&one_try));
    };
    assert_eq!(
        tries, 3,
        "two tries of 40 ms, and one that the rest of 100 ms ended"
    );
    assert!(error.canceled().unwrap().is_from(&caller));
}

#[tokio::test]
async fn control_retrying_by_the_kind_alone_never_stops() {
    // The naive rule, "a timeout is worth another try", asks for one more after the caller's time is over.
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let clock = bequest_test::Clock::new();
    let caller = clock.context().with_timeout(100 * MILLISECOND);
    let task = start(&client, &caller, get(peer.url("/")));
    peer.accept().await.head().await;
    clock.advance(100 * MILLISECOND);
    let error = outcome(task).await.unwrap_err();
    assert!(error.is_timeout(), "the naive rule would try again");
    assert!(error.used_up_budget(&caller), "ours does not");
}

#[tokio::test]
async fn without_a_deadline_but_the_clients_own_a_peer_is_told_that_one() {
    let (client, peer) = (Client::builder().build(), Peer::start().await);
    let clock = bequest_test::Clock::new();
    let task = start(&client, &clock.context(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    let head = conn.head().await;
    assert!(head.contains("bequest-timeout-ms: 59995\r\n"), "{head}");
    conn.answer("hello").await;
    assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "hello");
}
