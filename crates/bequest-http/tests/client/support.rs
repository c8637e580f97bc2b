//! What the tests share: a peer in the test's hands, a gate before a connector, and requests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::Context;
use bequest_http::client::{Client, Error, ResponseBody};
use bequest_http::server::{RequestBody, Server, service_fn};
use bequest_test::proxy::Proxy;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service;

/// Fails a test that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// A server that answers with this, and a network before it; its URL through that network.
pub(crate) async fn behind_a_network<F>(
    answer: impl Fn(Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
) -> (Proxy, String)
where
    F: Future<Output = Response<String>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let root = Context::background();
        Server::builder().serve(listener, service_fn(answer), &root).await
    });
    let proxy = Proxy::start(addr).await.expect("a free port");
    let url = format!("http://{}/", proxy.address());
    (proxy, url)
}

/// A peer of HTTP/1 made of a socket and nothing else.
pub(crate) struct Peer {
    listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

/// One of its connections.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) async fn start() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        Peer { listener, addr }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn accept(&self) -> Conn {
        let (stream, _) = guard("a connection", self.listener.accept())
            .await
            .expect("an open listener");
        Conn { stream }
    }
}

impl Conn {
    /// Reads the head of a request.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        guard("a request", async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.stream.read_u8().await.expect("a request"));
            }
        })
        .await;
        String::from_utf8(head).expect("text").to_lowercase()
    }

    /// Reads a body in chunks to its end.
    pub(crate) async fn chunks(&mut self) {
        let mut body = Vec::new();
        guard("the end of a body", async {
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(self.stream.read_u8().await.expect("a body"));
            }
        })
        .await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("the socket takes it");
    }

    pub(crate) async fn answer(&mut self, body: &str) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send(&format!("{head}{body}")).await;
    }

    /// Waits until the client closes.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is a close as well.
        let _ = guard("the client to close", self.stream.read_to_end(&mut rest)).await;
    }
}

pub(crate) fn get(url: impl Into<String>) -> Request<Empty<Bytes>> {
    Request::get(url.into()).body(Empty::new()).expect("a request")
}

/// Starts an exchange as a task.
pub(crate) fn start<B>(
    client: &Client<impl bequest_http::client::Connector>,
    ctx: &Context,
    request: Request<B>,
) -> tokio::task::JoinHandle<Result<Response<ResponseBody>, Error>>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (client, ctx) = (client.clone(), ctx.clone());
    tokio::spawn(async move { client.send(&ctx, request).await })
}

/// The outcome of a started exchange.
pub(crate) async fn outcome<T>(task: tokio::task::JoinHandle<T>) -> T {
    guard("an exchange to end", task).await.expect("no panic")
}

pub(crate) async fn text(response: Response<ResponseBody>) -> Result<String, Error> {
    let body = guard("the body", response.into_body().collect()).await?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).expect("text"))
}

/// A connector that counts its dials and holds each at a gate.
#[derive(Clone)]
pub(crate) struct Gated {
    connector: HttpConnector,
    gate: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
    begins: Arc<Semaphore>,
}

impl Gated {
    pub(crate) fn shut() -> Gated {
        Gated {
            connector: HttpConnector::new(),
            gate: Arc::new(Semaphore::new(0)),
            begun: Arc::default(),
            begins: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(1_000);
    }

    /// Lets one dial through.
    pub(crate) fn open_for_one(&self) {
        self.gate.add_permits(1);
    }

    /// How many dials were begun.
    pub(crate) fn dials(&self) -> usize {
        self.begun.load(SeqCst)
    }

    /// Waits until one more dial has begun.
    pub(crate) async fn begins(&self) {
        guard("a dial", self.begins.acquire())
            .await
            .expect("open")
            .forget();
    }
}

impl Service<Uri> for Gated {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Uri>::poll_ready(&mut self.connector, cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.begun.fetch_add(1, SeqCst);
        self.begins.add_permits(1);
        let (mut connector, gate) = (self.connector.clone(), self.gate.clone());
        Box::pin(async move {
            gate.acquire().await.expect("open").forget();
            connector.call(uri).await
        })
    }
}
