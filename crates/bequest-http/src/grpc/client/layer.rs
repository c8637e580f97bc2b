//! The layer around a channel.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::Context;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{CallBody, Own, ended_here, status_of};
use super::{BoxError, Here, SentBody};
use crate::client::{Call, Error, Step};
use crate::wire::Outbound;
use crate::wire::grpc::{DEADLINE_EXCEEDED, GrpcStatus};

/// Puts the calls made through a channel under a [`Context`]: the one given to [`under`](ClientService::under), or else
/// the one in the request's extensions, or else none that ends.
///
/// The time that is left goes out as `grpc-timeout`, less the margin. When the context ends, the call ends, whatever it
/// waits for: the stream is reset, and the status is DEADLINE_EXCEEDED or CANCELLED, made here. [`Ended`](crate::grpc::Ended)
/// tells it from the same status sent by the peer.
///
/// A channel of tonic's counts what comes late for calls that were given up as errors of the peer's, and closes its connection
/// after 1024 of them, with everybody's calls on it. Where calls are cancelled often, tell it not to:
/// `Endpoint::http2_max_local_error_reset_streams(None)`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use bequest::Context;
/// use bequest_http::grpc::{ClientLayer, Ended};
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// let channel = tonic::transport::Channel::from_static("http://127.0.0.1:1").connect_lazy();
/// let calls = ClientLayer::new(tonic::body::Body::new).layer(channel);
///
/// let ctx = Context::background().with_cancel();
/// ctx.cancel();
/// // As a client made by tonic's generator does: SomeClient::new(calls.under(&ctx)).some_call(…).await
/// let mut calls = calls.under(&ctx);
/// let answer = calls.call(http::Request::new(tonic::body::Body::empty())).await.unwrap();
/// assert_eq!(answer.headers()["grpc-status"], "1", "CANCELLED, and nothing was sent");
/// assert!(!Ended::of(&ctx, 1, answer.headers()).unwrap().is_remote());
/// # });
/// ```
#[must_use = "a layer does nothing until it is put around a service"]
pub struct ClientLayer<B> {
    into_body: fn(SentBody<B>) -> B,
    outbound: Arc<Outbound>,
    limit: Duration,
}

/// The service made by [`ClientLayer`].
pub struct ClientService<S, B> {
    client: S,
    layer: ClientLayer<B>,
    ctx: Option<Context>,
}

impl<B> ClientLayer<B> {
    /// A layer that needs to be told how a body becomes one of the client's own type: `tonic::body::Body::new` for tonic.
    pub fn new(into_body: fn(SentBody<B>) -> B) -> ClientLayer<B> {
        ClientLayer {
            into_body,
            outbound: Arc::default(),
            limit: Duration::MAX,
        }
    }

    /// Sets what goes out with each call; [`Outbound::default`] otherwise: the remaining time, and nothing else.
    pub fn outbound(mut self, outbound: Outbound) -> ClientLayer<B> {
        self.outbound = Arc::new(outbound);
        self
    }

    /// Sets how long a call may take, to the end of its stream. Default: as long as its context.
    pub fn limit(mut self, limit: Duration) -> ClientLayer<B> {
        self.limit = limit;
        self
    }
}

impl<S: Clone, B> ClientService<S, B> {
    /// The same for calls that are made for this context.
    #[must_use]
    pub fn under(&self, ctx: &Context) -> ClientService<S, B> {
        ClientService {
            ctx: Some(ctx.clone()),
            ..self.clone()
        }
    }
}

impl<S, B> Layer<S> for ClientLayer<B> {
    type Service = ClientService<S, B>;

    fn layer(&self, client: S) -> ClientService<S, B> {
        ClientService {
            client,
            layer: self.clone(),
            ctx: None,
        }
    }
}

impl<S, B, R> Service<Request<B>> for ClientService<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<CallBody<R>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        // The client is waited for under the call's context.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let given = head.extensions.remove::<Context>();
        let ctx = self.ctx.clone().or(given).unwrap_or_else(Context::background);
        let (layer, client) = (self.layer.clone(), self.client.clone());
        Box::pin(async move {
            let call = match Call::begin(&ctx, layer.limit, &layer.outbound, None, &mut head) {
                Ok(call) => call,
                Err(error) => return without_messages(error),
            };
            let own = Own::new(call.context(), layer.outbound.margin);
            let body = (layer.into_body)(SentBody::new(body, call.context()));
            match exchange(client, &call, Request::from_parts(head, body)).await {
                Ok(answer) => Ok(receive(answer, call, own)),
                Err(error) if error.canceled().is_none() && own.is_over() => Ok(late(&error)),
                Err(error) => without_messages(error),
            }
        })
    }
}

async fn exchange<S, B, R>(mut client: S, call: &Call, request: Request<B>) -> Result<Response<R>, Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    call.run(|| Step::Waiting, poll_fn(|cx| client.poll_ready(cx)))
        .await?;
    call.run(|| Step::Sending, client.call(request)).await
}

/// The peer's answer.
fn receive<R>(answer: Response<R>, call: Call, own: Own) -> Response<CallBody<R>>
where
    R: Body + Send + 'static,
{
    let mut answer = call
        .answer(answer, ())
        .map(|body| CallBody::new(body, own.clone()));
    own.receive(answer.headers_mut());
    answer
}

/// The channel has given up by itself when our time was over: its own timer is set by the same header.
fn late<R>(error: &Error) -> Response<CallBody<R>> {
    let status = GrpcStatus {
        code: DEADLINE_EXCEEDED,
        message: format!("context deadline exceeded: {error}"),
    };
    all_in_head(&status, Here::Context)
}

/// The answer to an end of our own, which says all in its head; a failure stays one.
fn without_messages<R>(error: Error) -> Result<Response<CallBody<R>>, Error> {
    match status_of(&error) {
        Some((status, here)) => Ok(all_in_head(&status, here)),
        None => Err(error),
    }
}

fn all_in_head<R>(status: &GrpcStatus, here: Here) -> Response<CallBody<R>> {
    let mut answer = Response::new(CallBody::none());
    *answer.headers_mut() = status.head();
    ended_here(status, here).write(answer.headers_mut());
    answer
}

impl<B> Clone for ClientLayer<B> {
    fn clone(&self) -> ClientLayer<B> {
        ClientLayer {
            into_body: self.into_body,
            outbound: self.outbound.clone(),
            limit: self.limit,
        }
    }
}

impl<S: Clone, B> Clone for ClientService<S, B> {
    fn clone(&self) -> ClientService<S, B> {
        ClientService {
            client: self.client.clone(),
            layer: self.layer.clone(),
            ctx: self.ctx.clone(),
        }
    }
}

impl<B> fmt::Debug for ClientLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLayer")
            .field("outbound", &self.outbound)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<S, B> fmt::Debug for ClientService<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientService")
            .field("layer", &self.layer)
            .field("ctx", &self.ctx)
            .finish_non_exhaustive()
    }
}
