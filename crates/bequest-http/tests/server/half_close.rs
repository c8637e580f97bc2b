//! A client that closes its sending side: told apart from one that is gone, as far as that can be known.

use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{Disconnect, HalfClose, PeerState, Server, WhyDropped};
use tokio::io::AsyncWriteExt;

use super::common::{Event, Http1, Http2, TestClock, TestServer, full, probe, until};

const STEP: Duration = Duration::from_millis(500);

#[tokio::test]
async fn the_peer_tells_open_from_half_closed_from_reset() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    assert_eq!(arrival.peer.state(), PeerState::Open);
    client.stream.shutdown().await.expect("an open socket");
    arrival.end().await;
    assert_eq!(arrival.peer.state(), PeerState::HalfClosed);
    client.reset();
    until("the reset to be seen behind the half-close", || {
        arrival.peer.state() == PeerState::Reset
    })
    .await;
}

#[tokio::test]
async fn on_http2_a_closed_connection_is_never_half_closed() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let _stream = client.request("/").await;
    let arrival = arrivals.next().await;
    client.leave();
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
    // A reset if the client left something unread itself.
    assert!(arrival.peer.state() > PeerState::HalfClosed);
}

#[tokio::test]
async fn where_half_closed_clients_stay_the_context_lives_until_the_reset() {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().half_close(HalfClose::Stays);
    let mut server = TestServer::with(builder, Context::background(), service).await;

    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/answered").await;
    let mut arrival = arrivals.next().await;
    client.stream.shutdown().await.expect("an open socket");
    until("the half-close", || arrival.peer.state() == PeerState::HalfClosed).await;
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("still here"));
    assert_eq!(client.answer().await.body, "still here");
    let Event::Finished { logged, end, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!((logged.as_u16(), end.reason()), (200, Reason::ResponseEnded));

    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/reset").await;
    let arrival = arrivals.next().await;
    client.stream.shutdown().await.expect("an open socket");
    until("the half-close", || arrival.peer.state() == PeerState::HalfClosed).await;
    assert!(!arrival.ctx.is_done());
    client.reset();
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn an_answer_to_a_half_closed_client_is_logged_as_499() {
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    client.stream.shutdown().await.expect("an open socket");
    arrival.end().await;
    arrival.answer(full("perhaps to nobody"));
    let Event::Finished { status, logged, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!(
        (status.map(|status| status.as_u16()), logged.as_u16()),
        (Some(200), 499)
    );
}

#[tokio::test]
async fn the_grace_of_a_connection_is_one_grace_for_all_that_is_pipelined() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Grace(Duration::from_secs(5)));
    let mut server = TestServer::with(builder, clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    for path in ["/1", "/2", "/3"] {
        client.request("GET", path).await;
    }
    let first = arrivals.next().await;
    client.stream.shutdown().await.expect("an open socket");
    first.end().await;
    let (why, waited) = clock.step_until(STEP, "the drop", server.events.dropped()).await;
    assert_eq!(why, WhyDropped::GraceOver);
    assert!(waited >= Duration::from_secs(5));
    server.events.closed().await;
    assert!(arrivals.is_empty(), "nothing is begun once the grace is over");
}
