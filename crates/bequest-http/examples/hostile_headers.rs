//! What headers that are meant to hurt cost, beside an ordinary request: asks a server for as many requests of one kind as it
//! is told, each on a connection of its own, all on one thread, so that instructions can be counted from outside:
//!
//! ```text
//! valgrind --tool=callgrind target/release/examples/hostile_headers members 100
//! ```
//!
//! The difference between 200 requests and 100 is what 100 of them cost. With `hyper` as a third word the same requests go to
//! hyper alone, with a handler that answers as much: the control.

use bequest::{Codec, Context, Key};
use bequest_http::Server;
use bequest_http::server::{Inbound, RequestBody, Trusted, service_fn};
use bequest_http::wire::Allow;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
    encode: u32::to_string,
    decode: |text| text.parse().ok(),
    limit: 10,
});

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "ordinary".to_owned());
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(10);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let is_bare = args.next().is_some_and(|word| word == "hyper");
    let statuses = runtime.block_on(ask(headers(&kind), times, is_bare));
    eprintln!("{kind}: {statuses:?}");
}

/// The headers of one kind of request.
fn headers(kind: &str) -> String {
    let ordinary = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
                    bequest-timeout-ms: 2500\r\nbaggage: tenant=7,colour=red;since=2026,theme=dark\r\n";
    match kind {
        "ordinary" => ordinary.to_owned(),
        // What passes the protocol engine's own limit (400 KiB), and what does not.
        "large" => format!("baggage: tenant={}\r\n", "7".repeat(300 << 10)),
        "mebibyte" => format!("baggage: tenant={}\r\n", "7".repeat(1 << 20)),
        "members" => format!("baggage: {}\r\n", list(5_000, |number| format!("k{number}=v"))),
        "allowed-members" => format!(
            "baggage: {}\r\n",
            list(5_000, |number| format!("tenant={number}"))
        ),
        "percent" => format!("baggage: tenant={}\r\n", "%41".repeat(2_700)),
        "lines" => "baggage: k=v\r\n".repeat(90),
        "too-many-lines" => "baggage: k=v\r\n".repeat(400),
        // The same bytes where nobody looks: what the protocol engine itself costs.
        "filler-large" => format!("x-filler: tenant={}\r\n", "7".repeat(300 << 10)),
        "filler-members" => format!("x-filler: {}\r\n", list(5_000, |number| format!("k{number}=v"))),
        "filler-allowed-members" => format!(
            "x-filler: {}\r\n",
            list(5_000, |number| format!("tenant={number}"))
        ),
        "filler-percent" => format!("x-filler: tenant={}\r\n", "%41".repeat(2_700)),
        "filler-lines" => "x-filler: k=v\r\n".repeat(90),
        "state" => format!(
            "{ordinary}tracestate: {}\r\n",
            list(5_000, |number| format!("k{number}=v"))
        ),
        // As long as a list may be that is read.
        "full-state" => format!("{ordinary}tracestate: {}\r\n", full_state()),
        "filler-full-state" => format!("{ordinary}x-filler: {}\r\n", full_state()),
        "filler-state" => format!(
            "{ordinary}x-filler: {}\r\n",
            list(5_000, |number| format!("k{number}=v"))
        ),
        other => panic!("no such kind: {other}"),
    }
}

fn full_state() -> String {
    list(32, |number| format!("{number:k>256}={:v>256}", ""))
}

fn list(length: usize, member: impl Fn(usize) -> String) -> String {
    let members: Vec<String> = (0..length).map(member).collect();
    members.join(",")
}

async fn serve(listener: TcpListener) {
    let service = service_fn(|request: Request<RequestBody>| async move {
        let ctx: &Context = request.extensions().get().expect("a context");
        Response::new(format!("{:?}", ctx.value(&TENANT)))
    });
    let server = Server::builder().inbound(Inbound {
        trusted: Trusted::by(|conn| conn.peer_addr().ip().is_loopback()),
        trace: true,
        baggage: Allow::nothing().key(&TENANT).member("colour"),
        ..Inbound::default()
    });
    server
        .serve(listener, service, &Context::background())
        .await
        .expect("an open listener");
}

/// hyper alone, with room for as large a header.
async fn serve_bare(listener: TcpListener) {
    let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<_, std::convert::Infallible>(Response::new("Some(7)".to_owned()))
    });
    loop {
        let (stream, _) = listener.accept().await.expect("an open listener");
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(async move {
            // What it refuses is an error to it, and the status to the client.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await;
        });
    }
}

/// Asks, and answers how often which status came.
async fn ask(headers: String, times: usize, is_bare: bool) -> std::collections::BTreeMap<String, usize> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    match is_bare {
        true => drop(tokio::spawn(serve_bare(listener))),
        false => drop(tokio::spawn(serve(listener))),
    }

    let request = format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..times {
        let mut stream = TcpStream::connect(addr).await.expect("it accepts");
        let (mut reading, mut writing) = stream.split();
        let mut answer = Vec::new();
        // A server that refuses does not read to the end.
        let _ = tokio::join!(
            writing.write_all(request.as_bytes()),
            reading.read_to_end(&mut answer)
        );
        let status = answer
            .get(9..12)
            .map_or("none".into(), |status| String::from_utf8_lossy(status));
        *statuses.entry(status.into_owned()).or_default() += 1;
    }
    statuses
}
