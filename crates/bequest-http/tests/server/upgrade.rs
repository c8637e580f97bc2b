//! Connections that change their protocol: a context of their own, that sees what becomes of the client and the server.

use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{RequestBody, Server, Upgrade, service_fn};
use http::{Request, Response, StatusCode, Version, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::common::{Http1, RawHttp2, TestBody, TestClock, TestServer, full, guard, http2_bytes, until};

/// What the handler tells of an upgrade.
struct Upgraded {
    request: Context,
    upgrade: Context,
    socket: TokioIo<hyper::upgrade::Upgraded>,
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// A server that changes the protocol, or opens a tunnel of HTTP/2, whenever it is asked, and hands the socket to the test.
async fn start(root: Context) -> (TestServer, mpsc::UnboundedReceiver<Upgraded>) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = service_fn(move |mut request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let Some(upgrade) = request.extensions().get::<Upgrade>().cloned() else {
                return full("nothing asked");
            };
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            let version = request.version();
            let socket = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let upgraded = Upgraded {
                    request: ctx,
                    upgrade: upgrade.context().clone(),
                    socket: TokioIo::new(socket.await.expect("an upgrade")),
                };
                // A test that has ended hears nothing any more.
                let _ = tell.send(upgraded);
            });
            match version {
                // A tunnel has no body, and nothing is missing of the answer.
                Version::HTTP_2 => full("nobody is sent this"),
                _ => switching(),
            }
        }
    });
    (TestServer::with(Server::builder(), root, service).await, told)
}

fn switching() -> Response<TestBody> {
    let mut response = full("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response
}

async fn upgraded(server: &TestServer, told: &mut mpsc::UnboundedReceiver<Upgraded>) -> (Http1, Upgraded) {
    let mut client = Http1::connect(server.addr).await;
    client.send(ASK).await;
    assert_eq!(client.head().await.status, 101);
    let upgraded = guard("the upgrade", told.recv()).await.expect("a handler");
    (client, upgraded)
}

#[tokio::test]
async fn an_upgrade_outlives_its_request_and_sees_its_client_leave() {
    let (server, mut told) = start(Context::background()).await;
    let (mut client, mut upgraded) = upgraded(&server, &mut told).await;
    assert_eq!(
        guard("the request", upgraded.request.done()).await.reason(),
        Reason::ResponseEnded
    );
    assert!(!upgraded.upgrade.is_done());
    client.send("ping").await;
    let mut got = [0; 4];
    guard("the bytes", upgraded.socket.read_exact(&mut got))
        .await
        .expect("an open socket");
    assert_eq!(&got, b"ping");
    upgraded.socket.write_all(b"pong").await.expect("an open socket");
    guard("the answer", client.stream.read_exact(&mut got))
        .await
        .expect("an open socket");
    assert_eq!(&got, b"pong");
    // Left unread: nobody waits on the socket when the client goes.
    client.send("unread").await;
    drop(client);
    let end = guard("the departure", upgraded.upgrade.done()).await;
    assert_eq!(end.reason(), Reason::ClientGone);
    assert_eq!(server.statistics.snapshot().connections, 1);
    drop(upgraded.socket);
    until("the connection to be over", || {
        server.statistics.snapshot().connections == 0
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_ends_with_its_socket() {
    let (mut server, mut told) = start(Context::background()).await;
    let (mut client, upgraded) = upgraded(&server, &mut told).await;
    drop(upgraded.socket);
    assert_eq!(
        guard("the end", upgraded.upgrade.done()).await.reason(),
        Reason::ResponseEnded
    );
    assert_eq!(client.rest().await, "");
    assert_eq!(server.events.closed().await.reason(), Reason::ResponseEnded);
}

#[tokio::test]
async fn an_upgrade_hears_of_the_shutdown_at_once_and_is_hung_up_at_its_last_step() {
    let clock = TestClock::new();
    let (server, mut told) = start(clock.context()).await;
    let (mut client, mut upgraded) = upgraded(&server, &mut told).await;
    server.process.cancel_for(Reason::Shutdown);
    let end = guard("the shutdown", upgraded.upgrade.done()).await;
    assert_eq!(
        (end.reason(), clock.elapsed()),
        (Reason::Shutdown, Duration::ZERO)
    );
    upgraded
        .socket
        .write_all(b"bye")
        .await
        .expect("there is time for a farewell");
    let step = Duration::from_millis(500);
    let (summary, waited) = clock.step_until(step, "the last step", server.ended()).await;
    assert!(
        waited >= Duration::from_secs(12),
        "the drain and the grace, not {waited:?}"
    );
    assert_eq!(summary.unfinished, 0);
    assert_eq!(client.rest().await, "bye");
    let mut rest = Vec::new();
    let read = guard("the hang-up", upgraded.socket.read_to_end(&mut rest)).await;
    assert!(read.is_err() || rest.is_empty());
}

#[tokio::test]
async fn an_upgrade_that_takes_the_shutdown_to_heart_delays_nothing() {
    let clock = TestClock::new();
    let (server, mut told) = start(clock.context()).await;
    let (_client, upgraded) = upgraded(&server, &mut told).await;
    tokio::spawn(async move {
        upgraded.upgrade.done().await;
        drop(upgraded.socket);
    });
    server.stop().await;
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_request_that_asks_for_nothing_is_offered_nothing() {
    let (server, _told) = start(Context::background()).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    assert_eq!(client.answer().await.body, "nothing asked");
}

/// Asks for a tunnel on this stream of HTTP/2.
async fn connect(client: &mut RawHttp2, stream: u32) {
    let block = [
        http2_bytes::field(":method", "CONNECT"),
        http2_bytes::field(":authority", "test:80"),
    ];
    client
        .frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, stream, &block.concat())
        .await;
}

#[tokio::test]
async fn each_tunnel_of_http2_has_a_context_of_its_own_that_ends_with_the_connection() {
    let (server, mut told) = start(Context::background()).await;
    let mut client = RawHttp2::connect(server.addr).await;
    connect(&mut client, 1).await;
    let mut first = guard("a tunnel", told.recv()).await.expect("a handler");
    connect(&mut client, 3).await;
    let second = guard("another one", told.recv()).await.expect("a handler");
    for tunnel in [&first, &second] {
        let end = guard("the request", tunnel.request.done()).await;
        assert_eq!(end.reason(), Reason::ResponseEnded);
        assert!(!tunnel.upgrade.is_done());
    }
    client.frame(RawHttp2::DATA, 0, 1, b"ping").await;
    let mut got = [0; 4];
    guard("the bytes", first.socket.read_exact(&mut got))
        .await
        .expect("an open tunnel");
    assert_eq!(&got, b"ping");
    drop(client);
    for tunnel in [&first, &second] {
        let end = guard("the departure", tunnel.upgrade.done()).await;
        assert_eq!(end.reason(), Reason::ClientGone);
    }
}

#[tokio::test]
async fn tunnels_of_http2_hear_of_the_shutdown_at_once() {
    let clock = TestClock::new();
    let (server, mut told) = start(clock.context()).await;
    let mut client = RawHttp2::connect(server.addr).await;
    connect(&mut client, 1).await;
    let tunnel = guard("a tunnel", told.recv()).await.expect("a handler");
    server.process.cancel_for(Reason::Shutdown);
    let end = guard("the shutdown", tunnel.upgrade.done()).await;
    assert_eq!(
        (end.reason(), clock.elapsed()),
        (Reason::Shutdown, Duration::ZERO)
    );
    drop(tunnel);
    drop(client);
    server.stop().await;
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

/// A server whose idle limit is 60 s.
async fn with_a_tunnel(clock: &TestClock) -> (TestServer, RawHttp2, Upgraded) {
    let (server, mut told) = start(clock.context()).await;
    let mut client = RawHttp2::connect(server.addr).await;
    connect(&mut client, 1).await;
    let tunnel = guard("a tunnel", told.recv()).await.expect("a handler");
    (server, client, tunnel)
}

#[tokio::test]
async fn a_connection_of_http2_is_not_idle_while_a_tunnel_is_open_and_is_after_that() {
    let clock = TestClock::new();
    let (mut server, mut client, mut tunnel) = with_a_tunnel(&clock).await;
    for _ in 0..60 {
        clock.advance(Duration::from_secs(5));
        client.frame(RawHttp2::DATA, 0, 1, b"ping").await;
        let mut got = [0; 4];
        guard("the bytes", tunnel.socket.read_exact(&mut got))
            .await
            .expect("an open tunnel");
    }
    assert!(!tunnel.upgrade.is_done());
    drop(tunnel);
    let step = Duration::from_secs(1);
    let (end, waited) = clock.step_until(step, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("idle"));
    assert!(waited >= Duration::from_secs(60));
    drop(client);
}

#[tokio::test]
async fn a_client_of_http2_with_an_open_tunnel_is_asked_whether_it_is_there() {
    let clock = TestClock::new();
    let (mut server, client, tunnel) = with_a_tunnel(&clock).await;
    let step = Duration::from_secs(1);
    let (end, waited) = clock.step_until(step, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Unreachable);
    assert!(waited >= Duration::from_secs(30));
    assert_eq!(
        tunnel.upgrade.err().map(|end| end.reason()),
        Some(Reason::Unreachable)
    );
    drop(client);
}
