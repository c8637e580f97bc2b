//! Panics where they are least welcome: in a body, in grace, in the observer, in a destructor.

use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{Finished, Observer, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::net::TcpListener;

use super::common::{Event, Http1, Http2, TestServer, full, guard, until};

/// A body that panics when it is read.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        panic!("no more paper")
    }
}

/// A destructor that panics.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("broken on the floor");
    }
}

async fn panicked(server: &mut TestServer) -> String {
    server
        .events
        .next("a panic", |event| match event {
            Event::Panicked { message, .. } => Some(message),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_body_that_panics_resets_its_stream_and_is_reported() {
    let service = service_fn(|_: Request<RequestBody>| async { Response::new(Panicking) });
    let mut server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    assert!(stream.answer().await.expect_err("a reset").is_reset());
    assert_eq!(panicked(&mut server).await, "no more paper");
    let Event::Finished { end, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!(end.reason(), Reason::Panicked);
    let stream = client.request("/").await;
    assert!(
        stream.answer().await.is_err(),
        "the connection goes on, and so does the panic"
    );
}

#[tokio::test]
async fn a_panic_in_grace_is_reported_and_gives_its_place_back() {
    let service = service_fn(|request: Request<RequestBody>| async move {
        let ctx = request.extensions().get::<Context>().expect("a context").clone();
        let end = ctx.done().await;
        assert!(end.reason() != Reason::ClientGone, "no wish to go on");
        full("never")
    });
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    until("the handler", || server.statistics.snapshot().requests == 1).await;
    drop(client);
    assert!(panicked(&mut server).await.contains("no wish to go on"));
    until("its place", || server.statistics.snapshot().in_grace == 0).await;
}

#[tokio::test]
async fn a_destructor_that_panics_is_reported_and_harms_nobody_else() {
    let builder = Server::builder().disconnect(bequest_http::server::Disconnect::Drop);
    let service = service_fn(|request: Request<RequestBody>| async move {
        if request.uri().path() == "/brittle" {
            let _brittle = Brittle;
            std::future::pending::<()>().await;
        }
        full("fine")
    });
    let mut server = TestServer::with(builder, Context::background(), service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/brittle").await;
    until("the handler", || server.statistics.snapshot().requests == 1).await;
    stream.reset();
    assert_eq!(panicked(&mut server).await, "broken on the floor");
    assert_eq!(
        client.request("/").await.answer().await.expect("an answer").1,
        "fine"
    );
}

#[tokio::test]
async fn an_observer_that_panics_does_not_disturb_the_server() {
    struct Nervous;
    impl Observer for Nervous {
        fn request_finished(&self, _request: &Finished<'_>) {
            panic!("not again");
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let process = Context::background().with_timeout(Duration::from_secs(60));
    let ctx = process.context();
    let service = service_fn(|_: Request<RequestBody>| async { full("fine") });
    let server = tokio::spawn(async move {
        Server::builder()
            .observer(Nervous)
            .serve(listener, service, &ctx)
            .await
    });
    let mut client = Http1::connect(addr).await;
    for _ in 0..2 {
        client.request("GET", "/").await;
        assert_eq!(client.answer().await.body, "fine");
    }
    process.cancel();
    let summary = guard("the server", server)
        .await
        .expect("no panic")
        .expect("no error");
    assert_eq!(summary.statistics.served, 2);
}
