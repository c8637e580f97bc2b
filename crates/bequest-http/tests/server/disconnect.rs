//! Told, then grace, then dropped: the three modes, their bounds and their caps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::server::{
    Disconnect, DisconnectLayer, Limits, RequestBody, Server, WhyDropped, service_fn,
};
use http::Request;
use tokio::sync::{mpsc, oneshot};
use tower_layer::Layer;

use super::common::{Arrivals, Event, Http1, Http2, TestClock, TestServer, full, guard, probe, until};

const STEP: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_handler_in_grace_is_told_and_finishes_its_tidying_up() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (finish, finished) = oneshot::channel::<()>();
    let finished = Arc::new(tokio::sync::Mutex::new(Some(finished)));
    let service = service_fn(move |request: Request<RequestBody>| {
        let (tell, finished) = (tell.clone(), finished.clone());
        async move {
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            tell.send("began").expect("the test listens");
            ctx.done().await;
            tell.send("told").expect("the test listens");
            let finished = finished.lock().await.take().expect("one request");
            finished.await.expect("the test lets it finish");
            tell.send("tidied up").expect("the test listens");
            full("to nobody")
        }
    });
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    assert_eq!(guard("the handler", told.recv()).await, Some("began"));
    drop(client);
    assert_eq!(guard("the handler", told.recv()).await, Some("told"));
    until("the grace", || server.statistics.snapshot().in_grace == 1).await;
    finish.send(()).expect("the handler is alive");
    assert_eq!(guard("the handler", told.recv()).await, Some("tidied up"));
    until("the end of the grace", || {
        server.statistics.snapshot().in_grace == 0
    })
    .await;
    assert_eq!(server.statistics.snapshot().dropped, 0);
    server.events.finished().await;
    assert!(
        server
            .events
            .rest()
            .iter()
            .all(|event| !matches!(event, Event::Dropped(_)))
    );
}

#[tokio::test]
async fn a_handler_that_ignores_its_context_is_dropped_after_its_grace_and_counted() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let mut server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    drop(client);
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
    until("the grace", || server.statistics.snapshot().in_grace == 1).await;
    assert!(arrival.is_alive());
    let (why, waited) = clock.step_until(STEP, "the drop", server.events.dropped()).await;
    assert_eq!(why, WhyDropped::GraceOver);
    assert!(
        waited >= Duration::from_secs(5),
        "the whole grace, not {waited:?}"
    );
    arrival.dropped().await;
    let counted = server.statistics.snapshot();
    assert_eq!(
        (counted.in_grace, counted.dropped, counted.refused_grace),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn drop_mode_ends_the_context_with_its_reason_and_drops_at_once() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Drop);
    let mut server = TestServer::with(builder, clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    drop(client);
    assert_eq!(server.events.dropped().await, WhyDropped::NoGrace);
    arrival.dropped().await;
    assert_eq!(arrival.ctx.err().expect("ended").reason(), Reason::ClientGone);
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_detached_handler_is_not_told_and_finishes() {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Detach(Duration::from_secs(60)));
    let mut server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    drop(client);
    until("the handler to be detached", || {
        server.statistics.snapshot().detached == 1
    })
    .await;
    assert!(!arrival.ctx.is_done(), "the work goes on");
    arrival.answer(full("to nobody"));
    let Event::Finished { end, logged, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!((end.reason(), logged.as_u16()), (Reason::ClientGone, 499));
    arrival.end().await;
    until("nothing to be detached", || {
        server.statistics.snapshot().detached == 0
    })
    .await;
    assert_eq!(server.statistics.snapshot().dropped, 0);
}

#[tokio::test]
async fn a_detached_handler_is_told_at_its_limit_and_then_dropped() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Detach(Duration::from_secs(60)));
    let mut server = TestServer::with(builder, clock.context(), service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    let arrival = arrivals.next().await;
    stream.reset();
    until("the handler to be detached", || {
        server.statistics.snapshot().detached == 1
    })
    .await;
    let (end, waited) = clock.step_until(STEP, "the limit", arrival.end()).await;
    assert_eq!(
        (end.kind(), end.reason()),
        (Kind::DeadlineExceeded, Reason::Limit("detached"))
    );
    assert!(waited >= Duration::from_secs(60));
    let (why, _) = clock.step_until(STEP, "the drop", server.events.dropped()).await;
    assert_eq!(why, WhyDropped::GraceOver);
    arrival.dropped().await;
}

#[tokio::test]
async fn a_detached_handler_goes_on_after_the_504_of_the_request_limit() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Detach(Duration::from_secs(3600)));
    let server = TestServer::with(builder, clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let (answer, waited) = clock.step_until(STEP, "the 504", client.answer()).await;
    assert_eq!(answer.status, 504);
    assert!(waited >= Duration::from_secs(30));
    assert!(!arrival.ctx.is_done());
    until("the handler to be detached", || {
        server.statistics.snapshot().detached == 1
    })
    .await;
    arrival.answer(full("to nobody"));
    until("nothing to be detached", || {
        server.statistics.snapshot().detached == 0
    })
    .await;
}

#[tokio::test]
async fn the_innermost_layer_decides() {
    let (inner, mut arrivals) = probe();
    let detach = DisconnectLayer::new(Disconnect::Detach(Duration::from_secs(60)));
    let grace = DisconnectLayer::new(Disconnect::Grace(Duration::from_secs(60)));

    let server = TestServer::start(grace.layer(detach.layer(inner.clone()))).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let detached = arrivals.next().await;
    drop(client);
    until("the handler to be detached", || {
        server.statistics.snapshot().detached == 1
    })
    .await;
    assert!(!detached.ctx.is_done());

    let server = TestServer::start(detach.layer(grace.layer(inner))).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let told = arrivals.next().await;
    drop(client);
    assert_eq!(told.end().await.reason(), Reason::ClientGone);
    until("the grace", || server.statistics.snapshot().in_grace == 1).await;
    assert_eq!(server.statistics.snapshot().detached, 0);
}

/// Lets a client send its second request and leave before the server reads either.
async fn leave_before_the_beginning(mode: Disconnect, reset: bool) -> (TestServer, Arrivals) {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(mode);
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    arrivals.next().await.answer(full("1"));
    client.answer().await;
    // No await in between, and one thread: the server sees the request and the end of the connection together.
    let request = b"GET /second HTTP/1.1\r\nhost: test\r\n\r\n";
    assert_eq!(
        client.stream.try_write(request).expect("room in the socket"),
        request.len()
    );
    match reset {
        true => client.reset(),
        false => drop(client),
    }
    (server, arrivals)
}

async fn assert_not_begun(mode: Disconnect, reset: bool) {
    let (mut server, mut arrivals) = leave_before_the_beginning(mode, reset).await;
    until("the departure", || server.statistics.snapshot().client_gone == 1).await;
    until("the count", || server.statistics.snapshot().not_begun == 1).await;
    server.events.finished().await;
    let Event::Finished { path, end, .. } = server.events.finished().await else {
        unreachable!()
    };
    assert_eq!((path.as_str(), end.reason()), ("/second", Reason::ClientGone));
    assert_eq!(server.stop().await.statistics.dropped, 0);
    assert!(arrivals.is_empty());
}

#[tokio::test]
async fn a_handler_is_not_begun_for_a_client_that_has_left() {
    assert_not_begun(Disconnect::default(), true).await;
}

#[tokio::test]
async fn without_a_grace_a_client_that_closed_its_sending_side_has_left() {
    assert_not_begun(Disconnect::Drop, false).await;
}

#[tokio::test]
async fn with_a_grace_a_client_that_closed_its_sending_side_is_served_and_the_handler_told() {
    let (server, mut arrivals) = leave_before_the_beginning(Disconnect::default(), false).await;
    let mut arrival = arrivals.next().await;
    assert_eq!(
        arrival.ctx.err().expect("told from the start").reason(),
        Reason::ClientGone
    );
    arrival.answer(full("perhaps to nobody"));
    assert_eq!(server.stop().await.statistics.not_begun, 0);
}

#[tokio::test]
async fn a_server_that_detaches_begins_all_the_same() {
    let mode = Disconnect::Detach(Duration::from_secs(60));
    let (server, mut arrivals) = leave_before_the_beginning(mode, true).await;
    let mut arrival = arrivals.next().await;
    assert_eq!(arrival.path, "/second");
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("to nobody"));
    assert_eq!(server.stop().await.statistics.not_begun, 0);
}

#[tokio::test]
async fn the_cap_of_the_server_counts_over_all_connections() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        lingering: 2,
        ..Limits::default()
    };
    let builder = Server::builder()
        .limits(limits)
        .disconnect(Disconnect::Grace(Duration::MAX));
    let mut server = TestServer::with(builder, Context::background(), service).await;
    let mut handlers = Vec::new();
    for _ in 0..5 {
        let mut client = Http1::connect(server.addr).await;
        client.request("GET", "/").await;
        handlers.push(arrivals.next().await);
        drop(client);
        handlers.last().expect("pushed").end().await;
    }
    for _ in 0..3 {
        assert_eq!(server.events.dropped().await, WhyDropped::TooManyLinger);
    }
    until("the places to be taken", || {
        server.statistics.snapshot().in_grace == 2
    })
    .await;
    assert_eq!(handlers.iter().filter(|handler| handler.is_alive()).count(), 2);
    assert!(
        handlers.iter().all(|handler| handler.ctx.is_done()),
        "told even if dropped at once"
    );
}

#[tokio::test]
async fn a_handler_that_reads_its_body_is_told_and_bounded_though_hyper_keeps_it() {
    let clock = TestClock::new();
    let dropped = Arc::new(AtomicBool::new(false));
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn({
        let dropped = dropped.clone();
        move |request: Request<RequestBody>| {
            let (tell, on_drop) = (tell.clone(), OnDrop(dropped.clone()));
            async move {
                let (head, body) = request.into_parts();
                tell.send(head.extensions.get::<Context>().expect("a context").clone())
                    .expect("a test");
                let read = http_body_util::BodyExt::collect(body).await;
                assert!(read.is_err());
                std::future::pending::<()>().await;
                drop(on_drop);
                full("never")
            }
        }
    });
    let mut server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    let ctx = guard("the handler", told.recv()).await.expect("a handler");
    drop(client);
    assert_eq!(guard("the end", ctx.done()).await.reason(), Reason::ClientGone);
    let (why, waited) = clock.step_until(STEP, "the drop", server.events.dropped()).await;
    assert_eq!(why, WhyDropped::GraceOver);
    assert!(waited >= Duration::from_secs(5));
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(server.events.closed().await.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn nothing_is_left_after_a_thousand_clients_have_left() {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(Disconnect::Drop);
    let server = TestServer::with(builder, Context::background(), service).await;
    for _ in 0..20 {
        let client = Http2::connect(server.addr).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(client.request("/").await);
        }
        let handlers = arrivals.take(50).await;
        client.leave();
        for handler in &handlers {
            handler.dropped().await;
        }
    }
    until("all to be over", || server.statistics.snapshot().connections == 0).await;
    let counted = server.statistics.snapshot();
    assert_eq!((counted.client_gone, counted.dropped), (1000, 1000));
    assert_eq!((counted.requests, counted.in_grace, counted.detached), (0, 0, 0));
}

/// Says that a handler's future was dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
