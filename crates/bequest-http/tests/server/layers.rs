//! The contexts without this crate's accept loop: under `axum::serve`, and under a loop on hyper written by hand. What is said
//! of each in the table of `server::Layers` is held here, and what is said not to be there is shown not to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{any, get};
use bequest::{CancelScope, Canceled, Context, Reason};
use bequest_http::axum::Ctx;
use bequest_http::server::{ConnInfo, Layers, Limits, Peer, PeerState, Server, WhyDropped};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower_layer::Layer;

use super::common::{
    Http1, Http2, RawHttp2, Recorded, TestClock, full, guard, header_block, probe_of, recorder,
};

const STEP: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// A handler of the router below that has begun, holding its request's body unread.
struct Begun {
    ctx: Context,
    peer: Option<Peer>,
    answer: oneshot::Sender<&'static str>,
}

impl Begun {
    async fn end(&self) -> Canceled {
        guard("the context to end", self.ctx.done()).await
    }

    /// Whether the handler's future still exists.
    fn is_alive(&self) -> bool {
        !self.answer.is_closed()
    }
}

struct Handlers(mpsc::UnboundedReceiver<Begun>);

impl Handlers {
    async fn next(&mut self) -> Begun {
        guard("a handler to begin", self.0.recv())
            .await
            .expect("the router is alive")
    }
}

/// A router whose handlers are in the hands of the test.
fn router() -> (Router, Handlers) {
    let (tell, told) = mpsc::unbounded_channel();
    let handler = move |Ctx(ctx): Ctx, request: Request| {
        let tell = tell.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let peer = request.extensions().get::<Peer>().cloned();
            // A test that has ended hears nothing any more.
            let _ = tell.send(Begun { ctx, peer, answer });
            let text = answered.await.unwrap_or("given up");
            drop(request);
            text
        }
    };
    (Router::new().route("/", any(handler)), Handlers(told))
}

/// A loop, until it is dropped.
struct Loop {
    addr: SocketAddr,
    layers: Arc<Layers>,
    process: CancelScope,
    events: Recorded,
    task: JoinHandle<()>,
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// `axum::serve` around a router with the layer.
    Axum,
    /// `axum::serve` with each connection introduced.
    AxumIntroducing,
    /// hyper by hand, each connection introduced.
    Hyper,
}

async fn start(how: How, app: Router, root: Context, limits: Limits) -> Loop {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let process = root.with_cancel();
    let (observer, events) = recorder();
    let layers = Server::builder()
        .limits(limits)
        .observer(observer)
        .layers(&process);
    let layers = Arc::new(layers);
    let task = match how {
        How::Axum => {
            let app = app.layer(layers.layer());
            tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") })
        }
        How::AxumIntroducing => {
            let app = layers.introducing(app);
            tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") })
        }
        How::Hyper => tokio::spawn(hyper_loop(listener, layers.clone(), app)),
    };
    Loop {
        addr,
        layers,
        process,
        events,
        task,
    }
}

async fn hyper_loop(listener: TcpListener, layers: Arc<Layers>, app: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("it accepts");
        let service = layers.connection(&stream).expect("an open socket");
        let service = TowerToHyperService::new(service.layer(app.clone()));
        connections.spawn(async move {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().half_close(true);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            // Its end is what the handlers see.
            drop(served.await);
        });
    }
}

/// Sends a request of HTTP/1 that has no `Host`; the status of its answer, and whether the connection goes on. A handler that
/// begins answers.
async fn without_host(client: &mut Http1, mut handlers: Handlers) -> (u16, bool) {
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    let answering = tokio::spawn(async move {
        while let Some(begun) = handlers.0.recv().await {
            // A client that has gone hears nothing.
            let _ = begun.answer.send("served");
        }
    });
    let status = client.answer().await.status;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let goes_on = guard(
        "the next answer, or the end",
        tokio::io::AsyncReadExt::read(&mut client.stream, &mut [0]),
    )
    .await;
    answering.abort();
    (status, goes_on.is_ok_and(|size| size > 0))
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_where_the_connection_is_introduced() {
    for how in [How::AxumIntroducing, How::Hyper] {
        let (app, handlers) = router();
        let mut serving = start(how, app, Context::background(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        assert_eq!(without_host(&mut client, handlers).await, (400, false), "{how:?}");
        serving.events.finished().await;
    }
}

#[tokio::test]
async fn control_no_loop_refuses_it_by_itself() {
    let (app, handlers) = router();
    let serving = start(How::Axum, app, Context::background(), Limits::default()).await;
    let mut client = Http1::connect(serving.addr).await;
    assert_eq!(without_host(&mut client, handlers).await, (200, true));
}

#[tokio::test]
async fn it_can_be_asked_for_and_left_out() {
    for (check, answer) in [(true, (400, false)), (false, (200, true))] {
        let (app, handlers) = router();
        let layers = Server::builder().layers(&Context::background());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = Http1::connect(listener.local_addr().expect("an address")).await;
        let (stream, _) = listener.accept().await.expect("a client");
        let layer = match check {
            true => layers.layer(),
            false => layers.connection(&stream).expect("an open socket"),
        };
        let service = TowerToHyperService::new(layer.check_form(check).layer(app));
        let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let serving = tokio::spawn(async move { drop(http.await) });
        assert_eq!(without_host(&mut client, handlers).await, answer);
        serving.abort();
    }
}

/// Whether a handler takes half a body for a whole one, when its stream is reset as if there were no error. `as_it_came`: the
/// layer is around the router, and not in it, where the body is one of axum's making.
async fn takes_half_for_whole(as_it_came: bool) -> bool {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |request: Request| {
        let tell = tell.clone();
        async move {
            // A test that has ended hears nothing any more.
            let _ = tell.send(None);
            let read = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            let _ = tell.send(Some(read.is_ok()));
        }
    };
    let app = Router::new().route("/", any(handler));
    let layers = Server::builder().layers(&Context::background());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let (stream, layer) = (TokioIo::new(stream), layers.layer());
        // Its end is the client's.
        match as_it_came {
            true => drop(
                builder
                    .serve_connection(stream, TowerToHyperService::new(layer.layer(app)))
                    .await,
            ),
            false => drop(
                builder
                    .serve_connection(stream, TowerToHyperService::new(app.layer(layer)))
                    .await,
            ),
        }
    });
    let mut client = RawHttp2::connect(addr).await;
    let head = header_block("/");
    client
        .frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &head)
        .await;
    client.frame(RawHttp2::DATA, 0, 1, b"half").await;
    let mut next = async || guard("the handler", told.recv()).await.expect("it tells");
    assert_eq!(next().await, None, "it has begun");
    let no_error = u32::from(h2::Reason::NO_ERROR).to_be_bytes();
    client.frame(RawHttp2::RST_STREAM, 0, 1, &no_error).await;
    let whole = next().await.expect("its read");
    serving.abort();
    whole
}

#[tokio::test]
async fn a_reset_is_no_end_of_a_body_that_is_as_it_came() {
    assert!(!takes_half_for_whole(true).await);
}

#[tokio::test]
async fn control_of_a_body_of_somebody_elses_making_it_is() {
    assert!(takes_half_for_whole(false).await);
}

const UNREAD: &str = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nonly this much";

#[tokio::test]
async fn a_request_has_its_deadline_and_ends_with_its_body() {
    for how in [How::Axum, How::AxumIntroducing, How::Hyper] {
        let (app, mut handlers) = router();
        let mut serving = start(how, app, Context::background(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        client
            .send("GET / HTTP/1.1\r\nhost: test\r\ngrpc-timeout: 7S\r\n\r\n")
            .await;
        let begun = handlers.next().await;
        let left = begun.ctx.remaining().expect("a deadline");
        assert!(
            left <= 7 * SECOND && left > 2 * SECOND,
            "the caller's, not the limit"
        );
        assert_eq!(begun.peer.is_some(), how != How::Axum, "known only if introduced");
        let ctx = begun.ctx.clone();
        begun.answer.send("hello").expect("it waits");
        assert_eq!(client.answer().await.body, "hello");
        let end = guard("the end", ctx.done()).await;
        assert_eq!(end.reason(), Reason::ResponseEnded);
        serving.events.finished().await;
        assert_eq!(serving.layers.statistics().snapshot().served, 1);
    }
}

#[tokio::test]
async fn a_handler_is_told_and_then_has_its_grace() {
    for how in [How::Axum, How::AxumIntroducing, How::Hyper] {
        let clock = TestClock::new();
        let (app, mut handlers) = router();
        let mut serving = start(how, app, clock.context(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        client.request("GET", "/").await;
        let begun = handlers.next().await;
        if how == How::Hyper {
            client.reset();
        } else {
            drop(client);
        }
        assert_eq!(begun.end().await.reason(), Reason::ClientGone);
        assert!(begun.is_alive(), "told, and not torn down");
        let dropped = serving.events.dropped();
        let (why, waited) = clock.step_until(STEP, "the end of the grace", dropped).await;
        assert_eq!(why, WhyDropped::GraceOver);
        assert!(waited >= 5 * SECOND);
        assert!(!begun.is_alive());
    }
}

/// Whether a client that leaves behind an unread body is noticed before one that leaves later and has none.
async fn notices_behind_an_unread_body(how: How) -> bool {
    let (app, mut handlers) = router();
    let serving = start(how, app, Context::background(), Limits::default()).await;
    let mut client = Http1::connect(serving.addr).await;
    client.send(UNREAD).await;
    let begun = handlers.next().await;
    drop(client);
    let mut later = Vec::new();
    for _ in 0..5 {
        let mut client = Http1::connect(serving.addr).await;
        client.request("GET", "/").await;
        let begun = handlers.next().await;
        client.reset();
        begun.end().await;
        later.push(begun);
    }
    begun.ctx.is_done()
}

#[tokio::test]
async fn a_departure_behind_an_unread_body_is_noticed_where_the_connection_is_introduced() {
    for how in [How::AxumIntroducing, How::Hyper] {
        let (app, mut handlers) = router();
        let serving = start(how, app, Context::background(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        client.send(UNREAD).await;
        let begun = handlers.next().await;
        drop(client);
        assert_eq!(begun.end().await.reason(), Reason::ClientGone);
        assert_eq!(begun.peer.expect("known").state(), PeerState::HalfClosed);
    }
}

/// An answer that begins and waits for more, of a handler that never waited itself.
#[tokio::test]
async fn a_departure_amid_an_answer_is_noticed_where_the_connection_is_introduced() {
    for how in [How::AxumIntroducing, How::Hyper] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let stream = move |request: Request| {
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            tell.send(ctx).expect("the test listens");
            let (mut pieces, body) = http_body_util::channel::Channel::<bytes::Bytes>::new(1);
            tokio::spawn(async move {
                // The client leaves while it waits for more.
                let _ = pieces.send_data("a beginning".into()).await;
                std::future::pending::<()>().await;
            });
            std::future::ready(Response::new(Body::new(body)))
        };
        let app = Router::new().route("/", get(stream));
        let serving = start(how, app, Context::background(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        client.request("GET", "/").await;
        let ctx = told.recv().await.expect("a request");
        assert_eq!(client.head().await.status, 200);
        client.reset();
        let end = guard("the context to end", ctx.done()).await;
        assert_eq!(end.reason(), Reason::ClientGone);
    }
}

#[tokio::test]
async fn control_without_an_introduction_that_departure_is_not_noticed() {
    assert!(!notices_behind_an_unread_body(How::Axum).await);
}

#[tokio::test]
async fn a_half_closing_client_gets_its_answer_where_the_loop_keeps_it() {
    let (app, mut handlers) = router();
    let serving = start(How::Hyper, app, Context::background(), Limits::default()).await;
    let mut client = Http1::connect(serving.addr).await;
    client.request("GET", "/").await;
    let begun = handlers.next().await;
    let (mut read, write) = client.stream.into_split();
    drop(write);
    assert_eq!(begun.end().await.reason(), Reason::ClientGone);
    begun.answer.send("in time").expect("it waits");
    let mut answer = String::new();
    guard(
        "the answer",
        tokio::io::AsyncReadExt::read_to_string(&mut read, &mut answer),
    )
    .await
    .expect("an orderly end");
    assert!(answer.ends_with("in time"));
}

#[tokio::test]
async fn on_http2_streams_are_told_apart_from_their_connection() {
    let (app, mut handlers) = router();
    let serving = start(How::Hyper, app, Context::background(), Limits::default()).await;
    let client = Http2::connect(serving.addr).await;
    let stream = client.request("/").await;
    let (first, _other) = (handlers.next().await, client.request("/").await);
    let second = handlers.next().await;
    stream.reset();
    assert_eq!(first.end().await.reason(), Reason::StreamReset);
    assert!(!second.ctx.is_done());
    client.leave();
    assert_eq!(second.end().await.reason(), Reason::ClientGone);
    assert_eq!(second.peer.expect("known").state(), PeerState::Closed);
}

#[tokio::test]
async fn a_limit_that_passes_is_answered_in_the_handlers_place() {
    for how in [How::Axum, How::AxumIntroducing, How::Hyper] {
        let clock = TestClock::new();
        let (app, mut handlers) = router();
        let serving = start(how, app, clock.context(), Limits::default()).await;
        let mut client = Http1::connect(serving.addr).await;
        client.request("GET", "/").await;
        let begun = handlers.next().await;
        let (answer, waited) = clock.step_until(STEP, "the limit", client.answer()).await;
        assert_eq!(answer.status, 504);
        assert!(waited >= 30 * SECOND);
        assert_eq!(begun.end().await.reason(), Reason::Limit("request"));
    }
}

#[tokio::test]
async fn the_end_drains_then_tells_then_drops() {
    let clock = TestClock::new();
    let limits = Limits {
        request: Duration::MAX,
        ..Limits::default()
    };
    let (app, mut handlers) = router();
    let serving = start(How::Axum, app, clock.context(), limits).await;
    let mut clients = Vec::new();
    let mut begun = Vec::new();
    for _ in 0..2 {
        let mut client = Http1::connect(serving.addr).await;
        client.request("GET", "/").await;
        begun.push(handlers.next().await);
        clients.push(client);
    }
    serving.process.cancel_for(Reason::Shutdown);
    let layers = serving.layers.clone();
    let ending = tokio::spawn(async move { layers.run().await });
    // One is answered within the drain, as if nothing had happened.
    let first = begun.remove(0);
    assert!(!first.ctx.is_done());
    first.answer.send("in the drain").expect("it waits");
    assert_eq!(clients[0].answer().await.body, "in the drain");
    // The other is told at its end, and answered for.
    let (answer, waited) = clock
        .step_until(STEP, "the end of the drain", clients[1].answer())
        .await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(waited >= 10 * SECOND);
    assert_eq!(begun[0].end().await.reason(), Reason::Shutdown);
    let (summary, _) = clock.step_until(STEP, "the end", ending).await;
    let summary = summary.expect("no panic");
    assert_eq!((summary.unfinished, summary.statistics.requests), (0, 0));
    assert!(!begun[0].is_alive());
}

#[tokio::test]
async fn the_second_handle_keeps_no_connection_open() {
    let (service, mut arrivals) = probe_of();
    let process = Context::background().with_cancel();
    let (observer, mut events) = recorder();
    let layers = Server::builder().observer(observer).layers(&process);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut client = Http1::connect(listener.local_addr().expect("an address")).await;
    client.request("GET", "/").await;
    let (stream, _) = listener.accept().await.expect("a client");
    let service =
        TowerToHyperService::new(layers.connection(&stream).expect("an open socket").layer(service));
    let serving = tokio::spawn(async move {
        let http = hyper::server::conn::http1::Builder::new();
        // Its end is what the handler sees.
        drop(http.serve_connection(TokioIo::new(stream), service).await);
    });
    // The watch is armed, as its request waits.
    let mut arrival = arrivals.next().await;
    assert_eq!(arrival.conn.id(), 1);
    arrival.answer(full("hello"));
    assert_eq!(client.answer().await.body, "hello");
    serving.abort();
    assert_eq!(client.rest().await, "", "the server has closed");
    assert_eq!(events.closed().await.reason(), Reason::ResponseEnded);
}

#[tokio::test]
async fn dropped_without_its_end_every_context_ends() {
    let (app, mut handlers) = router();
    let layers = Server::builder().layers(&Context::background());
    let app = app.layer(layers.layer());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = Http1::connect(addr).await;
    client.request("GET", "/").await;
    let begun = handlers.next().await;
    drop(layers);
    begun.end().await;
    serving.abort();
}

/// What a hook adds reaches the requests of its connection.
#[tokio::test]
async fn an_introduced_connection_has_its_own_context() {
    static NUMBER: bequest::Key<u64> = bequest::Key::new("number");
    let layers = Server::builder()
        .conn_context(|ctx, conn: &ConnInfo| ctx.with_value(&NUMBER, conn.id()))
        .layers(&Context::background());
    let (service, mut arrivals) = probe_of();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    for number in 1..=2 {
        let mut client = Http1::connect(listener.local_addr().expect("an address")).await;
        client.request("GET", "/").await;
        let (stream, _) = listener.accept().await.expect("a client");
        let layer = layers.connection(&stream).expect("an open socket");
        let service = TowerToHyperService::new(layer.layer(service.clone()));
        let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let serving = tokio::spawn(async move { drop(http.await) });
        assert_eq!(arrivals.next().await.ctx.value(&NUMBER), Some(&number));
        serving.abort();
    }
}
