//! How long a server takes to shut down with an open event stream and a hundred idle connections that are kept alive: prints the time, beside
//! the same without the mark that ends event streams (which uses up the drain, here 2 s).
//!
//! Run it with `cargo run --release -p bequest-http --example shutdown`.

use std::time::{Duration, Instant};

use bequest::{Context, Reason};
use bequest_http::Server;
use bequest_http::server::{BoxError, Limits, RequestBody, UntilShutdown, service_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const IDLE: usize = 100;

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
