//! What the tests share: a service whose handlers do what they are asked to, the servers it runs on, and a caller that sees
//! the frames.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bequest::{CancelScope, Context};
use bequest_http::Server;
use bequest_http::grpc::{ClientLayer, ClientService, ServerLayer, code};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request as HttpRequest};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tower_layer::Layer;

use super::work::work_client::WorkClient;
use super::work::work_server::{Work, WorkServer};
use super::work::{Answer, Ask};

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

/// The service, which tells the test what happens in its handlers.
#[derive(Clone)]
pub(crate) struct Desk {
    tell: mpsc::UnboundedSender<String>,
    /// Whom `chain` is passed on to.
    next: Option<Next>,
    /// How often the work of `thread` has gone round.
    pub(crate) steps: Arc<AtomicUsize>,
    /// Ends such work when the test is over.
    halt: Arc<AtomicBool>,
}

/// The next service, asked under the context of the call, or without one.
#[derive(Clone)]
pub(crate) enum Next {
    Under(Calls),
    Plain(Channel),
}

pub(crate) type Calls = ClientService<Channel, tonic::body::Body>;

/// What the handlers say.
pub(crate) struct Told(mpsc::UnboundedReceiver<String>);

impl Told {
    pub(crate) async fn next(&mut self) -> String {
        guard("a handler to say something", self.0.recv())
            .await
            .expect("a service")
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Desk {
    pub(crate) fn new(next: Option<Next>) -> (Desk, Told) {
        let (tell, told) = mpsc::unbounded_channel();
        let desk = Desk {
            tell,
            next,
            steps: Arc::default(),
            halt: Arc::default(),
        };
        (desk, Told(told))
    }

    fn tell(&self, what: impl Into<String>) {
        // A test that is over hears nothing.
        let _ = self.tell.send(what.into());
    }

    /// Says when it is dropped.
    fn dropped(&self) -> impl Drop + Send + 'static {
        struct OnDrop(Desk);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.tell("dropped");
            }
        }
        OnDrop(self.clone())
    }

    /// Work on a thread of its own: it asks its context, if it has one, at each step.
    fn work(&self, ctx: Option<Context>) {
        let desk = self.clone();
        std::thread::spawn(move || {
            while !desk.halt.load(SeqCst) {
                if let Some(end) = ctx.as_ref().and_then(Context::err) {
                    return desk.tell(format!("work stopped: {}", end.reason()));
                }
                desk.steps.fetch_add(1, SeqCst);
                std::thread::yield_now();
            }
        });
    }

    pub(crate) fn halt(&self) {
        self.halt.store(true, SeqCst);
    }

    async fn pass_on(&self, ctx: Option<&Context>, text: String) -> Result<String, Status> {
        let answer = match (&self.next, ctx) {
            (Some(Next::Under(calls)), Some(ctx)) => {
                WorkClient::new(calls.under(ctx)).unary(Ask { text }).await?
            }
            (Some(Next::Plain(channel)), _) => WorkClient::new(channel.clone()).unary(Ask { text }).await?,
            _ => return Err(Status::failed_precondition("nobody to ask")),
        };
        Ok(answer.into_inner().text)
    }
}

fn left(ctx: Option<&Context>) -> String {
    match ctx.and_then(Context::remaining) {
        Some(left) => left.as_millis().to_string(),
        None => "none".to_owned(),
    }
}

fn answer(text: impl Into<String>) -> Answer {
    Answer { text: text.into() }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

#[tonic::async_trait]
impl Work for Desk {
    async fn unary(&self, request: Request<Ask>) -> Result<Response<Answer>, Status> {
        let header = request.metadata().get("grpc-timeout");
        let header = header.map(|text| text.to_str().expect("text").to_owned());
        let ctx = request.extensions().get::<Context>().cloned();
        let text = request.into_inner().text;
        let said = match text.as_str() {
            "left" => left(ctx.as_ref()),
            "header" => header.unwrap_or_else(|| "none".to_owned()),
            "deaf" => {
                self.tell("began");
                let _dropped = self.dropped();
                pending().await
            }
            "listen" => {
                self.tell("began");
                let end = ctx.expect("a context").done().await;
                self.tell(format!("told: {}", end.reason()));
                return Err(Status::new(code(&end).into(), "told"));
            }
            "panic" => panic!("asked to"),
            "refuse" => return Err(Status::not_found("no such thing")),
            "chain left" | "chain thread" | "chain deaf" | "chain header" => {
                let last = text.trim_start_matches("chain ").to_owned();
                if self.next.is_some() {
                    let here = left(ctx.as_ref());
                    let there = self.pass_on(ctx.as_ref(), text).await?;
                    return Ok(Response::new(answer(format!("{here} {there}"))));
                }
                match last.as_str() {
                    "left" => left(ctx.as_ref()),
                    "header" => header.unwrap_or_else(|| "none".to_owned()),
                    _ => {
                        self.work(ctx);
                        self.tell("began");
                        let _dropped = self.dropped();
                        pending().await
                    }
                }
            }
            other => other.to_owned(),
        };
        Ok(Response::new(answer(said)))
    }

    type DownStream = Answers;

    async fn down(&self, request: Request<Ask>) -> Result<Response<Answers>, Status> {
        let ctx = request.extensions().get::<Context>().cloned();
        let (say, heard) = mpsc::channel(1);
        let desk = self.clone();
        let text = request.into_inner().text;
        tokio::spawn(async move {
            match text.as_str() {
                // A message, and then nothing.
                "silent" => {
                    let _ = say.send(Ok(answer("one"))).await;
                    desk.tell("began");
                    say.closed().await;
                    desk.tell("stream dropped");
                }
                // A message whenever one can be sent, and not so small that a peer calls it a flood.
                "endless" => while say.send(Ok(answer("tick ".repeat(2_000)))).await.is_ok() {},
                "listen" => {
                    let _ = say.send(Ok(answer("one"))).await;
                    desk.tell("began");
                    let end = ctx.expect("a context").done().await;
                    desk.tell(format!("told: {}", end.reason()));
                }
                "forged" => {
                    let mut status = Status::cancelled("by the peer");
                    status
                        .metadata_mut()
                        .insert("bequest-ended-here", "context".parse().expect("text"));
                    let _ = say.send(Err(status)).await;
                }
                _ => {
                    let _ = say.send(Ok(answer("one"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(Receiver(heard))))
    }

    async fn up(&self, request: Request<Streaming<Ask>>) -> Result<Response<Answer>, Status> {
        self.tell("began");
        let mut asked = request.into_inner();
        let mut count = 0;
        while let Some(_ask) = asked.message().await.inspect_err(|status| {
            self.tell(format!("reading failed: {:?}", status.code()));
        })? {
            count += 1;
        }
        Ok(Response::new(answer(count.to_string())))
    }

    type BothStream = Answers;

    async fn both(&self, request: Request<Streaming<Ask>>) -> Result<Response<Answers>, Status> {
        let mut asked = request.into_inner();
        let (say, heard) = mpsc::channel(1);
        let desk = self.clone();
        tokio::spawn(async move {
            loop {
                match asked.message().await {
                    Ok(Some(ask)) => {
                        let _ = say.send(Ok(answer(ask.text))).await;
                    }
                    Ok(None) => return desk.tell("asked to the end"),
                    Err(status) => {
                        return desk.tell(format!("reading failed: {:?}", status.code()));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(Receiver(heard))))
    }
}

struct Receiver(mpsc::Receiver<Result<Answer, Status>>);

impl Stream for Receiver {
    type Item = Result<Answer, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

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
    ClientLayer::new(tonic::body::Body::new).layer(channel(addr).await)
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

    /// The answer, with the request's side kept open.
    pub(crate) async fn answer_and_asks(self) -> (RawAnswer, h2::SendStream<Bytes>) {
        let response = guard("a head", self.response).await.expect("an answer");
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        let head = head.headers;
        (RawAnswer { head, body }, self.asks)
    }
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
