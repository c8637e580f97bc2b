//! What the access log and the metrics hear.

use bequest::Reason;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;

use super::common::{Event, Http1, Http2, TestServer, full, probe};

#[tokio::test]
async fn an_answered_request_is_told_with_status_and_bytes() {
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/teapot").await;
    let mut answer = full("short and stout");
    *answer.status_mut() = StatusCode::IM_A_TEAPOT;
    arrivals.next().await.answer(answer);
    client.answer().await;
    let opened = server.events.next("an opening", |event| match event {
        Event::Opened(conn) => Some(conn),
        _ => None,
    });
    assert_eq!(
        opened.await.peer_addr(),
        client.stream.local_addr().expect("an address")
    );
    let Event::Finished {
        path,
        status,
        logged,
        bytes,
        end,
        ..
    } = server.events.finished().await
    else {
        unreachable!()
    };
    assert_eq!(
        (path.as_str(), status, bytes),
        ("/teapot", Some(StatusCode::IM_A_TEAPOT), 15)
    );
    assert_eq!(
        (logged, end.reason()),
        (StatusCode::IM_A_TEAPOT, Reason::ResponseEnded)
    );
}

#[tokio::test]
async fn a_client_that_left_before_the_answer_is_a_499_with_nothing_written() {
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let _handler = arrivals.next().await;
    drop(client);
    let Event::Finished {
        status,
        logged,
        bytes,
        end,
        ..
    } = server.events.finished().await
    else {
        unreachable!()
    };
    assert_eq!((status, logged.as_u16(), bytes), (None, 499, 0));
    assert_eq!(end.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_the_answer_is_told_as_such() {
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    let mut arrival = arrivals.next().await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    arrival.answer(http::Response::new(body.map_err(Into::into).boxed_unsync()));
    sender
        .send_data(Bytes::from_static(b"half"))
        .await
        .expect("the body is read");
    // Taken from the channel means handed to the connection: only then is there room for another.
    sender
        .send_data(Bytes::from_static(b"way"))
        .await
        .expect("the body is read");
    stream.reset();
    assert_eq!(arrival.end().await.reason(), Reason::StreamReset);
    let Event::Finished {
        status,
        logged,
        bytes,
        end,
        ..
    } = server.events.finished().await
    else {
        unreachable!()
    };
    assert_eq!((status, logged), (Some(StatusCode::OK), StatusCode::OK));
    assert!((4..=7).contains(&bytes), "{bytes}");
    assert_eq!(end.reason(), Reason::StreamReset);
}

#[tokio::test]
async fn a_service_that_fails_is_a_500_whose_cause_is_told() {
    #[derive(Clone)]
    struct Failing;
    impl tower_service::Service<http::Request<bequest_http::server::RequestBody>> for Failing {
        type Response = http::Response<String>;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<http::Response<String>, std::io::Error>>;

        fn poll_ready(
            &mut self,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), std::io::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: http::Request<bequest_http::server::RequestBody>) -> Self::Future {
            std::future::ready(Err(std::io::Error::other("the disk is full")))
        }
    }
    let mut server = TestServer::start(Failing).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    assert_eq!(client.answer().await.status, 500);
    let Event::Finished { end, status, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!(status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(end.cause().expect("a cause").to_string(), "the disk is full");
}
