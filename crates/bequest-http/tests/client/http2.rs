//! HTTP/2, against this crate's own server: the stream is reset, the connection stays.

use std::convert::Infallible;

use bequest::{CancelScope, Context, Kind, Reason};
use bequest_http::client::{Client, Step};
use bequest_http::server::{Peer, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::{get, guard, outcome, start, text};

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

/// The server, which ends when it is dropped, and what its handlers were told.
pub(crate) struct Service {
    _process: CancelScope,
    told: mpsc::UnboundedReceiver<(u64, Reason)>,
}

/// `/now` answers at once, `/half` begins a body, and any other path waits for its context's end.
pub(crate) async fn server() -> (Service, String) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let ctx = request.extensions().get::<Context>().unwrap().clone();
            let conn = request.extensions().get::<Peer>().unwrap().conn().id();
            match request.uri().path() {
                "/now" => Response::new(whole("now")),
                "/half" => {
                    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
                    tokio::spawn(async move {
                        // A client that has gone hears nothing.
                        let _ = sender.send_data(Bytes::from_static(b"half")).await;
                        let _ = tell.send((conn, ctx.done().await.reason()));
                    });
                    Response::new(body.boxed_unsync())
                }
                _ => {
                    let _ = tell.send((conn, Reason::Explicit));
                    let _ = tell.send((conn, ctx.done().await.reason()));
                    Response::new(whole("late"))
                }
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let process = Context::background().with_cancel();
    let ctx = process.context();
    tokio::spawn(async move { Server::builder().serve(listener, service, &ctx).await });
    let service = Service {
        _process: process,
        told,
    };
    (service, url)
}

fn whole(text: &'static str) -> TestBody {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}

impl Service {
    async fn told(&mut self) -> (u64, Reason) {
        guard("a handler's word", self.told.recv()).await.unwrap()
    }
}

#[tokio::test]
async fn h6_a_cancelled_stream_is_reset_and_its_connection_kept() {
    let (mut service, url) = server().await;
    let client = Client::builder().http2().build();
    for _ in 0..3 {
        let caller = Context::background().with_cancel();
        let task = start(&client, &caller, get(format!("{url}waits")));
        assert_eq!(service.told().await, (1, Reason::Explicit), "it has begun");
        caller.cancel();
        assert_eq!(outcome(task).await.unwrap_err().step(), Step::Answering);
        assert_eq!(
            service.told().await,
            (1, Reason::StreamReset),
            "on the first connection still"
        );
    }
    let response = client
        .send(&Context::background(), get(format!("{url}now")))
        .await
        .unwrap();
    assert_eq!(text(response).await.unwrap(), "now");
}

#[tokio::test]
async fn h1_h10_a_body_ends_as_on_http1() {
    let (mut service, url) = server().await;
    let client = Client::builder().http2().build();
    let caller = Context::background().with_cancel();
    let response = client.send(&caller, get(format!("{url}half"))).await.unwrap();
    let mut body = response.into_body();
    guard("half a body", body.frame()).await.unwrap().unwrap();
    caller.cancel_for(Reason::Sibling);
    let error = guard("the end", body.frame()).await.unwrap().unwrap_err();
    let end = error.canceled().unwrap();
    assert_eq!(
        (error.step(), end.kind(), end.reason()),
        (Step::Reading, Kind::Canceled, Reason::Sibling)
    );
    assert_eq!(service.told().await, (1, Reason::StreamReset));
    let response = client
        .send(&Context::background(), get(format!("{url}now")))
        .await
        .unwrap();
    assert_eq!(text(response).await.unwrap(), "now");
}

#[tokio::test]
async fn a_request_without_time_is_refused_by_the_server_too() {
    let (_service, url) = server().await;
    for client in [Client::builder().http2().build(), Client::builder().build()] {
        let mut request = get(format!("{url}now"));
        request
            .headers_mut()
            .insert("bequest-timeout-ms", "0".parse().unwrap());
        let response = client.send(&Context::background(), request).await.unwrap();
        assert_eq!(response.status(), 503);
    }
}

/// A peer that begins its answer at once and then says how the request's body ended: the reason of a reset, if it was one.
async fn peer_that_answers_first() -> (String, mpsc::UnboundedReceiver<Option<h2::Reason>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut answer = respond.send_response(Response::new(()), false).unwrap();
                answer.send_data(Bytes::from_static(b"half"), false).unwrap();
                let mut body = request.into_body();
                let end = loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error.reason(),
                        None => break None,
                    }
                };
                // A test that has ended hears nothing.
                let _ = tell.send(end);
            });
        }
    });
    (url, told)
}

#[tokio::test]
async fn h7_an_open_request_body_is_let_go_of_after_the_answer_has_begun() {
    let (url, mut told) = peer_that_answers_first().await;
    let client = Client::builder().http2().build();
    let caller = Context::background().with_cancel();
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let task = start(&client, &caller, Request::post(url).body(body).unwrap());
    sender.send_data(Bytes::from_static(b"part")).await.unwrap();
    let answer = outcome(task).await.expect("a head");
    caller.cancel();
    text(answer).await.unwrap_err();
    let end = guard("the peer to hear of it", told.recv()).await.unwrap();
    assert_eq!(end, Some(h2::Reason::CANCEL));
    guard("the body to be dropped", async {
        while sender.send_data(Bytes::from_static(b"more")).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn an_end_that_the_open_request_body_meets_first_is_the_contexts_all_the_same() {
    // Of a deadline, the wakers are told before the callbacks: the request's body fails first, and the engine with it.
    for _ in 0..20 {
        let (url, mut told) = peer_that_answers_first().await;
        let client = Client::builder().http2().build();
        let caller = Context::background().with_timeout(std::time::Duration::from_millis(20));
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let task = start(&client, &caller, Request::post(url).body(body).unwrap());
        sender.send_data(Bytes::from_static(b"part")).await.unwrap();
        let answer = outcome(task).await.expect("a head");
        let error = text(answer).await.unwrap_err();
        assert_eq!(
            error.canceled().expect("an end, and no failure"),
            &Kind::DeadlineExceeded
        );
        assert!(error.is_timeout() && error.step() == Step::Reading);
        let end = guard("the peer to hear of it", told.recv()).await.unwrap();
        assert_eq!(end, Some(h2::Reason::CANCEL));
    }
}

#[tokio::test]
async fn control_a_bare_client_goes_on_holding_the_request_open() {
    let (url, mut told) = peer_that_answers_first().await;
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor)
        .http2_only(true)
        .build_http();
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let task = tokio::spawn(client.request(Request::post(url).body(body).unwrap()));
    sender.send_data(Bytes::from_static(b"part")).await.unwrap();
    let answer = guard("a head", task).await.unwrap().unwrap();
    // All that its caller can do.
    drop(answer);
    for _ in 0..100 {
        sender
            .send_data(Bytes::from_static(b"more"))
            .await
            .expect("it is still sent");
        tokio::task::yield_now().await;
    }
    assert!(told.try_recv().is_err(), "the peer was told nothing");
}
