//! The same around a client of another make: any tower service from a request to a response.

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

use super::BoxError;
use super::body::ResponseBody;
use super::call::Call;
use super::error::{Error, Step};
use crate::wire::Outbound;

/// Puts each request of a tower client under the [`Context`] in its extensions; without one, under none that ends.
///
/// What a context does is what it does to a [`Client`](super::Client)'s exchanges, as far as the wrapped client reacts to
/// being dropped; hyper's do. Of the steps it knows [`Waiting`](Step::Waiting), for the client to be ready,
/// [`Sending`](Step::Sending), up to the head of the answer, and [`Reading`](Step::Reading).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use bequest::{Context, Kind};
/// use bequest_http::client::ContextLayer;
/// use bequest_http::server::service_fn;
/// use std::time::Duration;
/// use tower_layer::Layer;
/// use tower_service::Service;
///
/// # #[derive(Clone)] struct Silent;
/// # impl Service<http::Request<()>> for Silent {
/// #     type Response = http::Response<String>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Pending<Result<http::Response<String>, Self::Error>>;
/// #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
/// #         std::task::Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, _: http::Request<()>) -> Self::Future { std::future::pending() }
/// # }
/// let mut client = ContextLayer::default().layer(Silent);
/// let ctx = Context::background().with_timeout(Duration::from_millis(20));
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(ctx.context());
/// let error = client.call(request).await.unwrap_err();
/// assert_eq!(error.canceled().unwrap(), &Kind::DeadlineExceeded);
/// # });
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct ContextLayer {
    outbound: Arc<Outbound>,
    exchange: Duration,
}

/// The service made by [`ContextLayer`].
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    client: S,
    layer: ContextLayer,
}

impl ContextLayer {
    /// A layer that sends this along. Exchanges have no limit of their own.
    pub fn new(outbound: Outbound) -> ContextLayer {
        ContextLayer {
            outbound: Arc::new(outbound),
            exchange: Duration::MAX,
        }
    }

    /// Sets how long an exchange may take, to the end of its answer's body.
    pub fn exchange(mut self, limit: Duration) -> ContextLayer {
        self.exchange = limit;
        self
    }
}

impl Default for ContextLayer {
    fn default() -> ContextLayer {
        ContextLayer::new(Outbound::default())
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, client: S) -> ContextService<S> {
        ContextService {
            client,
            layer: self.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        // The client is waited for under the request's context.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut client = self.client.clone();
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let ctx = head.extensions.remove::<Context>();
            let ctx = ctx.unwrap_or_else(Context::background);
            let call = Call::begin(&ctx, layer.exchange, &layer.outbound, None, &mut head)?;
            call.run(|| Step::Waiting, poll_fn(|cx| client.poll_ready(cx)))
                .await?;
            let exchange = client.call(Request::from_parts(head, body));
            let response = call.run(|| Step::Sending, exchange).await?;
            Ok(call.answer(response, ()))
        })
    }
}
