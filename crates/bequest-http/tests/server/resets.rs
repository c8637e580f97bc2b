//! Clients of HTTP/2 that reset streams: who gives up all that is open, or some of what is asked for, keeps its connection and
//! whatever else it has asked for; who resets all that it opens is sent away.
//!
//! The server's clock stands, so that no reset comes back with time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bequest::Reason;
use bequest_http::server::{BoxError, Limits, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, channel::Channel};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::common::{
    Event, Frame as Http2Frame, RawHttp2, TestBody, TestClock, TestServer, http2_bytes, until,
};

/// As many streams as a client may have at once by default.
const STREAMS: u32 = 200;

/// What a server of these tests answers: `/stays` once it is let, `/more` at once, and anything else never.
async fn answer(path: String, let_go: Arc<Semaphore>) -> Response<Full<Bytes>> {
    match path.as_str() {
        "/stays" => let_go.acquire().await.expect("an open semaphore").forget(),
        "/more" => {}
        _ => std::future::pending().await,
    }
    Response::new(Full::default())
}

async fn server(limits: Limits) -> (TestServer, Arc<Semaphore>) {
    let let_go = Arc::new(Semaphore::new(0));
    let service = service_fn({
        let let_go = let_go.clone();
        move |request: Request<RequestBody>| answer(request.uri().path().to_owned(), let_go.clone())
    });
    let builder = Server::builder().limits(limits);
    let server = TestServer::with(builder, TestClock::new().context(), service).await;
    (server, let_go)
}

fn resets(resets: u32) -> Limits {
    Limits {
        resets,
        ..Limits::default()
    }
}

/// hyper with its default settings.
async fn hyper_alone() -> (SocketAddr, Arc<Semaphore>) {
    let let_go = Arc::new(Semaphore::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let waits = let_go.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let answer = answer(request.uri().path().to_owned(), waits.clone());
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // Its end is what the client sees.
        drop(http.serve_connection(TokioIo::new(stream), service).await);
    });
    (addr, let_go)
}

fn ids(first: u32, count: u32) -> impl Iterator<Item = u32> + Clone {
    (0..count).map(move |nth| first + 2 * nth)
}

fn open(ids: impl Iterator<Item = u32>) -> Vec<u8> {
    ids.flat_map(|id| http2_bytes::get(id, "/waits")).collect()
}

fn reset(ids: impl Iterator<Item = u32>) -> Vec<u8> {
    ids.flat_map(http2_bytes::reset).collect()
}

/// A client with one request under way opens `count` more and gives all of these up, in one piece, so that the server has not
/// looked at any of them before. Answers how its connection ended, if it did; otherwise the one request is answered, and another
/// one.
async fn mass_cancel(addr: SocketAddr, let_go: &Semaphore, count: u32) -> Option<Http2Frame> {
    let mut client = RawHttp2::connect(addr).await;
    client.get(1, "/stays").await;
    assert!(client.is_answered().await);
    let cancelled = ids(3, count);
    let bytes = [open(cancelled.clone()), reset(cancelled)].concat();
    assert!(client.try_send(&bytes).await);
    let_go.add_permits(1);
    let mut wanted = vec![1, 3 + 2 * count];
    client.get(3 + 2 * count, "/more").await;
    while !wanted.is_empty() {
        let frame = client.next().await.expect("a word before the end");
        match frame.kind {
            RawHttp2::GOAWAY => return Some(frame),
            RawHttp2::HEADERS => wanted.retain(|id| *id != frame.stream),
            RawHttp2::RST_STREAM => panic!("{frame:?}"),
            _ => {}
        }
    }
    heard(&mut client).await.err()
}

/// How many streams of such a client had come when it was sent away, the first one not among them.
fn opened(away: &Http2Frame) -> u32 {
    let last = away.payload[..4].try_into().expect("four bytes");
    (u32::from_be_bytes(last) - 1) / 2
}

fn is_enhance_your_calm(frame: &Http2Frame) -> bool {
    frame.kind == RawHttp2::GOAWAY
        && frame.payload[4..8] == u32::from(h2::Reason::ENHANCE_YOUR_CALM).to_be_bytes()
}

#[tokio::test]
async fn who_gives_up_all_that_nobody_has_looked_at_keeps_its_connection_and_its_other_requests() {
    // One of those that may be open at once stays.
    for count in [100, STREAMS - 1] {
        let (server, let_go) = server(Limits::default()).await;
        assert_eq!(mass_cancel(server.addr, &let_go, count).await, None);
        until("the requests to be over", || {
            server.statistics.snapshot().client_gone == u64::from(count)
        })
        .await;
        let counted = server.statistics.snapshot();
        assert_eq!((counted.served, counted.closed_for_resets), (2, 0));
    }
}

#[tokio::test]
async fn control_hyper_alone_closes_that_connection() {
    for count in [100, STREAMS - 1] {
        let (addr, let_go) = hyper_alone().await;
        let end = mass_cancel(addr, &let_go, count).await.expect("it is closed");
        assert!(is_enhance_your_calm(&end), "{end:?}");
    }
}

#[tokio::test]
async fn control_with_the_engines_number_as_the_limit_it_is_closed_too() {
    let (server, let_go) = server(resets(20)).await;
    let end = mass_cancel(server.addr, &let_go, 100)
        .await
        .expect("it is closed");
    assert!(is_enhance_your_calm(&end), "{end:?}");
}

/// How streams are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// In the breath in which they were opened.
    AtOnce,
    /// When their handlers have begun.
    Begun,
    /// By the server, which is made to: the window of each would be larger than one may be.
    ByTheServer,
}

/// Opens twenty streams and gives them up, again and again, until the server has had enough or there were so many of them.
async fn attack(client: &mut RawHttp2, how: How, most: u32) -> Result<(), Http2Frame> {
    let ends = |id| match how {
        How::AtOnce | How::Begun => http2_bytes::reset(id),
        How::ByTheServer => {
            http2_bytes::frame(RawHttp2::WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())
        }
    };
    let mut next = 3;
    for _ in 0..most / 20 {
        let ids = ids(next, 20);
        next += 40;
        let (opening, ending) = (open(ids.clone()), ids.flat_map(ends).collect());
        let breaths = match how {
            How::AtOnce => vec![[opening, ending].concat()],
            How::Begun | How::ByTheServer => vec![opening, ending],
        };
        for breath in breaths {
            // Who is being sent away may not be heard any more, and shall read why.
            client.try_send(&breath).await;
            heard(client).await?;
        }
    }
    Ok(())
}

/// Whether the server answers a ping, or sends the client away.
async fn heard(client: &mut RawHttp2) -> Result<(), Http2Frame> {
    client
        .try_send(&http2_bytes::frame(RawHttp2::PING, 0, 0, b"are you?"))
        .await;
    loop {
        let frame = client.next().await.expect("a word before the end");
        match frame.kind {
            RawHttp2::GOAWAY => return Err(frame),
            RawHttp2::PING if frame.flags & RawHttp2::ACK != 0 => return Ok(()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn who_resets_all_that_it_opens_is_sent_away_with_a_reason() {
    for how in [How::AtOnce, How::Begun, How::ByTheServer] {
        let (mut server, _let_go) = server(resets(100)).await;
        let mut client = RawHttp2::connect(server.addr).await;
        client.get(1, "/stays").await;
        let away = attack(&mut client, how, 1_000)
            .await
            .expect_err("it is sent away");
        assert!(is_enhance_your_calm(&away), "{how:?}: {away:?}");
        assert_eq!(away.payload[8..], *b"too many resets");
        assert_eq!(
            opened(&away),
            120,
            "{how:?}: the hundred and first is one too many"
        );
        assert_eq!(client.next().await, None, "and nothing more is said");
        drop(client);
        let reason = Reason::Limit("resets");
        assert_eq!(server.events.closed().await.reason(), reason, "{how:?}");
        assert_eq!(server.statistics.snapshot().closed_for_resets, 1);
    }
}

#[tokio::test]
async fn the_other_requests_of_such_a_client_end_with_that_reason() {
    let (mut server, _let_go) = server(resets(100)).await;
    let mut client = RawHttp2::connect(server.addr).await;
    client.get(1, "/stays").await;
    attack(&mut client, How::Begun, 1_000)
        .await
        .expect_err("it is sent away");
    let end = server
        .events
        .next("the other request to end", |event| match event {
            Event::Finished { path, end, .. } if path == "/stays" => Some(end),
            _ => None,
        })
        .await;
    assert_eq!(end.reason(), Reason::Limit("resets"));
}

#[tokio::test]
async fn by_default_five_mass_cancels_in_a_row_are_not_too_many_and_more_are() {
    for how in [How::AtOnce, How::Begun] {
        let (server, _let_go) = server(Limits::default()).await;
        let mut client = RawHttp2::connect(server.addr).await;
        assert_eq!(attack(&mut client, how, 5 * STREAMS).await, Ok(()), "{how:?}");
        let mut client = RawHttp2::connect(server.addr).await;
        let away = attack(&mut client, how, 10 * STREAMS)
            .await
            .expect_err("it is sent away");
        assert_eq!(opened(&away), 5 * STREAMS + 20, "{how:?}");
    }
}

#[tokio::test]
async fn control_without_the_limit_nobody_is_sent_away() {
    for how in [How::AtOnce, How::Begun] {
        let (server, _let_go) = server(resets(u32::MAX)).await;
        let mut client = RawHttp2::connect(server.addr).await;
        assert_eq!(attack(&mut client, how, 4_000).await, Ok(()), "{how:?}");
    }
}

/// More than the engine may hold are opened and reset before anybody looks at them.
#[tokio::test]
async fn they_do_not_pile_up_in_the_engine_however_many_come_in_one_piece() {
    let (server, _let_go) = server(resets(u32::MAX)).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let pairs = ids(1, 10_000).flat_map(|id| [http2_bytes::get(id, "/waits"), http2_bytes::reset(id)]);
    assert!(client.try_send(&pairs.flatten().collect::<Vec<u8>>()).await);
    assert_eq!(heard(&mut client).await, Ok(()));
    until("all to be over", || {
        server.statistics.snapshot().client_gone == 10_000
    })
    .await;
}

#[tokio::test]
async fn once_it_is_one_too_many_nothing_more_is_read() {
    let (server, _let_go) = server(resets(100)).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let pairs: Vec<Vec<u8>> = ids(1, 10_000)
        .map(|id| [http2_bytes::get(id, "/waits"), http2_bytes::reset(id)].concat())
        .collect();
    // It may be sent away before it has sent all, and shall read why.
    client.try_send(&pairs.concat()).await;
    let away = heard(&mut client).await.expect_err("it is sent away");
    // The engine reads 8 KiB at once.
    let one_read = 8 * 1024 / u32::try_from(pairs[0].len()).expect("a short one") + 1;
    assert!(opened(&away) <= 101 + one_read, "{}", opened(&away));
}

/// Gives up one request in so many, and has the others answered, until it is sent away or has asked so often.
async fn proxy(client: &mut RawHttp2, one_in: u32, most: u32) -> Result<(), Http2Frame> {
    for nth in 1..=most {
        let id = 2 * nth + 1;
        if nth % one_in != 0 {
            client.get(id, "/more").await;
            heard(client).await?;
            continue;
        }
        client.get(id, "/waits").await;
        heard(client).await?;
        client.reset(id).await;
    }
    heard(client).await
}

#[tokio::test]
async fn who_lets_half_of_its_requests_be_answered_is_never_sent_away() {
    for one_in in [30, 2] {
        let (server, _let_go) = server(resets(20)).await;
        let mut client = RawHttp2::connect(server.addr).await;
        assert_eq!(proxy(&mut client, one_in, 2_000).await, Ok(()), "one in {one_in}");
        let counted = server.statistics.snapshot();
        assert_eq!(counted.served + counted.client_gone, 2_000);
        assert_eq!(counted.client_gone, u64::from(2_000 / one_in));
    }
}

#[tokio::test]
async fn control_who_lets_none_be_answered_is() {
    let (server, _let_go) = server(resets(20)).await;
    let mut client = RawHttp2::connect(server.addr).await;
    proxy(&mut client, 1, 2_000).await.expect_err("it is sent away");
}

/// How answers break off that the server does not bring to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaks {
    Failing,
    Panicking,
    Late,
}

impl Breaks {
    fn answer(self) -> Response<TestBody> {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(2);
        sender
            .try_send(Frame::data(Bytes::from_static(b"half of it")))
            .expect("an empty channel");
        match self {
            Breaks::Failing => sender.abort("on purpose".into()),
            Breaks::Late => drop(tokio::spawn(async move {
                let _sender = sender;
                std::future::pending::<()>().await
            })),
            Breaks::Panicking => {
                let body = body.map_frame(|_| panic!("on purpose"));
                return Response::new(body.boxed_unsync());
            }
        }
        Response::new(body.boxed_unsync())
    }
}

/// A stream that the server resets is none that its client has given up.
#[tokio::test]
async fn who_is_reset_by_the_server_for_its_own_sake_is_never_sent_away() {
    const SECOND: Duration = Duration::from_secs(1);
    for how in [Breaks::Failing, Breaks::Panicking, Breaks::Late] {
        let clock = TestClock::new();
        let limits = Limits {
            request: SECOND,
            answer: SECOND,
            ..resets(5)
        };
        let service = service_fn(move |_: Request<RequestBody>| async move { how.answer() });
        let builder = Server::builder().limits(limits);
        let server = TestServer::with(builder, clock.context(), service).await;
        let mut client = RawHttp2::connect(server.addr).await;
        for id in ids(1, 100) {
            client.get(id, "/").await;
        }
        let mut is_reset = 0;
        let all = async {
            while is_reset < 100 {
                let frame = client.next().await.expect("a word before the end");
                assert_ne!(frame.kind, RawHttp2::GOAWAY, "{how:?}");
                is_reset += u32::from(frame.kind == RawHttp2::RST_STREAM);
            }
        };
        match how {
            Breaks::Late => drop(clock.step_until(SECOND / 4, "all to be late", all).await),
            Breaks::Failing | Breaks::Panicking => all.await,
        }
        assert_eq!(heard(&mut client).await, Ok(()), "{how:?}");
        let counted = server.statistics.snapshot();
        assert_eq!(
            (counted.requests, counted.client_gone, counted.served),
            (0, 0, 0),
            "{how:?}"
        );
    }
}
