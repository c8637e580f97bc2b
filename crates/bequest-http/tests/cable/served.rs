//! The server at the near end, and its clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bequest::{Canceled, Context, Reason};
use bequest_http::server::{
    BoxError, Builder, ConnInfo, Disconnect, Limits, Observer, Peer, PeerState, RequestBody, Statistics,
    Upgrade, service_fn,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::far::{AT_ONCE, ROUTED};
use super::lab::{Cable, Plug};
use super::trial::{Outcome, guard, settle, until};

/// The size of a large answer.
pub(crate) const LARGE: usize = 64 * 1024 * 1024;

/// A piece of an answer, longer than a head.
pub(crate) static PIECE: [u8; 1024] = [b'x'; 1024];

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What a request comes for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A handler that waits and writes nothing.
    Wait,
    /// A large answer, which is being written.
    Large,
    /// An answer in small pieces, one of which is on its way.
    Pieces,
    /// A request's body, which is being read.
    Read,
    /// Another protocol, in which something is on its way.
    Upgrade,
}

/// A running server.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    closed: mpsc::UnboundedReceiver<Canceled>,
    statistics: Statistics,
}

/// A request, as its handler sees it.
pub(crate) struct Arrival {
    pub(crate) ctx: Context,
    peer: Peer,
    /// Gone with the handler, or with its answer's body.
    pub(crate) alive: Weak<()>,
    pub(crate) answer: oneshot::Sender<&'static str>,
    pieces: mpsc::Sender<Bytes>,
}

/// No limit but the one on silence.
pub(crate) fn only(unreachable: Duration) -> Limits {
    Limits {
        first_byte: Duration::MAX,
        header: Duration::MAX,
        idle: Duration::MAX,
        request: Duration::MAX,
        body_idle: Duration::MAX,
        write_stall: Duration::MAX,
        unreachable,
        ..Limits::default()
    }
}

pub(crate) fn served_by(cable: &Cable, builder: Builder) -> Served {
    let (tell, arrivals) = mpsc::unbounded_channel();
    let (closes, closed) = mpsc::unbounded_channel();
    let builder = builder
        .disconnect(Disconnect::Grace(Duration::from_millis(100)))
        .observer(Closes(closes));
    let statistics = builder.statistics();
    let listener = std::net::TcpListener::bind(cable.near()).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("an address");
    let listener = TcpListener::from_std(listener).expect("a runtime");
    let service = service_fn(move |request| handle(request, tell.clone()));
    tokio::spawn(async move { builder.serve(listener, service, &Context::background()).await });
    Served {
        addr,
        arrivals,
        closed,
        statistics,
    }
}

struct Closes(mpsc::UnboundedSender<Canceled>);

impl Observer for Closes {
    fn connection_closed(&self, _conn: &ConnInfo, end: &Canceled) {
        // The trial may be over.
        let _ = self.0.send(end.clone());
    }
}

pub(crate) async fn handle<R>(
    mut request: Request<RequestBody<R>>,
    tell: mpsc::UnboundedSender<Arrival>,
) -> Response<Body>
where
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let alive = Arc::new(());
    let (answer, answered) = oneshot::channel();
    let (pieces, mut rest) = mpsc::channel(1);
    let arrival = Arrival {
        ctx: request.extensions().get::<Context>().expect("a context").clone(),
        peer: request.extensions().get::<Peer>().expect("a peer").clone(),
        alive: Arc::downgrade(&alive),
        answer,
        pieces,
    };
    match request.uri().path() {
        "/large" => {
            // A trial that is over hears nothing any more; so below.
            let _ = tell.send(arrival);
            Response::new(
                Large {
                    left: LARGE,
                    _alive: alive,
                }
                .boxed_unsync(),
            )
        }
        "/pieces" => {
            let _ = tell.send(arrival);
            Response::new(Pieces { rest, _alive: alive }.boxed_unsync())
        }
        "/read" => {
            let _ = tell.send(arrival);
            // A body that fails is no reason to end: that is what the context is for.
            let _ = request.into_body().collect().await;
            std::future::pending().await
        }
        "/upgrade" => {
            let upgrade = request.extensions().get::<Upgrade>().expect("it was asked for");
            let ctx = upgrade.context().clone();
            let socket = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(socket.await.expect("an upgrade"));
                let _ = tell.send(Arrival {
                    ctx: ctx.clone(),
                    ..arrival
                });
                let echo = async {
                    while let Some(piece) = rest.recv().await {
                        socket.write_all(&piece).await.expect("an open connection");
                    }
                };
                let _ = ctx.run(echo).await;
                drop(alive);
            });
            let mut response = Response::new(
                http_body_util::Empty::new()
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            );
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, header::HeaderValue::from_static("pieces"));
            response
        }
        _ => {
            let _ = tell.send(arrival);
            let answer = match answered.await {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            };
            drop(alive);
            let body = http_body_util::Full::new(Bytes::from_static(answer.as_bytes()));
            Response::new(body.map_err(|never| match never {}).boxed_unsync())
        }
    }
}

pub(crate) struct Large {
    pub(crate) left: usize,
    pub(crate) _alive: Arc<()>,
}

impl http_body::Body for Large {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
        self.left = self.left.saturating_sub(PIECE.len());
        let piece = Frame::data(Bytes::from_static(&PIECE));
        Poll::Ready((self.left > 0).then_some(Ok(piece)))
    }
}

struct Pieces {
    rest: mpsc::Receiver<Bytes>,
    pub(crate) _alive: Arc<()>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.rest
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Work {
    pub(crate) fn head(self) -> &'static str {
        match self {
            Work::Wait => "GET /wait HTTP/1.1\r\nhost: test\r\n\r\n",
            Work::Large => "GET /large HTTP/1.1\r\nhost: test\r\n\r\n",
            Work::Pieces => "GET /pieces HTTP/1.1\r\nhost: test\r\n\r\n",
            Work::Read => "POST /read HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\na beginning",
            Work::Upgrade => {
                "GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: pieces\r\n\r\n"
            }
        }
    }
}

/// A client of HTTP/1 that reads whatever comes, and counts it.
pub(crate) struct Client {
    pub(crate) read: mpsc::UnboundedReceiver<usize>,
    _writes: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Client {
    /// Sends a request for this work.
    pub(crate) async fn asks(work: Work, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Client {
        let (read_half, mut writes) = tokio::io::split(stream);
        let head = work.head().as_bytes();
        writes.write_all(head).await.expect("an open connection");
        Client {
            read: reads(read_half),
            _writes: Box::new(writes),
        }
    }

    /// Reads until this many bytes have come.
    pub(crate) async fn reads(&mut self, bytes: usize) {
        let mut read = 0;
        while read < bytes {
            read += guard("bytes", self.read.recv())
                .await
                .expect("an open connection");
        }
    }
}

pub(crate) fn reads(mut stream: impl AsyncRead + Unpin + Send + 'static) -> mpsc::UnboundedReceiver<usize> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut space = vec![0; 64 * 1024];
        while let Ok(size @ 1..) = stream.read(&mut space).await {
            if tell.send(size).is_err() {
                break;
            }
        }
    });
    told
}

impl Arrival {
    pub(crate) async fn send(&self) {
        let piece = Bytes::from_static(&PIECE);
        self.pieces.send(piece).await.expect("somebody reads");
    }
}

impl Served {
    pub(crate) async fn arrival(&mut self) -> Arrival {
        guard("a request", self.arrivals.recv()).await.expect("a server")
    }

    /// Waits until the end of a client that fell silent at `pulled` is noticed, and nothing is left of it.
    pub(crate) async fn ends(mut self, arrival: Arrival, pulled: Instant) -> Outcome {
        let end = guard("the context to end", arrival.ctx.done()).await;
        let at = Instant::now();
        assert_eq!(end.reason(), Reason::Unreachable);
        assert_eq!(arrival.peer.state(), PeerState::Unreachable);
        until("the handler to be dropped", || arrival.alive.strong_count() == 0).await;
        self.is_given_back().await;
        Outcome::noticed(pulled, at, end.reason())
    }

    pub(crate) async fn is_given_back(&mut self) {
        let closed = guard("the connection to close", self.closed.recv()).await;
        assert_eq!(closed.expect("a server").reason(), Reason::Unreachable);
        until("the connection", || self.statistics.snapshot().connections == 0).await;
    }
}

/// A request of HTTP/1 for this work, under way.
pub(crate) async fn under_way(
    served: &mut Served,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    work: Work,
) -> (Arrival, Client) {
    let mut client = Client::asks(work, stream).await;
    let arrival = served.arrival().await;
    match work {
        Work::Wait | Work::Read => settle().await,
        Work::Large => client.reads(LARGE / 64).await,
        Work::Pieces | Work::Upgrade => {
            // A first one, so that the next is the only one on its way.
            arrival.send().await;
            client.reads(PIECE.len()).await;
        }
    }
    (arrival, client)
}

/// How a client is to dial.
pub(crate) fn how(plug: Plug) -> &'static str {
    match plug {
        Plug::Routed => ROUTED,
        Plug::Far | Plug::Near => AT_ONCE,
    }
}
