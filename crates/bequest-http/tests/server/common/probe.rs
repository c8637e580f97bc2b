//! A service whose handlers are in the hands of the test.

use std::sync::{Arc, Weak};

use bequest::Context;
use bequest_http::server::{BoxError, ConnInfo, Incoming, Peer, RequestBody, ServiceFn, service_fn};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{mpsc, oneshot};

use super::{guard, until};

pub(crate) type TestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A handler that has begun. It waits for `answer`, whatever its context says.
pub(crate) struct Arrival {
    pub(crate) ctx: Context,
    pub(crate) conn: ConnInfo,
    pub(crate) peer: Peer,
    pub(crate) path: String,
    pub(crate) method: Method,
    answer: Option<oneshot::Sender<Response<TestBody>>>,
    alive: Weak<()>,
}

pub(crate) struct Arrivals(mpsc::UnboundedReceiver<Arrival>);

/// A service whose requests arrive at the test.
pub(crate) fn probe() -> (impl Probe, Arrivals) {
    probe_of()
}

/// One whose requests come with bodies of hyper's, or whosever accept loop it is.
pub(crate) fn probe_of<R: Send + 'static>() -> (impl Probe<R>, Arrivals) {
    let (tell, told) = mpsc::unbounded_channel();
    (prober(tell), Arrivals(told))
}

/// What a probe is, for signatures.
pub(crate) trait Probe<R = Incoming>:
    tower_service::Service<
        Request<RequestBody<R>>,
        Response = Response<TestBody>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T, R> Probe<R> for T where
    T: tower_service::Service<
            Request<RequestBody<R>>,
            Response = Response<TestBody>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

fn prober<R: Send + 'static>(tell: mpsc::UnboundedSender<Arrival>) -> impl Probe<R> {
    let function = move |request: Request<RequestBody<R>>| {
        let tell = tell.clone();
        let handler: std::pin::Pin<Box<dyn Future<Output = Response<TestBody>> + Send>> =
            Box::pin(async move {
                let alive = Arc::new(());
                let (answer, answered) = oneshot::channel();
                let peer = request.extensions().get::<Peer>().expect("a peer").clone();
                let arrival = Arrival {
                    ctx: request.extensions().get::<Context>().expect("a context").clone(),
                    conn: peer.conn().clone(),
                    peer,
                    path: request.uri().path().to_owned(),
                    method: request.method().clone(),
                    answer: Some(answer),
                    alive: Arc::downgrade(&alive),
                };
                // A test that has ended hears nothing any more.
                let _ = tell.send(arrival);
                match answered.await {
                    Ok(response) => response,
                    Err(_) => std::future::pending().await,
                }
            });
        handler
    };
    let service: ServiceFn<_> = service_fn(function);
    service
}

/// A response with this body.
pub(crate) fn full(text: impl Into<Bytes>) -> Response<TestBody> {
    let body = http_body_util::Full::new(text.into()).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

impl Arrivals {
    /// The next handler that begins.
    pub(crate) async fn next(&mut self) -> Arrival {
        guard("a request to arrive", self.0.recv())
            .await
            .expect("the service is alive")
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        while arrivals.len() < count {
            arrivals.push(self.next().await);
        }
        arrivals
    }

    /// Whether no further handler has begun.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl Arrival {
    pub(crate) fn answer(&mut self, response: Response<TestBody>) {
        let answer = self.answer.take().expect("answered once");
        assert!(answer.send(response).is_ok(), "the handler is alive");
    }

    /// Whether the handler's future still exists.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }

    pub(crate) async fn dropped(&self) {
        until("the handler to be dropped", || !self.is_alive()).await;
    }

    /// Waits for the end of the context.
    pub(crate) async fn end(&self) -> bequest::Canceled {
        guard("the context to end", self.ctx.done()).await
    }
}
