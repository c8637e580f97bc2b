//! Setting a server up, and running it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bequest::Context;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpListener;
use tower_service::Service;

use super::accept::Accept;
use super::body::RequestBody;
use super::disconnect::Disconnect;
use super::inbound::Inbound;
use super::layer::Layers;
use super::limits::Limits;
use super::listen::{Accepted, Stop, accept_all};
use super::observe::{ConnInfo, ListenerInfo, Observer, StandIn};
use super::peer::HalfClose;
use super::service::App;
use super::shared::{Shared, Stopwatch};
use super::shutdown::{Stages, Summary};
use super::statistics::{Statistics, Tally};
use super::{BoxError, panic};

/// Makes the context of a server.
type BaseContext = dyn FnOnce(Context, &ListenerInfo) -> Context + Send;

/// Makes the context of a connection.
pub(super) type ConnContext = dyn Fn(Context, &ConnInfo) -> Context + Send + Sync;

/// Makes the context of a request.
pub(super) type RequestContext = dyn Fn(Context, &Parts, &ConnInfo) -> Context + Send + Sync;

/// Makes the answers that the server gives in a handler's place.
pub(super) type MakeStandIn = dyn Fn(&StandIn<'_>) -> Response<Bytes> + Send + Sync;

/// The settings of a server that is about to be started. Made by [`Server::builder`](super::Server::builder).
#[must_use = "a server does nothing until `serve` is called and awaited"]
pub struct Builder {
    base_context: Option<Box<BaseContext>>,
    conn_context: Option<Arc<ConnContext>>,
    request_context: Option<Arc<RequestContext>>,
    stand_in: Option<Arc<MakeStandIn>>,
    limits: Limits,
    disconnect: Disconnect,
    half_close: HalfClose,
    watch: bool,
    inbound: Inbound,
    #[cfg(feature = "tls")]
    tls: Option<super::tls::Tls>,
    observer: Arc<dyn Observer>,
    is_observed: bool,
    tally: Arc<Tally>,
}

/// The listener failed in a way that can not get better.
#[derive(Debug)]
pub struct ServeError {
    source: io::Error,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            base_context: None,
            conn_context: None,
            request_context: None,
            stand_in: None,
            limits: Limits::default(),
            disconnect: Disconnect::default(),
            half_close: HalfClose::default(),
            watch: true,
            inbound: Inbound::default(),
            #[cfg(feature = "tls")]
            tls: None,
            observer: Arc::new(()),
            is_observed: false,
            tally: Arc::default(),
        }
    }

    /// Makes the server's context from the one it would otherwise have; every connection derives from what `make`
    /// returns.
    ///
    /// What it returns must be derived from what it is given; a context from elsewhere is not told of the shutdown.
    pub fn base_context(
        mut self,
        make: impl FnOnce(Context, &ListenerInfo) -> Context + Send + 'static,
    ) -> Builder {
        self.base_context = Some(Box::new(make));
        self
    }

    /// Makes the context of each connection from the one it would otherwise have, which ends when the connection does;
    /// each request of that connection, and of no other, derives from what `make` returns.
    ///
    /// What it returns must be derived from what it is given; a context from elsewhere is not told when the connection
    /// ends.
    pub fn conn_context(
        mut self,
        make: impl Fn(Context, &ConnInfo) -> Context + Send + Sync + 'static,
    ) -> Builder {
        self.conn_context = Some(Arc::new(make));
        self
    }

    /// Makes the context of each request from the one it would otherwise have and from its head: the place for values that
    /// the handler, the observer and the server's own answers are to share, such as a request id.
    ///
    /// What it returns must be derived from what it is given; a context from elsewhere is not told when the request ends.
    /// It runs on the thread that drives the connection, before the handler, and is to be short.
    ///
    /// ```
    /// use bequest::Key;
    /// use bequest_http::Server;
    ///
    /// static AGENT: Key<String> = Key::new("agent");
    ///
    /// let server = Server::builder().request_context(|ctx, head, _conn| {
    ///     match head.headers.get("user-agent").and_then(|agent| agent.to_str().ok()) {
    ///         Some(agent) => ctx.with_value(&AGENT, agent.to_owned()),
    ///         None => ctx,
    ///     }
    /// });
    /// ```
    ///
    /// # Example: routes with limits of their own
    ///
    /// A deadline that is set here is the request's: the handler is told, and answered for with 504 if it says nothing for
    /// [`Limits::answer`]. It can only shorten, so [`Limits::request`] is that of the longest. (A limit on one step of a handler
    /// is a scope in the handler.)
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// use bequest::Context;
    /// use bequest_http::{Server, server::{Limits, service_fn}};
    /// use std::time::Duration;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let server = Server::builder()
    ///     .limits(Limits { request: Duration::from_secs(300), ..Limits::default() }) // for reports
    ///     .request_context(|ctx, head, _conn| match head.uri.path() {
    ///         "/report" => ctx,
    ///         "/suggest" => ctx.with_timeout(Duration::from_millis(100)).named("suggest").into_context(),
    ///         _ => ctx.with_timeout(Duration::from_secs(5)).named("page").into_context(),
    ///     });
    ///
    /// let deaf = service_fn(|_: http::Request<_>| std::future::pending::<http::Response<String>>());
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    /// let address = listener.local_addr().unwrap();
    /// tokio::spawn(async move { server.serve(listener, deaf, &Context::background()).await });
    ///
    /// let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    /// client.write_all(b"GET /suggest HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).await.unwrap();
    /// assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    /// # });
    /// ```
    pub fn request_context(
        mut self,
        make: impl Fn(Context, &Parts, &ConnInfo) -> Context + Send + Sync + 'static,
    ) -> Builder {
        self.request_context = Some(Arc::new(make));
        self
    }

    /// Makes the answers that the server gives in a handler's place: to a panic, a failure, a limit that passed or a
    /// shutdown. Short texts otherwise.
    ///
    /// It is called before the head of the answer leaves, on the thread that drives the connection. If it panics, the
    /// answer is the short text.
    ///
    /// ```
    /// use bequest_http::Server;
    /// use bytes::Bytes;
    /// use http::Response;
    ///
    /// let server = Server::builder().stand_in(|missing| {
    ///     let body = Bytes::from(format!("{{\"error\":\"{}\"}}\n", missing.why));
    ///     let mut answer = Response::new(body);
    ///     *answer.status_mut() = missing.status;
    ///     answer
    /// });
    /// ```
    pub fn stand_in(
        mut self,
        make: impl Fn(&StandIn<'_>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Builder {
        self.stand_in = Some(Arc::new(make));
        self
    }

    /// Sets the limits; [`Limits::default`] otherwise.
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Sets what becomes of handlers whose client leaves, for routes that do not say so themselves with a
    /// [`DisconnectLayer`](super::DisconnectLayer); a grace of 5 s otherwise.
    pub fn disconnect(mut self, mode: Disconnect) -> Builder {
        self.disconnect = mode;
        self
    }

    /// Sets what it means that an HTTP/1 client closes its sending side while it is served; it counts as gone otherwise,
    /// and still gets an answer that is given within the grace.
    pub fn half_close(mut self, meaning: HalfClose) -> Builder {
        self.half_close = meaning;
        self
    }

    /// Whether sockets are watched for clients that leave behind unread bytes. `true` otherwise; it makes no difference
    /// on systems where the runtime can not watch (other than Linux and Android).
    ///
    /// Without the watch a departure is noticed by reading ahead only: behind more unread bytes than
    /// [`Limits::read_ahead`] it is not.
    pub fn watch_sockets(mut self, watch: bool) -> Builder {
        self.watch = watch;
        self
    }

    /// Sets what requests hand down in their headers; [`Inbound::default`] otherwise: anybody's deadline can shorten the
    /// request limit, and nothing else is taken.
    pub fn inbound(mut self, inbound: Inbound) -> Builder {
        self.inbound = inbound;
        self
    }

    /// Serves HTTPS: each connection begins with a handshake, in which both sides agree on HTTP/2 or HTTP/1.1 (ALPN). HTTP
    /// in clear otherwise.
    ///
    /// The sockets are watched below TLS, so that a client that leaves is noticed as it is without; a client that says its
    /// TLS farewell (`close_notify`) and leaves the connection open counts as one that closes its sending side.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: super::Tls) -> Builder {
        self.tls = Some(tls);
        self
    }

    /// Sets who is told of what the server sees; `()` otherwise, which hears of panics and of failed accepts only.
    pub fn observer(mut self, observer: impl Observer) -> Builder {
        self.observer = Arc::new(observer);
        self.is_observed = true;
        self
    }

    /// A handle on the server's counters.
    pub fn statistics(&self) -> Statistics {
        Statistics(self.tally.clone())
    }

    /// Serves HTTP/1.1 and, by prior knowledge, HTTP/2 on this listener until `ctx` ends, and then shuts down.
    ///
    /// The server's context takes the values and the clock of `ctx`, not its end: when `ctx` ends, the server stops
    /// accepting, closes idle connections and lets requests go on for [`Limits::drain`]; then it ends their contexts with
    /// [`Reason::Shutdown`](bequest::Reason::Shutdown), gives them [`Limits::drain_grace`], and drops what is left.
    ///
    /// A connection that was accepted less than a second ago and has sent nothing yet is no idle one: its request may be on
    /// its way, and is answered if it comes within that second.
    ///
    /// What waits to be accepted when `ctx` ends still is, and a request that has come on an idle connection by then is
    /// answered: neither is lost because the server had not looked yet. An answer of HTTP/1 that is given after the end says
    /// `connection: close`. What comes later on a connection that is kept, or was still on its way, meets a closed one, as
    /// HTTP/1 clients must expect; [`Limits::drain_idle`] leaves such clients the time to ask once more, and be told.
    ///
    /// A `ctx` that has ended already is a server that accepts nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is the abrupt end: the listener closes, every context ends, every connection and handler is
    /// dropped without a drain.
    ///
    /// # Errors
    ///
    /// If the listener fails in a way that can not get better, after the same shutdown. Shortages of the system, such as
    /// too many open files, are waited out instead.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Example: one request, one shutdown
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// use bequest::{Context, Reason};
    /// use bequest_http::Server;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let hello = bequest_http::server::service_fn(|request: http::Request<_>| async move {
    ///     let ctx: &Context = request.extensions().get().expect("each request has a context");
    ///     assert!(!ctx.is_done());
    ///     http::Response::new(String::from("hello"))
    /// });
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    /// let address = listener.local_addr().unwrap();
    /// let process = Context::background().with_cancel();
    ///
    /// let ctx = process.context();
    /// let server = tokio::spawn(async move { Server::builder().serve(listener, hello, &ctx).await });
    ///
    /// let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    /// client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    /// let mut answer = String::new();
    /// client.read_to_string(&mut answer).await.unwrap();
    /// assert!(answer.ends_with("hello"));
    ///
    /// process.cancel_for(Reason::Shutdown);
    /// let summary = server.await.unwrap().unwrap();
    /// assert_eq!(summary.statistics.served, 1);
    /// # });
    /// ```
    pub async fn serve<S, B>(
        self,
        listener: TcpListener,
        service: S,
        ctx: &Context,
    ) -> Result<Summary, ServeError>
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        panic::install_hook();
        let local_addr = listener.local_addr()?;
        self.serve_on(listener, local_addr, service, ctx).await
    }

    /// The same contexts for an accept loop of somebody else's; [`Layers`] says which abilities remain. Limits of
    /// connections and settings for TLS are then for that loop to have.
    ///
    /// The contexts take the values and the clock of `ctx`, not its end: [`Layers::run`] sees to that.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn layers(self, ctx: &Context) -> Layers {
        panic::install_hook();
        let local_addr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let (server, stages) = self.start(&ListenerInfo { local_addr }, ctx);
        Layers::new(ctx, server, stages)
    }

    async fn serve_on<A, S>(
        self,
        mut listener: A,
        local_addr: SocketAddr,
        service: S,
        ctx: &Context,
    ) -> Result<Summary, ServeError>
    where
        A: Accept<Accepted = Accepted>,
        S: App,
    {
        let (server, stages) = self.start(&ListenerInfo { local_addr }, ctx);
        let stopped = accept_all(&server, &mut listener, service, ctx).await;
        drop(listener);
        let unfinished = stages.run(&server).await;
        match stopped {
            Stop::Asked(end) => {
                let statistics = Statistics(server.tally.clone()).snapshot();
                Ok(Summary {
                    end,
                    statistics,
                    unfinished,
                })
            }
            Stop::Failed(source) => Err(ServeError { source }),
        }
    }

    /// Makes what the connections share, and the owners of the server's contexts.
    pub(super) fn start(self, listener: &ListenerInfo, ctx: &Context) -> (Arc<Shared>, Stages) {
        let clock = ctx.without_cancel();
        let context = match self.base_context {
            Some(make) => make(clock.clone(), listener),
            None => clock.clone(),
        };
        let stages = Stages {
            draining: clock.with_cancel().named("drain"),
            context: context.with_cancel().named("server"),
            dropping: clock.with_cancel().named("drop"),
        };
        let server = Shared {
            limits: self.limits,
            disconnect: self.disconnect,
            half_close: self.half_close,
            watch: self.watch,
            inbound: self.inbound,
            #[cfg(feature = "tls")]
            tls: self.tls,
            observer: self.observer,
            is_observed: self.is_observed,
            conn_context: self.conn_context,
            request_context: self.request_context,
            stand_in: self.stand_in,
            tally: self.tally,
            sock_diag: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            context: stages.context.context(),
            draining: stages.draining.context(),
            dropping: stages.dropping.context(),
            stopwatch: Stopwatch::start(&clock),
            clock: Arc::new(clock),
        };
        (Arc::new(server), stages)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .field("disconnect", &self.disconnect)
            .finish_non_exhaustive()
    }
}

impl From<io::Error> for ServeError {
    fn from(source: io::Error) -> ServeError {
        ServeError { source }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the listener failed for good")
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Server, service_fn};
    use super::*;

    /// A listener that is none.
    struct Broken;

    impl Accept for Broken {
        type Accepted = Accepted;

        async fn accept(&mut self) -> io::Result<Accepted> {
            Err(io::ErrorKind::InvalidInput.into())
        }

        fn accept_waiting(&mut self) -> Option<Accepted> {
            None
        }
    }

    #[tokio::test]
    async fn a_listener_that_can_not_get_better_ends_the_server_with_its_error() {
        let service = service_fn(|_: Request<RequestBody>| async { Response::new(String::new()) });
        let addr = ([127, 0, 0, 1], 0).into();
        let ctx = Context::background();
        let error = Server::builder()
            .serve_on(Broken, addr, service, &ctx)
            .await
            .expect_err("it fails");
        assert_eq!(error.to_string(), "the listener failed for good");
        let source = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(
            source.expect("an error of the system").kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
