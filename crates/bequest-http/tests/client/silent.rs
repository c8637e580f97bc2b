//! A peer that falls silent: the network takes everything and gives nothing back, and nobody closes anything.

use std::time::Duration;

use bequest::Context;
use bequest_http::client::{Client, Limits, Step};
use bequest_test::proxy::{Faults, Proxy};
use http::Response;

use super::support::{behind_a_network, get, guard, outcome, start, text};

async fn server() -> (Proxy, String) {
    behind_a_network(|_| async { Response::new("here".to_owned()) }).await
}

fn client(unreachable: Duration) -> Client {
    let limits = Limits {
        unreachable,
        ..Limits::default()
    };
    Client::builder().http2().limits(limits).build()
}

#[tokio::test]
async fn h6_a_connection_whose_peer_is_silent_is_closed_and_the_next_exchange_dials() {
    let (proxy, url) = server().await;
    let client = client(Duration::from_millis(100));
    let ctx = Context::background();
    let warm = client.send(&ctx, get(url.clone())).await.unwrap();
    assert_eq!(text(warm).await.unwrap(), "here");

    proxy.both(Faults::none().black_hole());
    let waits = start(&client, &ctx, get(url.clone()));
    let error = outcome(waits).await.unwrap_err();
    assert_eq!(error.step(), Step::Answering);
    assert!(error.is_unreachable(), "{error}");
    assert!(
        error.canceled().is_none() && !error.used_up_budget(&ctx),
        "{error}"
    );
    // The kernel goes on with what it was given as soon as it can; nobody waits for that.
    proxy.both(Faults::none());
    let next = guard("an answer", client.send(&ctx, get(url))).await.unwrap();
    assert_eq!(text(next).await.unwrap(), "here");
    assert_eq!(proxy.accepted(), 2, "on another connection");
}

#[tokio::test]
async fn h6_control_whoever_does_not_ask_waits_on_the_dead_connection() {
    let (proxy, url) = server().await;
    let (patient, asking) = (client(Duration::MAX), client(Duration::from_millis(100)));
    let ctx = Context::background();
    for client in [&patient, &asking] {
        let warm = client.send(&ctx, get(url.clone())).await.unwrap();
        text(warm).await.unwrap();
    }
    proxy.both(Faults::none().black_hole());
    let waits = start(&patient, &ctx, get(url.clone()));
    for _ in 0..3 {
        // Each of these has found out by itself, and tried the next connection, which is as dead.
        let failed = start(&asking, &ctx, get(url.clone()));
        outcome(failed).await.unwrap_err();
    }
    assert!(!waits.is_finished());
    // And gives the next one the same connection.
    let late = Context::background().with_timeout(Duration::from_millis(50));
    let next = start(&patient, &late, get(url));
    assert!(outcome(next).await.unwrap_err().is_timeout());
    assert_eq!(proxy.accepted(), 4);
    waits.abort();
}

#[tokio::test]
async fn a_peer_that_refuses_or_is_waited_for_in_vain_is_not_unreachable() {
    let client = Client::builder().build();
    let refused = guard(
        "a refusal",
        client.send(&Context::background(), get("http://127.0.0.1:1/")),
    )
    .await;
    let refused = refused.unwrap_err();
    assert!(refused.is_connect() && !refused.is_unreachable(), "{refused:?}");
    let (proxy, url) = server().await;
    proxy.both(Faults::none().black_hole());
    let late = Context::background().with_timeout(Duration::from_millis(50));
    let late = guard("the deadline", client.send(&late, get(url)))
        .await
        .unwrap_err();
    assert!(late.is_timeout() && !late.is_unreachable(), "{late:?}");
}
