//! What a request hands down in its headers: its time, its trace, and values, each as far as its sender is trusted.

use std::time::Duration;

use bequest::{Canceled, Codec, Key, Kind, Reason};
use bequest_http::server::{Builder, CallerDeadline, Inbound, Limits, Server, Trusted, Unreadable};
use bequest_http::wire::{Allow, Baggage, Trace};
use http::StatusCode;

use super::common::{Arrival, Arrivals, Event, Http1, Http2, TestClock, TestServer, full, probe};

const SECOND: Duration = Duration::from_secs(1);
const TRACEPARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
    encode: u32::to_string,
    decode: |text| text.parse().ok(),
    limit: 10,
});

/// A server on a clock that stands still, with a request limit of 10 s.
struct Fixture {
    clock: TestClock,
    server: TestServer,
    arrivals: Arrivals,
}

impl Fixture {
    async fn new(inbound: Inbound) -> Fixture {
        Fixture::with(Server::builder().inbound(inbound)).await
    }

    async fn with(builder: Builder) -> Fixture {
        let (service, arrivals) = probe();
        let clock = TestClock::new();
        let limits = Limits {
            request: 10 * SECOND,
            header: Duration::MAX,
            idle: Duration::MAX,
            ..Limits::default()
        };
        let server = TestServer::with(builder.limits(limits), clock.context(), service).await;
        Fixture {
            clock,
            server,
            arrivals,
        }
    }

    /// What the handler of a request with these header lines sees.
    async fn arrival(&mut self, lines: &str) -> (Arrival, Http1) {
        let mut client = Http1::connect(self.server.addr).await;
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n"))
            .await;
        (self.arrivals.next().await, client)
    }

    async fn left(&mut self, lines: &str) -> Duration {
        let (arrival, _client) = self.arrival(lines).await;
        arrival.ctx.remaining().expect("a server has a limit")
    }

    /// The answer to a request whose handler is not begun.
    async fn refused(&mut self, lines: &str) -> (u16, String, String) {
        let mut client = Http1::connect(self.server.addr).await;
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n"))
            .await;
        let answer = client.answer().await;
        assert!(self.arrivals.is_empty(), "no handler was begun for {lines:?}");
        (answer.status, answer.head.to_lowercase(), answer.body)
    }
}

fn loopback() -> Trusted {
    Trusted::by(|conn| conn.peer_addr().ip().is_loopback())
}

#[tokio::test]
async fn a_callers_deadline_shortens_the_limit_whatever_it_is_called() {
    let mut fixture = Fixture::new(Inbound::default()).await;
    for (lines, left) in [
        ("grpc-timeout: 2S\r\n", 2),
        ("connect-timeout-ms: 2000\r\n", 2),
        ("x-envoy-expected-rq-timeout-ms: 2000\r\n", 2),
        ("bequest-timeout-ms: 2000\r\n", 2),
        (
            "bequest-timeout-ms: 3000\r\ngrpc-timeout: 2S\r\nconnect-timeout-ms: 4000\r\n",
            2,
        ),
        ("", 10),
    ] {
        assert_eq!(fixture.left(lines).await, left * SECOND, "{lines:?}");
    }
}

#[tokio::test]
async fn no_header_lengthens_or_lifts_the_limit() {
    let mut fixture = Fixture::new(Inbound::default()).await;
    for lines in [
        "bequest-timeout-ms: 11000\r\n",
        "bequest-timeout-ms: 9999999999\r\n",
        "bequest-timeout-ms: 12345678901\r\n",
        "bequest-timeout-ms: 99999999999999999999999999\r\n",
        "bequest-timeout-ms: -1\r\n",
        "bequest-timeout-ms:\r\n",
        "bequest-timeout-ms: 5, 6\r\n",
        "bequest-timeout-ms: 5\r\nbequest-timeout-ms: 5\r\n",
        "grpc-timeout: 99999999H\r\n",
        "grpc-timeout: 123456789m\r\n",
        "grpc-timeout: 1\r\n",
        "grpc-timeout: infinite\r\n",
    ] {
        assert_eq!(fixture.left(lines).await, 10 * SECOND, "{lines:?}");
    }
}

#[tokio::test]
async fn an_unreadable_header_is_a_400_where_that_is_wanted() {
    let mut fixture = Fixture::new(Inbound {
        unreadable: Unreadable::Refused,
        ..Inbound::default()
    })
    .await;
    for lines in [
        "bequest-timeout-ms: soon\r\n",
        "bequest-timeout-ms: 5\r\nbequest-timeout-ms: 5\r\n",
        "bequest-timeout-ms: 5\r\ngrpc-timeout: 5\r\n",
    ] {
        let (status, _, body) = fixture.refused(lines).await;
        assert_eq!(
            (status, &*body),
            (400, "a deadline header cannot be read"),
            "{lines:?}"
        );
    }
    assert_eq!(fixture.left("bequest-timeout-ms: 2000\r\n").await, 2 * SECOND);
}

#[tokio::test]
async fn no_time_and_too_little_time_are_refused_at_once() {
    let mut fixture = Fixture::new(Inbound {
        least: Duration::from_millis(50),
        ..Inbound::default()
    })
    .await;
    for lines in [
        "bequest-timeout-ms: 0\r\n",
        "grpc-timeout: 0S\r\n",
        "bequest-timeout-ms: 49\r\n",
    ] {
        let (status, head, body) = fixture.refused(lines).await;
        assert_eq!(
            (status, &*body),
            (503, "the caller leaves too little time"),
            "{lines:?}"
        );
        assert!(head.contains("retry-after: "), "{head}");
    }
    assert_eq!(
        fixture.left("bequest-timeout-ms: 50\r\n").await,
        Duration::from_millis(50)
    );

    let client = Http2::connect(fixture.server.addr).await;
    let stream = client.request("/plenty").await;
    fixture.arrivals.next().await.answer(full("hello"));
    assert_eq!(stream.answer().await.unwrap(), (StatusCode::OK, "hello".into()));

    let mut finished = 0;
    while finished < 3 {
        if let Event::Finished { logged, .. } = fixture.server.events.finished().await {
            finished += usize::from(logged == StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}

#[tokio::test]
async fn the_callers_time_runs_from_the_first_byte_of_its_request() {
    let mut fixture = Fixture::new(Inbound::default()).await;
    // A first request, so that the header limits of the connection are past their beginning.
    let (mut first, mut client) = fixture.arrival("").await;
    first.answer(full("one"));
    assert_eq!(client.answer().await.body, "one");

    for (waited, expected) in [(1, Some(2)), (4, None)] {
        let before = fixture.server.statistics.snapshot();
        client.send("GET /slow HTTP/1.1\r\n").await;
        settle(&fixture).await;
        fixture.clock.advance(waited * SECOND);
        client.send("host: x\r\nbequest-timeout-ms: 3000\r\n\r\n").await;
        match expected {
            Some(left) => {
                let mut arrival = fixture.arrivals.next().await;
                assert_eq!(arrival.ctx.remaining(), Some(left * SECOND));
                arrival.answer(full("two"));
                assert_eq!(client.answer().await.body, "two");
            }
            None => {
                let answer = client.answer().await;
                assert_eq!((answer.status, &*answer.body), (504, "the caller's time is over"));
                assert!(fixture.arrivals.is_empty());
            }
        }
        assert_eq!(
            fixture.server.statistics.snapshot().connections,
            before.connections
        );
    }
}

/// Waits until the server has read what was sent before.
async fn settle(fixture: &Fixture) {
    // What a socket holds is read by one poll of its task; on this runtime of one thread that poll comes before the
    // answer to a refused request that was sent after it.
    let mut other = Http1::connect(fixture.server.addr).await;
    other
        .send("GET / HTTP/1.1\r\nhost: x\r\nbequest-timeout-ms: 0\r\n\r\n")
        .await;
    assert_eq!(other.answer().await.status, 503);
}

#[tokio::test]
async fn the_end_says_that_it_was_the_callers_time() {
    let mut fixture = Fixture::new(Inbound::default()).await;
    let (arrival, mut client) = fixture.arrival("connect-timeout-ms: 2000\r\n").await;
    let (end, waited) = fixture
        .clock
        .step_until(Duration::from_millis(100), "the deadline", arrival.end())
        .await;
    let end: Canceled = end;
    assert_eq!(
        (end.kind(), end.reason()),
        (Kind::DeadlineExceeded, Reason::Deadline)
    );
    assert_eq!(end.scope().0, Some("caller"));
    let cause = end.cause().expect("a cause");
    assert_eq!(cause.to_string(), "the caller's connect-timeout-ms");
    let header = cause.downcast_ref::<CallerDeadline>().expect("its type").header();
    assert_eq!(header, "connect-timeout-ms");
    assert!(waited >= 2 * SECOND, "{waited:?}");
    let answer = fixture
        .clock
        .step_until(Duration::from_millis(50), "the answer", client.answer());
    assert_eq!(answer.await.0.status, 504);
}

#[tokio::test]
async fn a_trusted_caller_may_have_more_within_bounds() {
    for (trusted, left) in [(loopback(), 20), (Trusted::nobody(), 10)] {
        let mut fixture = Fixture::new(Inbound {
            trusted,
            longest: 20 * SECOND,
            ..Inbound::default()
        })
        .await;
        assert_eq!(
            fixture.left("bequest-timeout-ms: 3600000\r\n").await,
            left * SECOND
        );
        assert_eq!(
            fixture.left("").await,
            10 * SECOND,
            "who asks for nothing gets the limit"
        );
        assert_eq!(fixture.left("bequest-timeout-ms: 2000\r\n").await, 2 * SECOND);
    }
}

#[tokio::test]
async fn a_trace_goes_on_from_a_trusted_caller_and_begins_anew_for_a_stranger() {
    for (trusted, goes_on) in [(loopback(), true), (Trusted::nobody(), false)] {
        let mut fixture = Fixture::new(Inbound {
            trusted,
            trace: true,
            ..Inbound::default()
        })
        .await;
        let (arrival, _client) = fixture.arrival(TRACEPARENT).await;
        let parent = Trace::of(&arrival.ctx).expect("a trace").parent().to_string();
        assert_eq!(
            parent.contains("4bf92f3577b34da6a3ce929d0e0e4736"),
            goes_on,
            "{parent}"
        );
        assert!(
            !parent.contains("00f067aa0ba902b7"),
            "the span is this server's own: {parent}"
        );
        let (arrival, _client) = fixture.arrival("traceparent: 00-0-0-0\r\n").await;
        assert!(Trace::of(&arrival.ctx).is_some());
    }
    let mut off = Fixture::new(Inbound::default()).await;
    let (arrival, _client) = off.arrival(TRACEPARENT).await;
    assert_eq!(Trace::of(&arrival.ctx), None);
}

#[tokio::test]
async fn values_are_taken_from_trusted_callers_alone() {
    let lines = "baggage: tenant=7,colour=red\r\nbaggage: other=1\r\n";
    for (trusted, tenant) in [(loopback(), Some(7)), (Trusted::nobody(), None)] {
        let mut fixture = Fixture::new(Inbound {
            trusted,
            baggage: Allow::nothing().key(&TENANT).member("colour"),
            ..Inbound::default()
        })
        .await;
        let (arrival, _client) = fixture.arrival(lines).await;
        assert_eq!(arrival.ctx.value(&TENANT).copied(), tenant);
        let untouched = Baggage::of(&arrival.ctx).and_then(Baggage::to_header);
        assert_eq!(untouched.is_some(), tenant.is_some());
        if let Some(header) = untouched {
            assert_eq!(header, "colour=red");
        }
    }
}

#[tokio::test]
async fn control_a_server_that_takes_nothing_gives_everybody_its_limit() {
    let mut fixture = Fixture::new(Inbound::nothing()).await;
    assert_eq!(fixture.left("bequest-timeout-ms: 2000\r\n").await, 10 * SECOND);
    assert_eq!(fixture.left("bequest-timeout-ms: 0\r\n").await, 10 * SECOND);
}
