//! What is tried again, what is not, and for how long. Its control is in `budget.rs`: who retries by the kind of the error
//! alone asks again when the caller's time is over.

use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::client::{
    Client, GaveUp, Replayable, ResponseBody, Retry, RetryError, RetryLayer, RetryService, Step,
};
use bequest_http::wire::Outbound;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::support::{Conn, Peer, outcome, text};

const MILLISECOND: Duration = Duration::from_millis(1);
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n";

type Outcome = tokio::task::JoinHandle<Result<Response<ResponseBody>, RetryError>>;

fn retrying(retry: Retry) -> RetryService<Client> {
    RetryLayer::new(retry).layer(Client::builder().build())
}

fn request(peer: &Peer, method: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(peer.url("/"))
        .body(Full::from("body"))
        .expect("a request")
}

fn start(client: &RetryService<Client>, ctx: &Context, request: Request<Full<Bytes>>) -> Outcome {
    let (client, ctx) = (client.clone(), ctx.clone());
    tokio::spawn(async move { client.send(&ctx, request).await })
}

/// A request as the peer sees it, with its body.
async fn asked(conn: &mut Conn) {
    conn.head().await;
    let mut body = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut conn.stream, &mut body)
        .await
        .expect("the body");
    assert_eq!(&body, b"body");
}

/// Moves the clock until this has happened.
async fn passing<T>(clock: &bequest_test::Clock, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    for _ in 0..100_000 {
        tokio::select! {
            biased;
            done = what.as_mut() => return done,
            () = tokio::task::yield_now() => clock.advance(MILLISECOND / 10),
        }
    }
    panic!("it does not happen")
}

#[tokio::test]
async fn a_busy_peer_is_asked_again_after_a_pause_with_the_whole_body() {
    let (client, peer, clock) = (
        retrying(Retry::default()),
        Peer::start().await,
        bequest_test::Clock::new(),
    );
    let caller = clock.context().with_timeout(Duration::from_secs(5));
    let task = start(&client, &caller, request(&peer, "PUT"));
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    let before = clock.elapsed();
    conn.send(&format!("{BUSY}\r\n")).await;
    passing(&clock, asked(&mut conn)).await;
    let pause = clock.elapsed() - before;
    assert!(pause >= 10 * MILLISECOND, "half of 20 ms at least: {pause:?}");
    conn.answer("now").await;
    assert_eq!(
        text(outcome(task).await.expect("an answer")).await.unwrap(),
        "now"
    );
}

#[tokio::test]
async fn what_a_peer_may_have_seen_is_sent_twice_only_by_leave() {
    let (client, peer, clock) = (
        retrying(Retry::default()),
        Peer::start().await,
        bequest_test::Clock::new(),
    );
    let caller = clock.context().with_timeout(Duration::from_secs(5));
    let task = start(&client, &caller, request(&peer, "POST"));
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    drop(conn);
    let error = outcome(task).await.unwrap_err();
    assert_eq!((error.why(), error.tries()), (GaveUp::NotReplayable, 1));
    assert_eq!(error.last().step(), Step::Answering);
    assert!(
        error
            .to_string()
            .starts_with("given up at try 1, as the peer may have seen it: "),
        "{error}"
    );

    let mut keyed = request(&peer, "POST");
    keyed.extensions_mut().insert(Replayable);
    let task = start(&client, &caller, keyed);
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    drop(conn);
    let mut conn = passing(&clock, peer.accept()).await;
    asked(&mut conn).await;
    conn.answer("twice").await;
    assert_eq!(
        text(outcome(task).await.expect("an answer")).await.unwrap(),
        "twice"
    );
}

#[tokio::test]
async fn what_no_peer_has_seen_is_tried_as_often_as_it_may_be() {
    let (client, clock) = (retrying(Retry::default()), bequest_test::Clock::new());
    let peer = Peer::start().await;
    let request = request(&peer, "POST");
    // Nobody listens there any more.
    drop(peer);
    let caller = clock.context().with_timeout(Duration::from_secs(5));
    let mut task = start(&client, &caller, request);
    let error = passing(&clock, &mut task).await.expect("no panic").unwrap_err();
    assert_eq!((error.why(), error.tries()), (GaveUp::Tries, 3));
    assert_eq!(error.last().step(), Step::Dialling);
    let text = error.last().to_string();
    assert!(
        text.starts_with("the exchange failed while waiting for a connection: Connection refused"),
        "it says what the system said: {text}"
    );
}

#[tokio::test]
async fn a_call_that_used_up_the_whole_budget_is_not_tried_again() {
    let (client, peer, clock) = (
        retrying(Retry::default()),
        Peer::start().await,
        bequest_test::Clock::new(),
    );
    let caller = clock.context().with_timeout(100 * MILLISECOND);
    let task = start(&client, &caller, request(&peer, "GET"));
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    clock.advance(100 * MILLISECOND);
    let error = outcome(task).await.unwrap_err();
    assert_eq!((error.why(), error.tries()), (GaveUp::Budget, 1));
    assert_eq!(error.last().canceled().unwrap(), &Kind::DeadlineExceeded);
}

#[tokio::test]
async fn what_is_left_is_nothing_if_the_margin_takes_it() {
    let outbound = Outbound {
        margin: 20 * MILLISECOND,
        ..Outbound::default()
    };
    let retry = Retry {
        each: 90 * MILLISECOND,
        pause: Duration::ZERO,
        ..Retry::default()
    };
    let client = RetryLayer::new(retry).layer(Client::builder().outbound(outbound).build());
    let (peer, clock) = (Peer::start().await, bequest_test::Clock::new());
    for (budget, tries) in [(110, 1), (200, 2)] {
        let caller = clock.context().with_timeout(budget * MILLISECOND);
        let task = start(&client, &caller, request(&peer, "GET"));
        for _ in 0..tries {
            let mut conn = peer.accept().await;
            asked(&mut conn).await;
            clock.advance(90 * MILLISECOND);
        }
        let error = outcome(task).await.unwrap_err();
        assert_eq!(
            (error.why(), error.tries()),
            (GaveUp::Budget, tries),
            "{budget} ms"
        );
        assert!(!caller.is_done(), "and 20 ms are left at most");
    }
}

#[tokio::test]
async fn nothing_is_tried_again_for_a_caller_who_has_left() {
    let (client, peer) = (retrying(Retry::default()), Peer::start().await);
    let caller = Context::background().with_cancel();
    let task = start(&client, &caller, request(&peer, "GET"));
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    caller.cancel_for(Reason::ClientGone);
    let error = outcome(task).await.unwrap_err();
    assert_eq!((error.why(), error.tries()), (GaveUp::Ended, 1));
    assert_eq!(error.last().canceled().unwrap().reason(), Reason::ClientGone);
}

#[tokio::test]
async fn no_pause_is_begun_that_the_budget_does_not_outlast() {
    let (client, peer, clock) = (
        retrying(Retry::default()),
        Peer::start().await,
        bequest_test::Clock::new(),
    );
    let caller = clock.context().with_timeout(Duration::from_secs(5));
    let task = start(&client, &caller, request(&peer, "GET"));
    let mut conn = peer.accept().await;
    asked(&mut conn).await;
    conn.send(&format!("{BUSY}retry-after: 30\r\n\r\n")).await;
    // The answer as it is, at once: it cannot be bettered in time.
    let answer = outcome(task).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_try_that_takes_too_long_gives_way_to_the_next() {
    let retry = Retry {
        each: 40 * MILLISECOND,
        ..Retry::default()
    };
    let (client, peer, clock) = (retrying(retry), Peer::start().await, bequest_test::Clock::new());
    let caller = clock.context().with_timeout(Duration::from_secs(5));
    // By the request's extensions, as a tower service.
    let mut request = request(&peer, "GET");
    request.extensions_mut().insert(caller.context());
    let task = tokio::spawn(client.clone().call(request));
    let mut silent = peer.accept().await;
    let head = silent.head().await;
    assert!(
        head.contains("bequest-timeout-ms: 35\r\n"),
        "the peer is told: {head}"
    );
    let mut conn = passing(&clock, peer.accept()).await;
    asked(&mut conn).await;
    conn.answer("here").await;
    assert_eq!(
        text(outcome(task).await.expect("an answer")).await.unwrap(),
        "here"
    );
}
