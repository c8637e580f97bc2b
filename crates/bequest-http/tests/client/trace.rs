//! Trace Context end to end: raw headers into a server, and what a peer sees of a request that its handler makes.
//!
//! The cases are those of the standard's own harness, played against a service that trusts its caller.

use bequest::{CancelScope, Context};
use bequest_http::client::Client;
use bequest_http::server::{Inbound, RequestBody, Server, Trusted, service_fn};
use bequest_http::wire::Outbound;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Conn, Peer, get, guard, text};

const ID: &str = "12345678901234567890123456789012";
const SPAN: &str = "1234567890123456";

/// A service that asks its peer as often as its path says.
struct Service {
    peer: Peer,
    addr: std::net::SocketAddr,
    _process: CancelScope,
}

impl Service {
    async fn start(trusted: Trusted) -> Service {
        let peer = Peer::start().await;
        let outbound = Outbound {
            trace: true,
            ..Outbound::default()
        };
        let client = Client::builder().outbound(outbound).build();
        let url = peer.url("/");
        let service = service_fn(move |request: Request<RequestBody>| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let ctx = request.extensions().get::<Context>().unwrap().clone();
                let times: usize = request.uri().path()[1..].parse().unwrap();
                for _ in 0..times {
                    let answer = client.send(&ctx, get(url.clone())).await.unwrap();
                    text(answer).await.unwrap();
                }
                Response::new(String::new())
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let process = Context::background().with_cancel();
        let ctx = process.context();
        let inbound = Inbound {
            trusted,
            trace: true,
            ..Inbound::default()
        };
        tokio::spawn(async move {
            Server::builder()
                .inbound(inbound)
                .serve(listener, service, &ctx)
                .await
        });
        Service {
            peer,
            addr,
            _process: process,
        }
    }

    /// The headers of the requests that the peer gets for one with these lines.
    async fn asked(&self, times: usize, lines: &str) -> Vec<Sent> {
        let mut caller = TcpStream::connect(self.addr).await.unwrap();
        let request = format!("GET /{times} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut sent = Vec::new();
        let mut conn: Option<Conn> = None;
        for _ in 0..times {
            let mut on = match conn.take() {
                Some(kept) => kept,
                None => self.peer.accept().await,
            };
            sent.push(Sent(on.head().await));
            on.answer("").await;
            conn = Some(on);
        }
        let mut answer = String::new();
        guard("an answer", caller.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The next call is to dial anew.
        drop(conn);
        sent
    }

    async fn asked_once(&self, lines: &str) -> Sent {
        self.asked(1, lines).await.remove(0)
    }
}

/// The head of a request.
struct Sent(String);

impl Sent {
    fn line(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| *known == name).map(|(_, value)| value);
        assert!(lines.all(|(known, _)| known != name), "one {name}: {}", self.0);
        found
    }

    /// Trace, span and flags.
    fn parent(&self) -> (&str, &str, &str) {
        let parent = self.line("traceparent").expect("always one");
        let parts: Vec<&str> = parent.split('-').collect();
        let [version, trace, span, flags] = parts[..] else {
            panic!("four parts: {parent}")
        };
        assert_eq!((version, trace.len(), span.len(), flags.len()), ("00", 32, 16, 2));
        (trace, span, flags)
    }

    fn state(&self) -> Option<&str> {
        self.line("tracestate")
    }
}

fn everybody() -> Trusted {
    Trusted::by(|_| true)
}

#[tokio::test]
async fn a_good_traceparent_is_gone_on_from() {
    let service = Service::start(everybody()).await;
    for line in [
        format!("traceparent: 00-{ID}-{SPAN}-01"),
        format!("TraceParent: 00-{ID}-{SPAN}-01"),
        format!("TRACEPARENT:00-{ID}-{SPAN}-01"),
        format!("traceparent: \t 00-{ID}-{SPAN}-01 \t"),
        format!("traceparent: cc-{ID}-{SPAN}-01"),
        format!("traceparent: cc-{ID}-{SPAN}-01-what-the-future-will-be-like"),
    ] {
        let sent = service.asked_once(&format!("{line}\r\n")).await;
        let (trace, span, flags) = sent.parent();
        assert_eq!((trace, flags), (ID, "01"), "{line:?}");
        assert_ne!(span, SPAN, "{line:?}");
        assert_eq!(sent.state(), None);
    }
}

#[tokio::test]
async fn a_bad_traceparent_begins_a_trace_and_takes_the_state_with_it() {
    let service = Service::start(everybody()).await;
    let zeros = "0".repeat(32);
    for line in [
        String::new(),
        format!("trace-parent: 00-{ID}-{SPAN}-01"),
        format!("traceparent: 00-{ID}-{SPAN}-01\r\ntraceparent: 00-{ID}-{SPAN}-01"),
        format!("traceparent: 00-{ID}-{SPAN}-01,00-{ID}-{SPAN}-01"),
        format!("traceparent: 00-{ID}-{SPAN}-01."),
        format!("traceparent: 00-{ID}-{SPAN}-01-what-the-future-will-be-like"),
        format!("traceparent: cc-{ID}-{SPAN}-01.what-the-future-will-be-like"),
        format!("traceparent: ff-{ID}-{SPAN}-01"),
        format!("traceparent: .0-{ID}-{SPAN}-01"),
        format!("traceparent: 000-{ID}-{SPAN}-01"),
        format!("traceparent: 0-{ID}-{SPAN}-01"),
        format!("traceparent: 00-{zeros}-{SPAN}-01"),
        format!("traceparent: 00-.{}-{SPAN}-01", &ID[1..]),
        format!("traceparent: 00-{ID}3-{SPAN}-01"),
        format!("traceparent: 00-{}-{SPAN}-01", &ID[1..]),
        format!("traceparent: 00-{ID}-{}-01", &zeros[16..]),
        format!("traceparent: 00-{ID}-{}.-01", &SPAN[1..]),
        format!("traceparent: 00-{ID}-{SPAN}7-01"),
        format!("traceparent: 00-{ID}-{}-01", &SPAN[1..]),
        format!("traceparent: 00-{ID}-{SPAN}-.0"),
        format!("traceparent: 00-{ID}-{SPAN}-001"),
        format!("traceparent: 00-{ID}-{SPAN}-1"),
        format!("traceparent: 00-{}-{SPAN}-01", ID.replace('1', "A")),
    ] {
        let sent = service
            .asked_once(format!("{line}\r\ntracestate: foo=1\r\n").trim_start())
            .await;
        let (trace, span, flags) = sent.parent();
        assert!(trace != ID && trace != zeros && span != SPAN, "{line:?}: {trace}");
        assert_eq!(
            flags, "02",
            "{line:?}: random, and nobody has decided to record it"
        );
        assert_eq!(sent.state(), None, "{line:?}");
    }
}

#[tokio::test]
async fn the_flag_of_a_random_trace_goes_on_as_it_came() {
    let service = Service::start(everybody()).await;
    for (came, goes) in [
        ("00", "00"),
        ("01", "01"),
        ("02", "02"),
        ("03", "03"),
        ("ff", "03"),
    ] {
        let sent = service
            .asked_once(&format!("traceparent: 00-{ID}-{SPAN}-{came}\r\n"))
            .await;
        assert_eq!(sent.parent().2, goes);
    }
}

#[tokio::test]
async fn a_tracestate_goes_along_in_one_line_and_in_its_order() {
    let service = Service::start(everybody()).await;
    let long = "z".repeat(256);
    let full: Vec<String> = (1..=32).map(|n| format!("bar{n:02}={n:02}")).collect();
    for (lines, goes) in [
        (vec!["foo=1,bar=2"], Some("foo=1,bar=2")),
        (vec![""], None),
        (vec!["foo=1", ""], Some("foo=1")),
        (vec!["", "foo=1"], Some("foo=1")),
        (
            vec!["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
            Some("foo=1,bar=2,rojo=1,congo=2,baz=3"),
        ),
        (vec!["foo=1,foo=2"], Some("foo=1,foo=2")),
        (vec!["foo=1", "foo=2"], Some("foo=1,foo=2")),
        (vec!["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3")),
        (vec!["\t foo=1 \t"], Some("foo=1")),
        (vec!["foo=\" !#~"], Some("foo=\" !#~")),
        (vec!["foo@=1,bar=2"], Some("foo@=1,bar=2")),
        (vec!["foo@bar@baz=1,0=2"], Some("foo@bar@baz=1,0=2")),
        (vec![&full.join(",")], Some(&full.join(","))),
        (
            vec![&full[..20].join(","), &full[20..].join(",")],
            Some(&full.join(",")),
        ),
        (
            vec!["foo=1", &format!("{long}=1")],
            Some(&format!("foo=1,{long}=1")),
        ),
        (
            vec![&format!("foo={long}"), "bar=1"],
            Some(&format!("foo={long},bar=1")),
        ),
        // Malformed: none of it.
        (vec!["foo=1", &format!("z{long}=1")], None),
        (vec![&full.join(","), "bar33=33"], None),
        (vec!["foo =1"], None),
        (vec!["foo.bar=1"], None),
        (vec!["@foo=1,bar=2"], None),
        (vec!["foo=bar=baz"], None),
        (vec!["foo=,bar=3"], None),
    ] {
        let mut headers = format!("traceparent: 00-{ID}-{SPAN}-00\r\n");
        for line in &lines {
            headers += &format!("tracestate: {line}\r\n");
        }
        let sent = service.asked_once(&headers).await;
        assert_eq!(
            sent.parent().0,
            ID,
            "{lines:?}: a bad state does not end the trace"
        );
        assert_eq!(sent.state(), goes, "{lines:?}");
    }
}

#[tokio::test]
async fn each_request_goes_out_in_a_span_of_its_own() {
    let service = Service::start(everybody()).await;
    for lines in ["", &format!("traceparent: 00-{ID}-{SPAN}-01\r\n")] {
        let sent = service.asked(3, lines).await;
        let parents: Vec<_> = sent.iter().map(Sent::parent).collect();
        assert!(
            parents.iter().all(|parent| parent.0 == parents[0].0),
            "{parents:?}"
        );
        let mut spans: Vec<&str> = parents.iter().map(|parent| parent.1).collect();
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), 3, "{parents:?}");
    }
}

#[tokio::test]
async fn a_stranger_begins_a_trace_whatever_he_says() {
    let service = Service::start(Trusted::nobody()).await;
    let sent = service
        .asked_once(&format!(
            "traceparent: 00-{ID}-{SPAN}-01\r\ntracestate: foo=1\r\n"
        ))
        .await;
    assert_ne!(sent.parent().0, ID);
    assert_eq!((sent.parent().2, sent.state()), ("02", None));
}
