//! What becomes of a handler when its client leaves: told, then grace, then dropped.
//!
//! A connection drops a handler's future the moment it sees that nobody can be answered, at whatever await it stands. This module
//! lets the handler hear of it first. While the client is there a handler is polled inside its connection, at no cost; only
//! if that poll ends early does it *linger*: it moves to a task of its own for a bounded time. A client of HTTP/1 that has
//! closed its sending side may still wait for the answer, so its handler spends its grace inside the connection.
//!
//! # Invariants
//!
//! 1. A handler that runs on for a client that has left holds a place under both caps, of its connection and of its server,
//!    wherever it is polled; without a place it is dropped at once. A client that opens and resets streams can not pile up
//!    handlers.
//! 2. Each handler that is dropped unfinished is counted and reported once.
//! 3. Lingering ends at the last step of the server's shutdown, whatever time is left.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::Reason;
use http::{Extensions, Request};
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::Exchange;
use super::observe::WhyDropped;
use super::panic;
use super::peer::Peer;

/// What becomes of a handler when its client leaves before the answer.
///
/// In every mode the request's context ends with the reason. The mode says what happens to the handler itself, once it
/// has begun: a handler is not begun for a client that has left already, except where the whole server detaches.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use axum::{Router, routing::post};
/// use bequest::Context;
/// use bequest_http::{Server, axum::Ctx, server::{Disconnect, DisconnectLayer}};
/// use std::{sync::Arc, time::Duration};
/// use tokio::{io::AsyncWriteExt, net::{TcpListener, TcpStream}, sync::{Notify, mpsc}};
///
/// let (tell, mut told) = mpsc::unbounded_channel();
/// let (draft, order, go_on) = (tell.clone(), tell, Arc::new(Notify::new()));
/// let paid = go_on.clone();
/// let app: Router = Router::new()
///     // The server's mode: it is told, and may tidy up.
///     .route("/draft", post(async move |Ctx(ctx): Ctx| {
///         draft.send("draft begun".to_owned()).unwrap();
///         draft.send(format!("draft: {}", ctx.done().await.reason())).unwrap();
///     }))
///     // Finished, whoever waits for it; within a minute.
///     .route("/order", post(async move |Ctx(ctx): Ctx| {
///         order.send("order begun".to_owned()).unwrap();
///         ctx.run(paid.notified()).await.expect("it is not told");
///         order.send("order finished".to_owned()).unwrap();
///     }).layer(DisconnectLayer::new(Disconnect::Detach(Duration::from_secs(60)))));
/// let server = Server::builder().disconnect(Disconnect::Grace(Duration::from_secs(1)));
/// let statistics = server.statistics();
/// let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let address = listener.local_addr().unwrap();
/// tokio::spawn(async move { server.serve(listener, app, &Context::background()).await });
/// let ask = async |path: &str| {
///     let mut client = TcpStream::connect(address).await.unwrap();
///     let question = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
///     client.write_all(question.as_bytes()).await.unwrap();
///     client
/// };
///
/// let client = ask("/draft").await;
/// assert_eq!(told.recv().await.unwrap(), "draft begun");
/// drop(client);
/// assert_eq!(told.recv().await.unwrap(), "draft: client disconnected");
///
/// let client = ask("/order").await;
/// assert_eq!(told.recv().await.unwrap(), "order begun");
/// drop(client);
/// while statistics.snapshot().detached == 0 {
///     tokio::time::sleep(Duration::from_millis(1)).await;
/// }
/// go_on.notify_one();
/// assert_eq!(told.recv().await.unwrap(), "order finished");
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// It is dropped at once, at the await where it stands. For handlers that are safe to drop anywhere.
    Drop,
    /// It is told by its context, and may run on for this long to tidy up; then it is dropped.
    Grace(Duration),
    /// It is not told: its context stays live until this long after the request began, then ends; shortly afterwards it
    /// is dropped. For work that is to be finished whoever waits for it. This limit stands in place of the request
    /// limit; a client that is still there at the request limit gets its 504 while the work goes on.
    Detach(Duration),
}

impl Default for Disconnect {
    /// A grace of 5 s.
    fn default() -> Disconnect {
        Disconnect::Grace(Duration::from_secs(5))
    }
}

/// A tower layer that sets [`Disconnect`] for the routes inside it.
///
/// The innermost one counts. With [`Disconnect::Detach`], what is inside finds the detached context in the request's
/// extensions, and what is outside keeps the one that ends when the client leaves. Requests that did not come through
/// this crate's server pass unchanged.
///
/// ```
/// use bequest_http::server::{Disconnect, DisconnectLayer};
/// use std::time::Duration;
///
/// let jobs = DisconnectLayer::new(Disconnect::Detach(Duration::from_secs(300)));
/// # #[cfg(feature = "axum")]
/// let app: axum::Router = axum::Router::new()
///     .route("/jobs", axum::routing::post(|| async { "finished, whoever waits" }))
///     .layer(jobs);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct DisconnectLayer(Disconnect);

/// The service made by [`DisconnectLayer`].
#[derive(Clone, Copy, Debug)]
pub struct DisconnectService<S> {
    inner: S,
    mode: Disconnect,
}

/// Sits in a request's extensions, so that a layer can reach the exchange. Weak: a request kept for ever keeps nothing.
#[derive(Clone)]
pub(crate) struct ExchangeHandle(pub(super) Weak<Exchange>);

/// A handler on its way, boxed so that it can move from its connection to a task.
pub(crate) type Handler<R> = Pin<Box<dyn Future<Output = R> + Send>>;

impl DisconnectLayer {
    /// A layer that sets this mode.
    pub fn new(mode: Disconnect) -> DisconnectLayer {
        DisconnectLayer(mode)
    }
}

impl<S> Layer<S> for DisconnectLayer {
    type Service = DisconnectService<S>;

    fn layer(&self, inner: S) -> DisconnectService<S> {
        DisconnectService { inner, mode: self.0 }
    }
}

impl<S, B> Service<Request<B>> for DisconnectService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let exchange = ExchangeHandle::of(request.extensions()).and_then(|handle| handle.0.upgrade());
        let outer = request.extensions().get::<bequest::Context>().cloned();
        if let (Some(exchange), Some(outer)) = (exchange, outer) {
            if let Some(detached) = exchange.set_disconnect(self.mode, &outer) {
                request.extensions_mut().insert(detached);
            }
        }
        self.inner.call(request)
    }
}

impl ExchangeHandle {
    /// The exchange of a request, wherever in its extensions it rides.
    pub(crate) fn of(extensions: &Extensions) -> Option<&ExchangeHandle> {
        let peer = extensions.get::<Peer>().map(|peer| &peer.exchange);
        peer.or_else(|| extensions.get::<ExchangeHandle>())
    }
}

#[cfg(feature = "grpc")]
impl ExchangeHandle {
    /// Takes over a handler that was answered for before its grace.
    pub(crate) fn linger<R: Send + 'static>(&self, handler: Handler<R>) {
        if let Some(exchange) = self.0.upgrade() {
            exchange.let_linger();
            linger(handler, exchange, Duration::ZERO);
        }
    }
}

/// Takes over a handler that its connection no longer polls. `waited` is the part of its grace that has passed already.
pub(super) fn linger<R: Send + 'static>(handler: Handler<R>, exchange: Arc<Exchange>, waited: Duration) {
    let mode = exchange.disconnect();
    let refusal = match mode {
        _ if exchange.server().dropping.is_done() => Some(WhyDropped::Shutdown),
        Disconnect::Drop => Some(WhyDropped::NoGrace),
        Disconnect::Grace(grace) if grace <= waited => Some(WhyDropped::GraceOver),
        Disconnect::Grace(_) | Disconnect::Detach(_) => None,
    };
    if let Some(why) = refusal {
        return discard(handler, &exchange, why);
    }
    let Some(place) = exchange.conn().linger(mode) else {
        return discard(handler, &exchange, WhyDropped::TooManyLinger);
    };
    let task = exchange.server().tally.task();
    let runtime = exchange.server().runtime.clone();
    // Not joined: the task guard is what shutdown waits for.
    drop(runtime.spawn(async move {
        run_on(handler, &exchange, mode, waited).await;
        drop(place);
        drop(task);
    }));
}

/// Drops a handler that has not finished, outside every lock, and says so.
pub(super) fn discard<R>(handler: Handler<R>, exchange: &Exchange, why: WhyDropped) {
    if let Err(panic) = panic::catch(|| drop(handler)) {
        exchange.report_panic(&panic);
    }
    exchange.end_detached(Reason::ScopeEnded);
    exchange.report_dropped(why);
}

/// Drops a handler that was never begun, as its client had left already, and counts it.
pub(super) fn forget<R>(handler: Handler<R>, exchange: &Exchange) {
    if let Err(panic) = panic::catch(|| drop(handler)) {
        exchange.report_panic(&panic);
    }
    exchange.server().tally.not_begun.fetch_add(1, Relaxed);
}

/// Polls a lingering handler until it has finished, its time is over, or the server's last step has come.
async fn run_on<R>(mut handler: Handler<R>, exchange: &Exchange, mode: Disconnect, waited: Duration) {
    let server = exchange.server();
    let outcome = {
        let mut time_over = pin!(async {
            match mode {
                Disconnect::Drop => {}
                Disconnect::Grace(grace) => server.pause(grace.saturating_sub(waited)).await,
                Disconnect::Detach(_) => exchange.detached_end().await,
            }
        });
        let mut last_step = pin!(server.dropping.done());
        std::future::poll_fn(|cx| {
            match panic::catch(|| handler.as_mut().poll(cx)) {
                Ok(Poll::Ready(_unwanted)) => return Poll::Ready(Ok(())),
                Ok(Poll::Pending) => {}
                Err(panic) => {
                    exchange.report_panic(&panic);
                    return Poll::Ready(Ok(()));
                }
            }
            if last_step.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(WhyDropped::Shutdown));
            }
            time_over.as_mut().poll(cx).map(|()| Err(WhyDropped::GraceOver))
        })
        .await
    };
    match outcome {
        Ok(()) => exchange.end_detached(Reason::ScopeEnded),
        Err(why) => discard(handler, exchange, why),
    }
}

impl fmt::Debug for ExchangeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeHandle")
    }
}
