//! What the tests share: the servers that the service runs on, its callers, and one that sees the frames.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bequest::{CancelScope, Context};
use bequest_http::Server;
use bequest_http::grpc::{ClientLayer, ClientService, ServerLayer};
use bequest_http::wire::Outbound;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request as HttpRequest};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer;

use super::desk::Desk;
use super::work::Ask;
use super::work::work_server::WorkServer;

pub(crate) type Calls = ClientService<Channel, tonic::body::Body>;

/// Fails a test that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// What the service is served by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// This crate's server, with the layer.
    Ours,
    /// tonic's own, with the layer.
    Tonics,
    /// This crate's server without the layer.
    Bare,
    /// tonic's own without the layer: the control.
    Plain,
}

/// The two with the layer.
pub(crate) const LAYERED: [Host; 2] = [Host::Ours, Host::Tonics];

/// Serves `desk` until the test's runtime ends.
pub(crate) async fn serve(host: Host, process: &CancelScope, layer: ServerLayer, desk: &Desk) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let service = WorkServer::new(desk.clone());
    let layer = layer.base(process);
    let ctx = process.context();
    match host {
        Host::Ours => {
            let service = layer.layer(service);
            tokio::spawn(async move { Server::builder().serve(listener, service, &ctx).await });
        }
        Host::Bare => {
            tokio::spawn(async move { Server::builder().serve(listener, service, &ctx).await });
        }
        Host::Tonics => {
            let server = tonic::transport::Server::builder()
                .layer(layer)
                .add_service(service);
            tokio::spawn(server.serve_with_incoming(listener.into_incoming()));
        }
        Host::Plain => {
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(listener.into_incoming()));
        }
    }
    addr
}

/// Connections as tonic takes them.
trait IntoIncoming {
    fn into_incoming(self) -> tonic::transport::server::TcpIncoming;
}

impl IntoIncoming for TcpListener {
    fn into_incoming(self) -> tonic::transport::server::TcpIncoming {
        tonic::transport::server::TcpIncoming::from(self)
    }
}

pub(crate) fn process() -> CancelScope {
    Context::background().with_cancel().named("process")
}

pub(crate) async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::try_from(format!("http://{addr}")).expect("an address");
    endpoint.connect().await.expect("the server accepts")
}

/// A client whose calls end with their contexts.
pub(crate) async fn calls(addr: SocketAddr) -> Calls {
    calls_keeping(Outbound::default().margin, addr).await
}

/// The same, which keeps this much of the time for the answer.
pub(crate) async fn calls_keeping(margin: Duration, addr: SocketAddr) -> Calls {
    let outbound = Outbound {
        margin,
        ..Outbound::default()
    };
    let layer = ClientLayer::new(tonic::body::Body::new).outbound(outbound);
    layer.layer(channel(addr).await)
}

/// Asks that a test sends one by one.
pub(crate) struct Asks(pub(crate) mpsc::Receiver<Ask>);

impl Stream for Asks {
    type Item = Ask;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Ask>> {
        self.0.poll_recv(cx)
    }
}

pub(crate) fn ask(text: &str) -> Ask {
    Ask {
        text: text.to_owned(),
    }
}

/// A caller on the protocol engine, without a deadline of its own.
pub(crate) struct Raw(h2::client::SendRequest<Bytes>);

/// A call under way.
pub(crate) struct RawCall {
    response: h2::client::ResponseFuture,
    pub(crate) asks: h2::SendStream<Bytes>,
}

/// An answer under way.
pub(crate) struct RawAnswer {
    pub(crate) head: HeaderMap,
    pub(crate) body: h2::RecvStream,
}

impl Raw {
    pub(crate) async fn connect(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).await.expect("the server accepts");
        let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
        // Its end is seen by the streams.
        tokio::spawn(async move { drop(connection.await) });
        Raw(send)
    }

    /// Sends a request with one message, and ends it there or not.
    pub(crate) async fn call(
        &self,
        method: &str,
        timeout: Option<&str>,
        text: &str,
        is_whole: bool,
    ) -> RawCall {
        let mut send = guard("a stream", self.0.clone().ready()).await.expect("open");
        let mut request = HttpRequest::post(format!("http://test/bequest.test.Work/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(()).expect("a request");
        let (response, mut asks) = send.send_request(request, false).expect("a stream");
        asks.send_data(framed(text), is_whole).expect("a window");
        RawCall { response, asks }
    }
}

impl RawCall {
    pub(crate) async fn answer(self) -> RawAnswer {
        self.answer_and_asks().await.0
    }

    /// The answer, while one message after the other is sent, until that is stopped.
    pub(crate) async fn answer_while_asking(self) -> (RawAnswer, tokio::task::JoinHandle<()>) {
        let RawCall { response, mut asks } = self;
        let message = framed(&"tick ".repeat(2_000));
        let asking = tokio::spawn(async move {
            loop {
                asks.reserve_capacity(message.len());
                match std::future::poll_fn(|cx| asks.poll_capacity(cx)).await {
                    Some(Ok(room)) if room < message.len() => {}
                    Some(Ok(_)) => asks.send_data(message.clone(), false).expect("there is room"),
                    // Its answer is complete.
                    _ => return,
                }
            }
        });
        (answered(response).await, asking)
    }

    /// The answer, with the request's side kept open.
    pub(crate) async fn answer_and_asks(self) -> (RawAnswer, h2::SendStream<Bytes>) {
        (answered(self.response).await, self.asks)
    }
}

async fn answered(response: h2::client::ResponseFuture) -> RawAnswer {
    let response = guard("a head", response).await.expect("an answer");
    let (head, body) = response.into_parts();
    assert_eq!(head.status, 200);
    let head = head.headers;
    RawAnswer { head, body }
}

impl RawAnswer {
    /// Whether the head says all.
    pub(crate) fn is_trailers_only(&self) -> bool {
        self.head.contains_key("grpc-status") && self.body.is_end_stream()
    }

    /// One more piece; `None` at the end of the messages.
    pub(crate) async fn piece(&mut self) -> Option<Bytes> {
        let piece = guard("a piece", self.body.data()).await?.expect("no reset");
        self.body
            .flow_control()
            .release_capacity(piece.len())
            .expect("it was taken");
        Some(piece)
    }

    /// The trailers, after whatever else there is.
    pub(crate) async fn trailers(&mut self) -> HeaderMap {
        while self.piece().await.is_some() {}
        guard("trailers", self.body.trailers())
            .await
            .expect("no reset")
            .expect("trailers")
    }
}

pub(crate) fn status(headers: &HeaderMap) -> i32 {
    let status = headers.get("grpc-status").expect("a status");
    status.to_str().expect("text").parse().expect("a number")
}

fn framed(text: &str) -> Bytes {
    let message = ask(text).encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}
