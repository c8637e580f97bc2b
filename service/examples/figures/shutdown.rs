//! A termination signal: while two hundred requests are open, while nothing is but event streams and idle connections, and
//! a second one.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::events::EventStream;
use crate::support::instance::Instance;
use crate::support::until;
use crate::{Row, Spans, millis, naive};

const OPEN: usize = 200;
/// How long requests may go on; the service then gives those that are told two seconds more.
const DRAIN: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(2);

/// Every second request would be finished within the drain, the others would not.
pub(crate) fn open(binary: &OsString) -> Vec<Row> {
    let mut service = Instance::start(binary, &["--drain", "3s"]);
    let ms = |n| if n % 2 == 0 { 2000 } else { 60_000 };
    let target = |n| format!("/store?key={n}&ms={}", ms(n));
    let clients: Vec<_> = (0..OPEN)
        .map(|n| Client::begin(service.public, &target(n)))
        .collect();
    until("all requests to be open", || {
        (service.metric("bequest_requests") == OPEN as u64).then_some(())
    });
    service.signal("TERM");
    let begun = Instant::now();
    let status = service.ended();
    let took = begun.elapsed();

    let (mut answered, mut told, mut closed) = (0, 0, 0);
    for mut client in clients {
        match client.answer().map(|answer| answer.status) {
            Ok(200) => answered += 1,
            Ok(_) => told += 1,
            Err(_) => closed += 1,
        }
    }
    let lines = service.request_lines();
    let shut_down = lines.iter().filter(|line| line["end"] == "shutting down").count();
    let naive = naive::shutdown_with_an_endless_request(DRAIN + GRACE);
    vec![
        Row(
            "SIGTERM with 200 open requests, 3 s of drain: time to exit",
            format!(
                "{:.2} s, exit code {}",
                took.as_secs_f64(),
                status.code().unwrap_or(-1)
            ),
            naive,
        ),
        Row(
            "of those 200",
            format!(
                "answered {answered}, told with 503 {told}, closed without an answer {closed}; ended with \"shutting down\" {shut_down}"
            ),
            "-".into(),
        ),
    ]
}

/// How often it is done, and with how many of each.
const RUNS: usize = 9;
const IDLE: usize = 100;
const STREAMS: usize = 8;

/// Nothing to wait for: connections that are kept alive, and followers of the live contexts.
pub(crate) fn idle(binary: &OsString) -> Vec<Row> {
    let (mut bare, mut followed) = (Spans::default(), Spans::default());
    let mut told = 0;
    for _ in 0..RUNS {
        bare.add(stopped_with(binary, 0).0);
        let (took, ends) = stopped_with(binary, STREAMS);
        followed.add(took);
        told += ends;
    }
    let naive = naive::shutdown_with_an_event_stream(DRAIN + GRACE);
    vec![
        Row(
            "SIGTERM with 8 open event streams and 100 idle connections: time to exit (9 runs)",
            median_and_slowest(&followed),
            naive,
        ),
        Row(
            "of those streams, told why before their end",
            format!("{told} of {}", RUNS * STREAMS),
            "-".into(),
        ),
        Row(
            "the same without the streams",
            median_and_slowest(&bare),
            "-".into(),
        ),
    ]
}

/// A second signal, while a request of a minute holds the first one up.
pub(crate) fn twice(binary: &OsString) -> Vec<Row> {
    let mut took = Spans::default();
    for _ in 0..RUNS {
        let mut service = Instance::start(binary, &["--drain", "1h"]);
        let _idle = kept_alive(&service);
        let _streams = follow(&service, STREAMS);
        let _open = Client::begin(service.public, "/store?key=open&ms=60000");
        service.until_metric("bequest_requests", 1);
        service.signal("TERM");
        until("the drain", || {
            (service.admin("/readyz").status == 503).then_some(())
        });
        let begun = Instant::now();
        service.signal("TERM");
        let status = service.exited();
        took.add(begun.elapsed());
        assert_eq!(status.code(), Some(1), "it did not drain");
    }
    vec![Row(
        "a second SIGTERM while a request of 60 s holds the first one up, with the same streams and connections",
        median_and_slowest(&took),
        "-".into(),
    )]
}

/// How long it took to exit, and how many streams were told why.
fn stopped_with(binary: &OsString, streams: usize) -> (Duration, usize) {
    let mut service = Instance::start(binary, &[]);
    service.event("ready");
    let _idle = kept_alive(&service);
    let streams = follow(&service, streams);
    let begun = Instant::now();
    service.signal("TERM");
    let status = service.exited();
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    let is_told = |mut stream: EventStream| {
        while let Ok(Some(event)) = stream.next() {
            if event.kind == "end" {
                return true;
            }
        }
        false
    };
    (
        took,
        streams.into_iter().map(is_told).filter(|told| *told).count(),
    )
}

/// Connections on which one request was answered.
fn kept_alive(service: &Instance) -> Vec<Client> {
    let client = |_| {
        let mut client = Client::connect(service.public).expect("the service accepts");
        client
            .send("GET", "/style.css", &[])
            .expect("the socket takes it");
        client.answer().expect("an answer");
        client
    };
    (0..IDLE).map(client).collect()
}

/// Event streams that have told the state.
fn follow(service: &Instance, streams: usize) -> Vec<EventStream> {
    let stream = |_| {
        let mut stream = EventStream::follow(service.admin);
        stream.next().expect("an open stream").expect("the state");
        stream
    };
    (0..streams).map(stream).collect()
}

fn median_and_slowest(spans: &Spans) -> String {
    let [median, slowest] = [0.5, 1.0].map(|share| millis(spans.quantile(share)));
    format!("median {median}, slowest {slowest}")
}
