//! The server without its accept loop: what of it holds under somebody else's, as tower layers.
//!
//! A loop on hyper or hyper-util, or `axum::serve`, accepts, reads and writes. Around its service a [`ContextLayer`] makes the
//! contexts: the same exchange as under this crate's own loop, from the request's head to the end of its response's body.
//!
//! # Invariants
//!
//! 1. An exchange counts as one unit of work from its head to its end, as no task of a connection stands for it.
//! 2. The service never fails: nobody to answer is an answer that nobody reads.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};

use bequest::{Context, Reason};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpStream;
use tower_layer::Layer;
use tower_service::Service;

use super::BoxError;
use super::body::{RequestBody, ResponseBody};
use super::connection::{Connection, Driven};
use super::observe::{ConnInfo, client_closed_request};
use super::service::{App, Come, Exchanging};
use super::shared::Shared;
use super::shutdown::{Stages, Summary};
use super::silence;
use super::statistics::Statistics;

/// A server's contexts for an accept loop of somebody else's. Made by [`Builder::layers`](super::Builder::layers).
///
/// It owns what it makes: dropped without [`run`](Layers::run), every context under it ends at once.
///
/// # Which abilities remain
///
/// | ability | [`layer`](Layers::layer) alone | and each connection [introduced](Layers::connection) | [`serve`](super::Builder::serve) |
/// |---|---|---|---|
/// | a context for each request, with the caller's deadline and values, that ends with its reason at the end of the body | yes | yes | yes |
/// | request limit, body idle and body rate; 504, 503, 500 in a handler's place | yes | yes | yes |
/// | told, then grace, then dropped, within caps | yes; one cap over all | yes | yes |
/// | drain, tell, drop at the end, of requests | yes | yes | yes |
/// | an HTTP/1 request without one `Host`, or coded in other ways than chunked, is refused | if [asked for](ContextLayer::check_form) | yes | yes |
/// | a reset of HTTP/2 that says that there is no error is no end of a body | of hyper's own body | of hyper's own body | yes |
/// | [`Peer`](super::Peer), [`ConnInfo`](super::ConnInfo), `conn_context`; a cap on lingering handlers for each connection | no | yes | yes |
/// | a client that leaves is noticed | where the loop's engine drops the handler | also behind unread bytes, by watching the socket (Linux, Android) | also behind a full window, by reading ahead |
/// | an HTTP/1 client that half-closes gets its answer | if the loop sets `half_close(true)`, and then its leaving is not noticed | if the loop sets `half_close(true)` | yes |
/// | a silent peer | no | HTTP/1: by the system's keepalive | yes |
/// | upgrades with a context of their own | no | no | yes |
/// | the time spent sending the head counts against a caller's deadline (HTTP/1) | no | no | yes |
/// | a cost only for what is used | a boxed handler and a clone of the service for each request | and a second handle on each socket | no second handle |
///
/// # What only `serve` does
///
/// It reads and writes the connection, and what is to be seen or said there can not be had around a service. What comes near to it is
/// the loop's to set, on hyper's builders:
///
/// | `serve` | by hand |
/// |---|---|
/// | [`Limits::header`] | `http1`: `header_read_timeout`, with a `timer`; HTTP/2: nothing |
/// | [`Limits::first_byte`], `handshake`, `idle`, `write_stall` | nothing; a timeout around the handshake is the loop's |
/// | [`Limits::connections`] | a place of a semaphore before each `accept` |
/// | [`Limits::unreachable`], HTTP/2 | `http2`: `keep_alive_interval` and `keep_alive_timeout`, with a `timer` |
/// | [`Limits::streams`], told to the client | `http2`: `max_concurrent_streams`; hyper's default is 200 as well |
/// | the same as a cap on handlers, those of streams that were reset among them | nothing: only open streams are counted |
/// | [`Limits::resets`] | `http2`: `max_pending_accept_reset_streams`; the default is 20, whether others were answered or not, and of those only whose handlers are still to begin |
/// | no handler is begun for a stream that was reset before | nothing: it is begun, and told |
/// | 64 KiB of HTTP/1 header | `http1`: `max_buf_size`, `max_header_size` |
///
/// [`Limits::header`]: super::Limits::header
/// [`Limits::first_byte`]: super::Limits::first_byte
/// [`Limits::connections`]: super::Limits::connections
/// [`Limits::unreachable`]: super::Limits::unreachable
/// [`Limits::streams`]: super::Limits::streams
/// [`Limits::resets`]: super::Limits::resets
///
/// # Example: under `axum::serve`
///
/// ```
/// # #[cfg(feature = "axum")]
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use axum::{Router, routing::get};
/// use bequest::{Context, Reason};
/// use bequest_http::{Server, axum::Ctx};
///
/// let process = Context::background().with_cancel();
/// let layers = Server::builder().layers(&process);
/// let app: Router = Router::new()
///     .route("/", get(|Ctx(ctx): Ctx| async move { format!("{:?} left", ctx.remaining().unwrap()) }))
///     .layer(layers.layer());
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let ended = process.context();
/// let serving = axum::serve(listener, app).with_graceful_shutdown(async move { drop(ended.done().await) });
/// let serving = tokio::spawn(serving.into_future());
/// process.cancel_for(Reason::Shutdown);
/// assert_eq!(layers.run().await.unfinished, 0);
/// serving.await.unwrap().unwrap();
/// # });
/// ```
#[must_use = "dropped, it ends every context that it has made"]
pub struct Layers {
    ctx: Context,
    server: Arc<Shared>,
    /// Taken by `run`.
    stages: Mutex<Option<Stages>>,
    /// Stands for the connections that nobody has introduced.
    unknown: Arc<Introduction>,
    last_id: AtomicU64,
}

/// The tower layer that makes contexts. Made by [`Layers`].
#[derive(Clone)]
pub struct ContextLayer {
    conn: Arc<Introduction>,
    checks_form: bool,
}

/// The service made by [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    conn: Arc<Introduction>,
    checks_form: bool,
}

/// One connection, until whoever drives it has dropped its service.
struct Introduction(Arc<Connection>);

/// The future of a [`ContextService`]: an answer, also if there is nobody left to read it.
pub struct Answer<B: Send + 'static>(Exchanging<B>);

impl Layers {
    pub(super) fn new(ctx: &Context, server: Arc<Shared>, stages: Stages) -> Layers {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let info = ConnInfo::new(0, nowhere, nowhere);
        let unknown = Connection::open(server.clone(), info, Driven::Unknown);
        Layers {
            ctx: ctx.clone(),
            server,
            stages: Mutex::new(Some(stages)),
            unknown: Arc::new(Introduction(Arc::new(unknown))),
            last_id: AtomicU64::new(0),
        }
    }

    /// The layer for services whose connections are not at hand. Nothing is known of them.
    pub fn layer(&self) -> ContextLayer {
        ContextLayer {
            conn: self.unknown.clone(),
            checks_form: false,
        }
    }

    /// Introduces a connection by its socket: the layer for the service of this one connection.
    ///
    /// It makes the connection's context, sets the socket's options as [`serve`](super::Builder::serve) does, and takes a
    /// second handle on it to be watched, which is closed with the last clone of the service. With TLS this is the socket
    /// below it.
    ///
    /// # Errors
    ///
    /// If the system has no further handle to give, or the client has left already.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Example: a loop on hyper
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// use bequest::{Context, Reason};
    /// use bequest_http::{Server, server::{RequestBody, service_fn}};
    /// use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tower_layer::Layer;
    ///
    /// let hello = service_fn(|request: http::Request<RequestBody<_>>| async move {
    ///     let ctx = request.extensions().get::<Context>().expect("the layer made one");
    ///     http::Response::new(format!("{} s left", ctx.remaining().unwrap().as_secs()))
    /// });
    /// let layers = Server::builder().layers(&Context::background());
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    /// let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    /// client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    ///
    /// let (stream, _) = listener.accept().await.unwrap();
    /// let service = layers.connection(&stream).unwrap().layer(hello);
    /// let served = hyper::server::conn::http1::Builder::new()
    ///     .half_close(true)
    ///     .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    /// served.await.unwrap();
    ///
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).await.unwrap();
    /// assert!(answer.ends_with("29 s left"));
    /// # });
    /// ```
    pub fn connection(&self, socket: &TcpStream) -> io::Result<ContextLayer> {
        let (peer_addr, local_addr) = (socket.peer_addr()?, socket.local_addr()?);
        silence::tune(socket, &self.server.limits, || false)?;
        let second = match self.server.watch {
            true => Some(socket2::SockRef::from(socket).try_clone()?),
            false => None,
        };
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let info = ConnInfo::new(id, peer_addr, local_addr);
        let conn = Connection::open(self.server.clone(), info, Driven::Elsewhere);
        if let Some(second) = second {
            conn.outpost().man(second.into());
        }
        self.server
            .observe(|observer| observer.connection_opened(conn.info()));
        Ok(ContextLayer {
            conn: Arc::new(Introduction(Arc::new(conn))),
            checks_form: true,
        })
    }

    /// A handle on the counters. What only an accept loop sees stays at zero.
    pub fn statistics(&self) -> Statistics {
        Statistics(self.server.tally.clone())
    }

    /// Waits for the end of the context that was given to [`Builder::layers`](super::Builder::layers), and then brings the
    /// requests to theirs as [`serve`](super::Builder::serve) does: drain, tell, drop. To end accepting and to close idle
    /// connections is the loop's part.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it drains is the abrupt end: every context ends.
    pub async fn run(&self) -> Summary {
        let end = self.ctx.done().await;
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner).take();
        let unfinished = match stages {
            Some(stages) => stages.run(&self.server).await,
            // Called before: that call brings them to their end.
            None => self.server.tally.tasks(),
        };
        let statistics = Statistics(self.server.tally.clone()).snapshot();
        Summary {
            end,
            statistics,
            unfinished,
        }
    }
}

impl ContextLayer {
    /// Whether a request of HTTP/1 is refused that two servers could read in two ways: without exactly one `Host` that can be
    /// one (400), or coded in other ways than chunked alone (501). Neither hyper nor `axum::serve` looks at that.
    ///
    /// `true` otherwise for a connection that was [introduced](Layers::connection): whatever comes on it was sent. `false` for
    /// [`Layers::layer`], around which tests often call their service with a request that was not, and has no `Host`.
    ///
    /// ```
    /// # #[cfg(feature = "axum")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use axum::{Router, body::Body, routing::get};
    /// use bequest::Context;
    /// use bequest_http::Server;
    /// use http::{Request, StatusCode};
    /// use tower_service::Service;
    ///
    /// let layers = Server::builder().layers(&Context::background());
    /// let app = || Router::<()>::new().route("/", get(|| async { "hello" }));
    /// let without_host = || Request::get("/").body(Body::empty()).unwrap();
    ///
    /// let answer = app().layer(layers.layer()).call(without_host()).await.unwrap();
    /// assert_eq!(answer.status(), StatusCode::OK);
    /// let answer = app().layer(layers.layer().check_form(true)).call(without_host()).await.unwrap();
    /// assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    /// # });
    /// ```
    #[must_use]
    pub fn check_form(mut self, check: bool) -> ContextLayer {
        self.checks_form = check;
        self
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService {
            inner,
            conn: self.conn.clone(),
            checks_form: self.checks_form,
        }
    }
}

impl<S, B, R> Service<Request<R>> for ContextService<S>
where
    S: Service<Request<RequestBody<R>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<ResponseBody<B>>;
    type Error = Infallible;
    type Future = Answer<B>;

    /// Always: each request waits for the service by itself, within its own context.
    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> Answer<B> {
        let conn = &self.conn.0;
        if !conn.is_unknown() {
            conn.speaks(request.version());
        }
        Answer(begin::<S, R>(conn, self.inner.clone(), request, self.checks_form))
    }
}

fn begin<S: App<R>, R>(
    conn: &Arc<Connection>,
    service: S,
    request: Request<R>,
    checks_form: bool,
) -> Exchanging<S::Body> {
    let (head, body) = request.into_parts();
    let request = Come {
        head,
        body,
        has_body: true,
        checks_form,
    };
    Exchanging::begin(conn, service, request)
}

impl<B> Future for Answer<B>
where
    B: Body + Send + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(Ok(answer.unwrap_or_else(|_abandoned| {
            let mut nobody_reads = Response::new(ResponseBody::nothing(self.0.exchange()));
            *nobody_reads.status_mut() = client_closed_request();
            nobody_reads
        })))
    }
}

impl Drop for Introduction {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.outpost().abandon();
        conn.scope().cancel_for(match conn.is_busy() {
            true => conn.departure(false),
            false => Reason::ResponseEnded,
        });
        if let (false, Some(end)) = (conn.is_unknown(), conn.scope().err()) {
            conn.server()
                .observe(|observer| observer.connection_closed(conn.info(), &end));
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("limits", &self.server.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContextLayer").field(self.conn.0.info()).finish()
    }
}

impl<S> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContextService").field(self.conn.0.info()).finish()
    }
}

impl<B: Send + 'static> fmt::Debug for Answer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
