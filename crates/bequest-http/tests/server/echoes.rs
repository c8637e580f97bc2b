//! Bodies and tunnels that send back what comes, through windows of all sizes and on several threads, while some of them are reset:
//! whoever waits is woken, so that each of the others comes back whole.

use bequest_http::server::{RequestBody, service_fn};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};

use super::common::{TestBody, TestServer, full, guard, until};

const STREAMS: usize = 100;

/// Sends back what comes: `/at-once` where the handler was begun, `/later` in a task of its own, a tunnel by its halves.
async fn echo(mut request: Request<RequestBody>) -> Response<TestBody> {
    if request.method() == Method::CONNECT {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = split(TokioIo::new(upgrade.await.expect("a tunnel")));
            // A client that has reset it does not read on.
            if copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        });
        return full("");
    }
    if request.uri().path() == "/later" {
        yield_now().await;
    }
    Response::new(request.into_body().boxed_unsync())
}

/// Asks for an echo of so many bytes. Answers how many have come, or nothing if the stream is reset half way.
async fn ask(send: h2::client::SendRequest<Bytes>, nth: usize, size: usize) -> Option<usize> {
    let (method, uri) = [
        (Method::CONNECT, "test:80"),
        (Method::POST, "http://test/later"),
        (Method::POST, "http://test/at-once"),
    ][nth % 3]
        .clone();
    let request = Request::builder().method(method).uri(uri).body(());
    let mut send = send.ready().await.expect("an open connection");
    let (response, mut up) = send
        .send_request(request.expect("a request"), false)
        .expect("a stream");
    let resets = nth % 10 == 7;
    let upload = tokio::spawn(async move {
        let mut left = size;
        while left > 0 {
            up.reserve_capacity(left.min(5_000));
            let room = std::future::poll_fn(|cx| up.poll_capacity(cx)).await;
            let part = room.expect("an open stream").expect("room").min(left);
            left -= part;
            up.send_data(Bytes::from(vec![b'x'; part]), left == 0)
                .expect("an open stream");
            if resets && left < size / 2 {
                return up.send_reset(h2::Reason::CANCEL);
            }
        }
    });
    let come = async {
        let mut body = response.await?.into_body();
        let mut come = 0;
        while let Some(data) = body.data().await {
            let part = data?.len();
            come += part;
            body.flow_control().release_capacity(part)?;
        }
        Ok::<_, h2::Error>(come)
    };
    let come = come.await;
    upload.await.expect("no panic");
    match resets {
        true => None,
        false => Some(come.expect("an echo")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_sent_back_through_small_windows_comes_back_whole() {
    let server = TestServer::start(service_fn(echo)).await;
    for (window, size) in [
        (1, 200),
        (17, 2_000),
        (1_000, 60_000),
        (65_535, 300_000),
        (1 << 20, 300_000),
    ] {
        let socket = TcpStream::connect(server.addr).await.expect("it accepts");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let (send, connection) = builder.handshake(socket).await.expect("a server");
        let connection = tokio::spawn(connection);
        let mut streams = JoinSet::new();
        for nth in 0..STREAMS {
            streams.spawn(ask(send.clone(), nth, size));
        }
        let come = guard("the echoes", streams.join_all()).await;
        let whole = come.iter().flatten().filter(|come| **come == size).count();
        assert_eq!(whole, STREAMS * 9 / 10, "windows of {window}");
        connection.abort();
    }
    until("all to be over", || server.statistics.snapshot().requests == 0).await;
    let counted = server.statistics.snapshot();
    assert_eq!(counted.served + counted.client_gone, 5 * STREAMS as u64);
}
