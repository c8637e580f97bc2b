//! A server whose contexts carry what the listener and the connection know, and a client that reads it.
//!
//! Run it with `cargo run -p bequest-http --example hello`; it says nothing if every assertion holds.

use bequest::{Context, Key, Reason};
use bequest_http::Server;
use bequest_http::server::{ServeError, Summary, service_fn};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

static SITE: Key<String> = Key::new("site");
static VISITOR: Key<u64> = Key::new("visitor");

/// Serves until `ctx` ends, and then drains.
async fn serve(listener: TcpListener, ctx: &Context) -> Result<Summary, ServeError> {
    Server::builder()
        .base_context(|ctx, listener| ctx.with_value(&SITE, format!("port {}", listener.local_addr().port())))
        .conn_context(|ctx, conn| ctx.with_value(&VISITOR, conn.id()))
        .serve(listener, service_fn(hello), ctx)
        .await
}

async fn hello<B>(request: Request<B>) -> Response<String> {
    let ctx: &Context = request.extensions().get().expect("each request has a context");
    let site = ctx.value(&SITE).map_or("nowhere", String::as_str);
    let visitor = ctx.value(&VISITOR).copied().unwrap_or_default();
    Response::new(format!("hello, visitor {visitor} of {site}"))
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let process = Context::background().with_cancel().named("process");
    let ctx = process.context();
    let server = tokio::spawn(async move { serve(listener, &ctx).await });

    for visitor in 1..=2 {
        let mut client = TcpStream::connect(address).await?;
        let question = "GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
        client.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        let port = address.port();
        assert!(answer.ends_with(&format!("hello, visitor {visitor} of port {port}")));
    }

    process.cancel_for(Reason::Shutdown);
    let summary = server.await??;
    assert_eq!(
        (summary.end.reason(), summary.statistics.served),
        (Reason::Shutdown, 2)
    );
    Ok(())
}
