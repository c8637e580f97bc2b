//! The layer around the services of a server.

use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, Reason};
use http::{HeaderName, Request, Response};
use http_body::Body;
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

use super::answering::{Answering, Called, Elsewhere};
use super::body::{RequestBody, ResponseBody};
use super::call::Call;
use crate::server::{CallerDeadline, ExchangeHandle};
use crate::wire::DeadlineHeaders;
use crate::wire::grpc::{DEADLINE_EXCEEDED, GrpcStatus, is_grpc};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Puts the calls that a server answers under a [`Context`], which handlers find in their request's extensions.
///
/// It reads `grpc-timeout`, and answers for a handler whose context has ended: DEADLINE_EXCEEDED, CANCELLED or, for a
/// shutdown, UNAVAILABLE, in the head or in trailers after what has been sent. What is no gRPC passes untouched.
///
/// On this crate's [`Server`](crate::Server) the context is the request's, with its limits and its reasons. Elsewhere, on
/// tonic's own server for example, it is derived from [`base`](ServerLayer::base); there a caller that has left and a
/// stream that was reset look the same: [`ClientGone`](Reason::ClientGone).
///
/// ```
/// use bequest::Context;
/// use bequest_http::grpc::ServerLayer;
/// use std::time::Duration;
///
/// let process = Context::background().with_cancel();
/// let layer = ServerLayer::new().base(&process).limit(Duration::from_secs(10));
/// let server = tonic::transport::Server::builder().layer(layer); // .add_service(…)
/// # let _ = server;
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct ServerLayer {
    base: Context,
    limit: Duration,
    margin: Duration,
    grace: Duration,
    /// How many handlers may run on.
    places: Arc<Semaphore>,
}

/// The service made by [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct ServerService<S> {
    inner: S,
    layer: ServerLayer,
}

impl ServerLayer {
    /// How many handlers may run on at once after their callers have left, on another server than this crate's.
    const MOST_LINGER: usize = 1024;

    /// A layer with the defaults that its methods name.
    pub fn new() -> ServerLayer {
        ServerLayer {
            base: Context::background(),
            limit: Duration::from_secs(30),
            margin: Duration::from_millis(1),
            grace: Duration::from_secs(5),
            places: Arc::new(Semaphore::new(Self::MOST_LINGER)),
        }
    }

    /// What calls are derived from on another server than this crate's: cancel it for
    /// [`Shutdown`](Reason::Shutdown) when the server shuts down. Default: a context that never ends.
    pub fn base(mut self, ctx: &Context) -> ServerLayer {
        self.base = ctx.clone();
        self
    }

    /// The longest that a call may take, to the end of its stream, whatever its caller says; [`Duration::MAX`] for none
    /// but the server's own. Default 30 s. Reason `Limit("request")`.
    pub fn limit(mut self, limit: Duration) -> ServerLayer {
        self.limit = limit;
        self
    }

    /// What is taken off a caller's time, so that the answer is on its way before the caller gives up, and before a
    /// server below gives another one; at most half of it is. Default 1 ms.
    pub fn margin(mut self, margin: Duration) -> ServerLayer {
        self.margin = margin;
        self
    }

    /// How long a handler may run on after it was told of its end, on another server than this crate's. Default 5 s; at
    /// most 1024 handlers do at once, and others are dropped.
    pub fn grace(mut self, grace: Duration) -> ServerLayer {
        self.grace = grace;
        self
    }

    /// What the headers leave of the caller's time; `None` if they say nothing that can be read.
    fn budget<B>(&self, request: &Request<B>) -> Option<Duration> {
        let deadlines = DeadlineHeaders {
            grpc: true,
            ..DeadlineHeaders::none()
        };
        let budget = deadlines.read(request.headers()).budget?;
        Some(budget - self.margin.min(budget / 2))
    }

    /// Begins a call that may take this long.
    fn begin<B>(&self, request: &Request<B>, budget: Option<Duration>) -> (Call, Elsewhere) {
        let extensions = request.extensions();
        let elsewhere = match ExchangeHandle::of(extensions) {
            Some(exchange) => Elsewhere::Server(exchange.clone()),
            None => Elsewhere::Task {
                clock: self.base.without_cancel(),
                grace: self.grace,
                places: self.places.clone(),
            },
        };
        let outer = extensions.get::<Context>().unwrap_or(&self.base);
        let scope = match budget {
            Some(budget) if budget <= self.limit => outer
                .with_timeout(budget)
                .named("caller")
                .caused_by(CallerDeadline::of(TIMEOUT)),
            _ => outer
                .with_timeout(self.limit)
                .named("call")
                .reason(Reason::Limit("request")),
        };
        let is_on_our_server = matches!(elsewhere, Elsewhere::Server(_));
        (Call::new(scope, is_on_our_server), elsewhere)
    }
}

impl Default for ServerLayer {
    fn default() -> ServerLayer {
        ServerLayer::new()
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> ServerService<S> {
        ServerService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Answering<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !is_grpc(request.headers()) {
            let request = request.map(|body| RequestBody::new(body, None));
            return Answering::untouched(Box::pin(self.inner.call(request)));
        }
        let budget = self.layer.budget(&request);
        if budget.is_some_and(|budget| budget.is_zero()) {
            return Answering::refused(GrpcStatus {
                code: DEADLINE_EXCEEDED,
                message: "the caller leaves no time".to_owned(),
            });
        }
        let (call, elsewhere) = self.layer.begin(&request, budget);
        request.extensions_mut().insert(call.context().clone());
        let request = request.map(|body| RequestBody::new(body, Some(call.context().clone())));
        Answering::called(Called {
            handler: Box::pin(self.inner.call(request)),
            call,
            elsewhere,
            has_begun: false,
        })
    }
}

impl fmt::Debug for ServerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerLayer")
            .field("limit", &self.limit)
            .field("margin", &self.margin)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
