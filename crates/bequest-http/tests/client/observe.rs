//! H12: what an observer is told of an exchange, as Go's `httptrace` tells it, and in which order.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::client::{Client, ConnInfo, ContextLayer, Event, Limits, Observer, Step};
use bequest_http::wire::{Outbound, Trace};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Channel, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::support::{Gated, Peer, get, guard, outcome, start, text};

/// What was told, in words, and the connections.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<(Vec<String>, Vec<ConnInfo>)>>);

impl Log {
    fn observer(&self) -> Observer {
        let log = self.0.clone();
        Observer::new(move |_, event| {
            let mut log = log.lock().unwrap();
            log.0.push(event.to_string());
            if let Event::Connected(conn) = event {
                log.1.push((*conn).clone());
            }
        })
    }

    fn ctx(&self) -> Context {
        self.observer().carried_by(&Context::background())
    }

    /// What was told since the last time.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }

    fn conn(&self) -> ConnInfo {
        self.0.lock().unwrap().1.pop().expect("a connection")
    }
}

fn post(url: String) -> Request<Full<Bytes>> {
    Request::post(url).body(Full::from("body")).unwrap()
}

#[tokio::test]
async fn h12_an_exchange_is_told_from_the_wait_to_the_last_byte() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let client = Client::builder().observer(log.observer()).build();
    let task = start(&client, &Context::background(), post(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    conn.answer("hello").await;
    let answer = outcome(task).await.unwrap();
    assert_eq!(
        log.taken(),
        [
            "waiting for its turn",
            "waiting for a connection",
            "on a new connection",
            "sent",
            "answered 103 in the meantime",
            "answered 200"
        ]
    );
    assert_eq!(text(answer).await.unwrap(), "hello");
    assert_eq!(log.taken(), ["complete"]);
    let first = log.conn();
    assert!(!first.is_reused() && !first.is_http2() && first.dial().is_some());
    assert_eq!(first.peer_addr(), Some(peer.addr));
    assert_eq!(first.local_addr(), conn.stream.peer_addr().ok());

    let task = start(&client, &Context::background(), get(peer.url("/")));
    conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    assert_eq!(
        log.taken(),
        [
            "waiting for its turn",
            "waiting for a connection",
            "on a connection that was there",
            "sent",
            "answered 200",
            "complete"
        ]
    );
    let second = log.conn();
    assert_eq!((second.is_reused(), second.dial()), (true, first.dial()));
}

#[tokio::test]
async fn h12_on_http2_and_for_a_body_that_comes_in_pieces() {
    let (_service, url) = super::http2::server().await;
    let log = Log::default();
    let client = Client::builder().http2().build();
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post(format!("{url}half")).body(body).unwrap();
    let task = start(&client, &log.ctx(), request);
    let answer = outcome(task).await.expect("a head before the body is all there");
    let told = log.taken();
    assert_eq!(told[2..], ["on a new connection", "answered 200"]);
    sender.send_data(Bytes::from_static(b"part")).await.unwrap();
    assert!(log.taken().is_empty());
    drop(sender);
    guard("its end to be seen", async {
        while log.taken() != ["sent"] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(answer);
    assert_eq!(log.taken(), ["dropped"]);

    // Given up before its body is at its end: never told as sent.
    let caller = log.ctx().with_cancel();
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post(format!("{url}half")).body(body).unwrap();
    let answer = outcome(start(&client, &caller, request)).await.expect("a head");
    sender.send_data(Bytes::from_static(b"part")).await.unwrap();
    caller.cancel();
    guard("the body to be dropped", async {
        while sender.send_data(Bytes::from_static(b"more")).await.is_ok() {}
    })
    .await;
    text(answer).await.unwrap_err();
    let told = log.taken();
    assert!(
        told.last().unwrap().starts_with("failed: ") && !told.contains(&"sent".to_owned()),
        "{told:?}"
    );

    let next = client.send(&log.ctx(), get(format!("{url}now"))).await.unwrap();
    assert_eq!(text(next).await.unwrap(), "now");
    let (second, _, first) = (log.conn(), log.conn(), log.conn());
    assert!(first.is_http2() && !first.is_reused() && second.is_http2() && second.is_reused());
}

#[tokio::test]
async fn h12_each_exchange_ends_once_whatever_ends_it() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let connector = Gated::shut();
    let client = Client::builder().build_with(connector.clone());
    let begun = ["waiting for its turn", "waiting for a connection"];

    // Its context ends while it dials.
    let caller = log.ctx().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    connector.begins().await;
    caller.cancel_for(Reason::ClientGone);
    let error = outcome(task).await.unwrap_err();
    let told = log.taken();
    assert_eq!(told, [begun[0], begun[1], &format!("failed: {error}")]);

    // Its future is dropped meanwhile.
    let task = start(&client, &log.ctx(), get(peer.url("/")));
    guard("it to dial", async {
        while log.0.lock().unwrap().0.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    task.abort();
    assert!(guard("its end", task).await.unwrap_err().is_cancelled());
    assert_eq!(log.taken(), [begun[0], begun[1], "dropped"]);

    // Nothing is left to begin with.
    let over = log.ctx().with_timeout(Duration::ZERO);
    let error = client.send(&over, get(peer.url("/"))).await.unwrap_err();
    assert_eq!(log.taken(), [begun[0], &format!("failed: {error}")]);

    // Its context ends while nobody reads its body; it is told when that is dropped.
    connector.open();
    let caller = log.ctx().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let unread = outcome(task).await.unwrap();
    caller.cancel_for(Reason::ClientGone);
    conn.closed().await;
    drop(unread);
    let told = log.taken();
    let (last, before) = told.split_last().expect("it was told");
    assert_eq!(before.last().unwrap(), "answered 200", "{told:?}");
    assert!(
        last.starts_with("failed: context canceled: client disconnected"),
        "{last}"
    );
    assert!(last.ends_with(", while reading the body"), "{last}");

    // The peer breaks off.
    let task = start(&client, &log.ctx(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let answer = outcome(task).await.unwrap();
    drop(conn);
    text(answer).await.unwrap_err();
    let taken = log.taken();
    let last = taken.last().unwrap();
    let step = "failed: the exchange failed while reading the body: ";
    assert!(
        last.starts_with(step) && last.len() > step.len(),
        "it says what happened: {last}"
    );

    // An answer without a body.
    let task = start(&client, &log.ctx(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    drop(outcome(task).await.unwrap());
    assert_eq!(log.taken()[4..], ["answered 204", "complete"]);
}

#[tokio::test]
async fn h12_nested_observers_are_told_the_newest_first_and_a_panic_stops_nobody() {
    let (said, peer) = (Arc::new(Mutex::new(Vec::new())), Peer::start().await);
    let observer = |name: &'static str| {
        let said = said.clone();
        Observer::new(move |exchange, event| {
            if let Event::Connecting = event {
                said.lock().unwrap().push((
                    name,
                    exchange.method().clone(),
                    exchange.uri().path().to_owned(),
                ));
            }
            assert!(name != "outer", "it panics at each event");
        })
    };
    let client = Client::builder().observer(observer("client")).build();
    let ctx = observer("outer").carried_by(&Context::background());
    let scope = ctx.with_timeout(Duration::from_secs(60));
    let ctx = observer("inner").carried_by(&scope);
    let task = start(&client, &ctx, post(peer.url("/path")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("hello").await;
    assert_eq!(text(outcome(task).await.unwrap()).await.unwrap(), "hello");
    let expected = ["inner", "outer", "client"].map(|name| (name, http::Method::POST, "/path".to_owned()));
    assert_eq!(*said.lock().unwrap(), expected);
}

#[tokio::test]
async fn h12_without_an_observer_of_its_own_an_exchange_is_told_to_nobody() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let client = Client::builder().build();
    let quiet = Context::background();
    let task = start(&client, &quiet, get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    assert!(log.taken().is_empty());

    // A connection from before anybody observed.
    let task = start(&client, &log.ctx(), get(peer.url("/")));
    conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    let info = log.conn();
    assert_eq!((info.is_reused(), info.dial()), (true, None));
}

#[tokio::test]
async fn h12_a_connection_is_reused_that_was_there_before_or_was_anothers_first() {
    let (log, one, two) = (Log::default(), Peer::start().await, Peer::start().await);
    let connector = Gated::shut();
    let client = Client::builder().build_with(connector.clone());
    // Both look for a connection, and one dial is let through.
    let first = start(&client, &log.ctx(), get(one.url("/")));
    let second = start(&client, &log.ctx(), get(one.url("/")));
    connector.begins().await;
    connector.begins().await;
    connector.open_for_one();
    let mut conn = one.accept().await;
    for _ in 0..2 {
        conn.head().await;
        conn.answer("").await;
    }
    for task in [first, second] {
        text(outcome(task).await.unwrap()).await.unwrap();
    }
    let (later, sooner) = (log.conn(), log.conn());
    assert_eq!((sooner.is_reused(), later.is_reused()), (false, true));

    // Dialled for an exchange that nobody observes.
    connector.open();
    let quiet = start(&client, &Context::background(), get(two.url("/")));
    let mut conn = two.accept().await;
    conn.head().await;
    conn.answer("").await;
    text(outcome(quiet).await.unwrap()).await.unwrap();
    let task = start(&client, &log.ctx(), get(two.url("/")));
    conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    let info = log.conn();
    assert!(info.is_reused() && info.dial().is_some());
}

#[tokio::test]
async fn h12_a_dial_that_is_taken_over_is_a_new_connection() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let connector = Gated::shut();
    let client = Client::builder().build_with(connector.clone());
    let caller = log.ctx().with_cancel();
    let task = start(&client, &caller, get(peer.url("/")));
    connector.begins().await;
    caller.cancel();
    assert_eq!(outcome(task).await.unwrap_err().step(), Step::Dialling);
    let task = start(&client, &log.ctx(), get(peer.url("/")));
    tokio::task::yield_now().await;
    connector.open();
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    let info = log.conn();
    assert!(!info.is_reused() && info.dial().is_some());
    assert_eq!(connector.dials(), 1);
}

#[tokio::test]
async fn h12_the_wait_for_a_turn_is_told_apart_from_that_for_a_connection() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let limits = Limits {
        exchanges_per_host: 1,
        ..Limits::default()
    };
    let client = Client::builder().limits(limits).build();
    let served = start(&client, &Context::background(), get(peer.url("/")));
    let mut conn = peer.accept().await;
    conn.head().await;
    let waits = start(&client, &log.ctx(), get(peer.url("/")));
    tokio::task::yield_now().await;
    assert_eq!(log.taken(), ["waiting for its turn"]);
    conn.answer("one").await;
    text(outcome(served).await.unwrap()).await.unwrap();
    conn.head().await;
    conn.answer("two").await;
    assert_eq!(text(outcome(waits).await.unwrap()).await.unwrap(), "two");
    assert_eq!(
        log.taken()[..2],
        ["waiting for a connection", "on a connection that was there"]
    );
}

#[tokio::test]
async fn h12_an_exchange_says_in_which_span_it_goes_out() {
    let (spans, peer) = (Arc::new(Mutex::new(Vec::new())), Peer::start().await);
    let log = spans.clone();
    let observer = Observer::new(move |exchange, event| {
        if let Event::Answered(_) = event {
            log.lock()
                .unwrap()
                .push(exchange.trace().expect("a span").to_string());
            assert!(exchange.context().deadline().is_some());
        }
    });
    let outbound = Outbound {
        trace: true,
        ..Outbound::default()
    };
    let client = Client::builder().outbound(outbound).observer(observer).build();
    let ctx = Trace::start().carried_by(&Context::background());
    let task = start(&client, &ctx, get(peer.url("/")));
    let mut conn = peer.accept().await;
    let head = conn.head().await;
    conn.answer("").await;
    text(outcome(task).await.unwrap()).await.unwrap();
    let span = spans.lock().unwrap().pop().unwrap();
    assert!(
        head.contains(&format!("traceparent: {span}\r\n")),
        "{span} in {head}"
    );
}

#[tokio::test]
async fn h12_around_another_client_what_that_shows_is_told() {
    let (log, peer) = (Log::default(), Peer::start().await);
    let bare = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut client = ContextLayer::default().layer(bare);
    let mut request = post(peer.url("/"));
    request.extensions_mut().insert(log.ctx());
    let task = tokio::spawn(client.call(request));
    let mut conn = peer.accept().await;
    conn.head().await;
    conn.answer("hello").await;
    let answer = guard("an answer", task).await.unwrap().unwrap();
    guard("its body", answer.into_body().collect()).await.unwrap();
    assert_eq!(log.taken(), ["waiting for its turn", "answered 200", "complete"]);
}
