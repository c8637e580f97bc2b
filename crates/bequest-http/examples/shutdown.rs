//! How long a server takes to shut down with an open event stream and a hundred idle connections that are kept alive: prints the time, beside
//! the same without the mark that ends event streams (which uses up the drain, here 2 s).
//!
//! And how many requests of clients that ask again and again on connections that they keep are lost by that: closed at once, given
//! the time to ask once more, and closed by hyper's graceful shutdown.
//!
//! Run it with `cargo run --release -p bequest-http --example shutdown`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bequest::{Context, Reason};
use bequest_http::Server;
use bequest_http::server::{BoxError, Limits, RequestBody, UntilShutdown, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const IDLE: usize = 100;

/// How many clients ask at once, and how often that is played.
const ASKING: usize = 200;
const ROUNDS: usize = 50;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figure is what the program is for")]
async fn main() -> Result<(), BoxError> {
    for marked in [true, false] {
        let took = shut_down(marked).await?;
        let mark = if marked { "marked" } else { "not marked" };
        println!(
            "an open event stream ({mark}) and {IDLE} connections kept alive: {:.1} ms",
            took.as_secs_f64() * 1e3
        );
    }
    for end in [End::AtOnce, End::AskOnceMore, End::Hyper] {
        let mut lost = 0;
        for round in 0..ROUNDS {
            lost += lost_by(end, round).await?;
        }
        println!("{end:?}: {lost} requests lost of {} clients", ROUNDS * ASKING);
    }
    Ok(())
}

/// How a server under load is brought to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    AtOnce,
    AskOnceMore,
    Hyper,
}

/// Ends a server while clients ask it, and counts the requests that were sent and not answered.
async fn lost_by(end: End, round: usize) -> Result<usize, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let process = Context::background().with_cancel();
    let ctx = process.context();
    let server = match end {
        End::Hyper => tokio::spawn(hyper_alone(listener, ctx)),
        End::AtOnce | End::AskOnceMore => tokio::spawn(async move {
            let service =
                service_fn(|_: Request<RequestBody>| async { Response::new(String::from("hello")) });
            let limits = Limits {
                drain_idle: match end {
                    End::AskOnceMore => Duration::from_millis(100),
                    End::AtOnce | End::Hyper => Duration::ZERO,
                },
                ..Limits::default()
            };
            let served = Server::builder()
                .limits(limits)
                .serve(listener, service, &ctx)
                .await;
            served.map(drop).map_err(Into::into)
        }),
    };
    let clients: Vec<_> = (0..ASKING)
        .map(|nth| tokio::spawn(ask_again_and_again(address, (round * ASKING + nth) as u64)))
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    process.cancel_for(Reason::Shutdown);
    let mut lost = 0;
    for client in clients {
        lost += usize::from(client.await?);
    }
    server.await??;
    Ok(lost)
}

/// Asks on one connection until the server says goodbye or closes it. Says whether a request was left unanswered.
async fn ask_again_and_again(address: SocketAddr, seed: u64) -> bool {
    let Ok(mut client) = TcpStream::connect(address).await else {
        return false;
    };
    let mut dice = seed;
    loop {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_micros((dice >> 33) % 5_000);
        // Who is told of the end while it asks for nothing has lost nothing.
        if tokio::time::timeout(pause, client.readable()).await.is_ok() {
            return false;
        }
        if client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .is_err()
        {
            return true;
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            if !matches!(client.read_buf(&mut answer).await, Ok(1..)) {
                return true;
            }
        }
        if answer.windows(5).any(|word| word == b"close") {
            return false;
        }
    }
}

/// The same service on hyper, and the shutdown that it calls graceful.
async fn hyper_alone(listener: TcpListener, ctx: Context) -> Result<(), BoxError> {
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (stream, _) = accepted?;
        let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
            Ok::<_, std::convert::Infallible>(Response::new(String::from("hello")))
        });
        let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(graceful.watch(http));
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

/// Opens the connections, asks for the shutdown, and measures it.
async fn shut_down(marked: bool) -> Result<Duration, BoxError> {
    let service = service_fn(move |request: Request<RequestBody>| async move {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        if request.uri().path() == "/short" {
            return Response::new(body);
        }
        if sender
            .send_data(Bytes::from_static(b"data: one\n\n"))
            .await
            .is_ok()
        {
            // Held until the body goes: an event stream without further events.
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(sender)
            });
        }
        let mut response = Response::new(body);
        if marked {
            response.extensions_mut().insert(UntilShutdown);
        }
        response
    });
    let limits = Limits {
        drain: Duration::from_secs(2),
        ..Limits::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let builder = Server::builder().limits(limits);
    let statistics = builder.statistics();
    let process = Context::background().with_cancel();
    let ctx = process.context();
    let server = tokio::spawn(async move { builder.serve(listener, service, &ctx).await });

    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut client = TcpStream::connect(address).await?;
        client
            .write_all(b"GET /short HTTP/1.1\r\nhost: x\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            client.read_buf(&mut answer).await?;
        }
        idle.push(client);
    }
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    assert_eq!(&first, b"HTTP/1.1 200");
    while statistics.snapshot().connections <= IDLE {
        tokio::task::yield_now().await;
    }

    let asked = Instant::now();
    process.cancel_for(Reason::Shutdown);
    server.await??;
    Ok(asked.elapsed())
}
