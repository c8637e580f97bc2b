//! The line is there before the head of the answer: asked of a client that has read no more than the head.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use bequest::{CancelScope, Context};
use bequest_http::axum::Ctx;
use bequest_http::server::{Builder, Finished, Limits, Observer, Server};
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::Recording;
use crate::answer::{Code, HandlerStatus, Refusal, respond, way_out};
use crate::log::handler::Handler;
use crate::log::{answering, here};

/// The naive way: the line is written when the exchange is over, as an observer hears of it.
#[derive(Clone, Default)]
struct AfterTheFact(Arc<Mutex<Vec<u16>>>);

impl Observer for AfterTheFact {
    fn request_finished(&self, finished: &Finished<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(finished.logged_status().as_u16());
    }
}

/// A body that has nothing yet, as long as anybody waits for it.
struct Open;

impl http_body::Body for Open {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

/// A route for each way in which an answer can come about. The bodies of all but the server's own never end.
fn routes() -> Router {
    let open = |response: Response| response.map(|_| Body::new(Open));
    Router::new()
        .route(
            "/responded",
            get(move |Ctx(ctx): Ctx| async move {
                open(respond!(&ctx, HandlerStatus::new(Code::JobOver, "responded")))
            }),
        )
        .route(
            "/by-itself",
            get(async || (StatusCode::BAD_GATEWAY, Body::new(Open))),
        )
        .route(
            "/refused",
            get(async || Err::<(), _>(Refusal::new(here!(), Code::NoFetch, "refused"))),
        )
        .route("/panics", get(async || -> StatusCode { panic!("no more paper") }))
        .layer(middleware::from_fn(way_out))
}

async fn serve(builder: Builder) -> (SocketAddr, CancelScope) {
    serve_routes(builder, routes()).await
}

async fn serve_routes(builder: Builder, routes: Router) -> (SocketAddr, CancelScope) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let process = Context::background().with_cancel();
    let ctx = process.context();
    tokio::spawn(async move { builder.serve(listener, routes, &ctx).await });
    (addr, process)
}

/// Asks for `path` and reads the answer's head; the connection stays open.
async fn head(addr: SocketAddr, path: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(
            stream.read_buf(&mut read).await.unwrap() > 0,
            "the connection ended early"
        );
    }
    (String::from_utf8_lossy(&read).into_owned(), stream)
}

#[tokio::test]
async fn the_line_is_there_when_the_head_arrives() {
    let log = Arc::new(Recording::default());
    let handler: Arc<dyn Handler> = log.clone();
    let (addr, _process) = serve(answering(Server::builder(), &handler).observer(())).await;
    for (path, status, line) in [
        ("/responded", "409", "409 responded None"),
        ("/by-itself", "502", "502 Something here is broken None"),
        ("/refused", "404", "404 refused None"),
        ("/nowhere", "404", "404 There is nothing there None"),
    ] {
        let before = log.lines().len();
        let (head, _open) = head(addr, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(log.lines()[before..], [line], "{path}");
    }
    let (head, _open) = head(addr, "/panics").await;
    assert!(
        head.starts_with("HTTP/1.1 500 ") && head.contains("application/json"),
        "{head}"
    );
    let last = log.lines().pop().unwrap();
    assert!(
        last.contains("order.rs") && last.contains("no more paper"),
        "{last}"
    );
}

/// A handler that hears nothing of its limit and answers when its client has been answered long ago: nobody gets that answer,
/// so it has no line.
#[tokio::test]
async fn an_answer_that_comes_too_late_has_no_line() {
    let log = Arc::new(Recording::default());
    let handler: Arc<dyn Handler> = log.clone();
    let limits = Limits {
        request: Duration::from_millis(20),
        answer: Duration::from_millis(20),
        ..Limits::default()
    };
    let (let_go, gate) = watch::channel(false);
    let (tell, mut told) = mpsc::unbounded_channel();
    let deaf = async move || {
        let mut gate = gate.clone();
        gate.wait_for(|open| *open).await.unwrap();
        Err::<(), _>(Refusal::new(here!(), Code::NoFetch, "too late"))
    };
    let outside = move |request: Request, next: Next| {
        let tell = tell.clone();
        async move {
            let response = next.run(request).await;
            tell.send(response.status()).unwrap();
            response
        }
    };
    let routes = Router::new()
        .route("/deaf", get(deaf))
        .layer(middleware::from_fn(way_out))
        .layer(middleware::from_fn(outside));
    let builder = answering(Server::builder(), &handler).limits(limits).observer(());
    let (addr, _process) = serve_routes(builder, routes).await;
    let (head, _open) = head(addr, "/deaf").await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    let answered = log.lines();
    assert!(
        answered.len() == 1 && answered[0].starts_with("504 "),
        "{answered:?}"
    );
    let_go.send_replace(true);
    assert_eq!(
        told.recv().await,
        Some(StatusCode::NOT_FOUND),
        "it is made all the same"
    );
    assert_eq!(log.lines(), answered);
}

/// The control: the same question asked of a log that hears of exchanges when they are over.
#[tokio::test]
async fn control_a_line_after_the_fact_is_not_there() {
    let log = AfterTheFact::default();
    let (addr, _process) = serve(Server::builder().observer(log.clone())).await;
    let mut open = Vec::new();
    for path in ["/responded", "/by-itself"] {
        let (head, connection) = head(addr, path).await;
        open.push(connection);
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        assert!(
            log.0.lock().unwrap().is_empty(),
            "{path}: the answer has a head, and nobody knows"
        );
    }
}
