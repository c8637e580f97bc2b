//! Introducing each connection of `axum::serve` to the [`Layers`] around its service (feature `axum-serve`).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use axum::serve::IncomingStream;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpListener;
use tower_layer::Layer;
use tower_service::Service;

use super::BoxError;
use super::body::ResponseBody;
use super::layer::{Answer, ContextService, Layers};

/// A make-service for `axum::serve` that introduces each connection. Made by [`Layers::introducing`].
pub struct Introduced<S> {
    layers: Arc<Layers>,
    inner: S,
}

impl Layers {
    /// A make-service for `axum::serve` that introduces each connection, so that its socket is watched.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// use std::sync::Arc;
    /// use axum::{Router, routing::get};
    /// use bequest::Context;
    /// use bequest_http::{Server, server::Peer};
    ///
    /// let app: Router = Router::new().route("/", get(|peer: Peer| async move { format!("{:?}", peer.state()) }));
    /// let layers = Arc::new(Server::builder().layers(&Context::background()));
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    /// let serving = tokio::spawn(axum::serve(listener, layers.introducing(app)).into_future());
    /// # serving.abort();
    /// # });
    /// ```
    pub fn introducing<S>(self: &Arc<Layers>, inner: S) -> Introduced<S> {
        let layers = self.clone();
        Introduced { layers, inner }
    }
}

impl<S> Service<IncomingStream<'_, TcpListener>> for Introduced<S>
where
    S: Clone,
{
    type Response = IntoAxum<ContextService<S>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(
        &mut self,
        stream: IncomingStream<'_, TcpListener>,
    ) -> std::future::Ready<Result<Self::Response, Infallible>> {
        // A connection that can not be introduced is one of those of which nothing is known.
        let introduced = self.layers.connection(stream.io());
        let layer = introduced.unwrap_or_else(|_| self.layers.layer().check_form(true));
        std::future::ready(Ok(IntoAxum(layer.layer(self.inner.clone()))))
    }
}

/// A service whose answers have the body that `axum::serve` wants.
#[derive(Clone, Debug)]
pub struct IntoAxum<S>(S);

impl<S, R, B> Service<Request<R>> for IntoAxum<S>
where
    S: Service<Request<R>, Response = Response<ResponseBody<B>>, Error = Infallible, Future = Answer<B>>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<axum::body::Body>;
    type Error = Infallible;
    type Future = IntoAxumFuture<B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> IntoAxumFuture<B> {
        IntoAxumFuture(self.0.call(request))
    }
}

/// The future of [`IntoAxum`].
#[derive(Debug)]
pub struct IntoAxumFuture<B: Send + 'static>(Answer<B>);

impl<B> Future for IntoAxumFuture<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<axum::body::Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.map(|answer| answer.map(axum::body::Body::new)))
    }
}

impl<S> fmt::Debug for Introduced<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Introduced").field(&self.layers).finish()
    }
}
