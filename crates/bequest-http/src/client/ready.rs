//! The client that is ready to use: a pool of connections, places for each host, and a context for each exchange.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;

use super::BoxError;
use super::body::ResponseBody;
use super::builder::Builder;
use super::call::Call;
use super::dial::{Connector, Dialler};
use super::error::{Error, Step};
use super::hosts::Hosts;
use super::observe::{Event, Exchange, Observed, Observer};
use super::sending::{AnyBody, Sent, sending};
use crate::wire::Outbound;

/// A client of HTTP, with its pool of connections. Cloning it shares the pool.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use bequest::Context;
/// use bequest_http::{Server, client::Client, server::service_fn};
/// use http_body_util::BodyExt;
/// use std::time::Duration;
///
/// let budget = service_fn(|request: http::Request<_>| async move {
///     let ctx: &Context = request.extensions().get().unwrap();
///     http::Response::new(format!("{} ms", ctx.remaining().unwrap().as_millis()))
/// });
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let url = format!("http://{}/", listener.local_addr().unwrap());
/// tokio::spawn(async move { Server::builder().serve(listener, budget, &Context::background()).await });
///
/// let client = Client::builder().build();
/// let ctx = Context::background().with_timeout(Duration::from_secs(5));
/// let request = http::Request::get(url).body(String::new()).unwrap();
/// let response = client.send(&ctx, request).await.unwrap();
/// let left = response.into_body().collect().await.unwrap().to_bytes();
/// let left: u64 = std::str::from_utf8(&left).unwrap().strip_suffix(" ms").unwrap().parse().unwrap();
/// assert!(left < 5000, "the deadline travelled, less what is kept for the answer");
/// # });
/// ```
#[derive(Clone)]
pub struct Client<C: Connector = HttpConnector> {
    pub(super) pool: legacy::Client<Dialler<C>, AnyBody>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) is_http2: bool,
    pub(super) exchange: Duration,
    pub(super) outbound: Arc<Outbound>,
    pub(super) observer: Option<Observer>,
    pub(super) observed: Observed,
}

impl Client {
    /// A client with default settings, to be changed and then [built](Builder::build).
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<C: Connector> Client<C> {
    /// Sends a request for `ctx` and answers its response. The body of the response belongs to the exchange: it fails when
    /// `ctx` ends, so `ctx` is to live as long as it is read.
    ///
    /// Redirects are answers and are not followed. Nothing that a peer may have seen is sent twice.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the body, gives the exchange up as the end of `ctx` does: on HTTP/1 the connection is
    /// closed, on HTTP/2 the stream is reset; a dial goes on, and its connection is kept for the next request.
    ///
    /// # Errors
    ///
    /// If `ctx` ends first, or leaves less time than [`Outbound::margin`](crate::wire::Outbound::margin) before anything is
    /// sent; if the exchange takes longer than [`Limits::exchange`](super::Limits::exchange); and if it fails. The error
    /// says which, and in which step.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer enabled.
    pub async fn send<B>(&self, ctx: &Context, request: Request<B>) -> Result<Response<ResponseBody>, Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let observer = self.observer.as_ref();
        let call = Call::begin(ctx, self.exchange, &self.outbound, observer, &mut head)?;
        let host = self.hosts.host(&head.uri);
        let place = call.run(|| Step::Waiting, host.places.acquire_owned()).await?;
        if let Some(exchange) = call.observed() {
            self.observed.note();
            exchange.connecting();
        }
        let connecting = match self.is_http2 {
            true => Some(
                call.run(|| Step::Dialling, host.connecting.acquire_owned())
                    .await?,
            ),
            false => None,
        };
        let (body, sent) = sending(body, &call);
        let mut request = Request::from_parts(head, body);
        let connection = capture_connection(&mut request);
        let told = call.observed().map(|exchange| Told {
            exchange: exchange.clone(),
            is_http2: self.is_http2,
        });
        told.as_ref().inspect(|told| told.of_interim(&mut request));
        let exchange = connected(self.pool.request(request), connection.clone(), connecting, told);
        let response = call.run(|| step(&connection, &sent), exchange).await?;
        Ok(call.answer(response, place))
    }
}

/// As [`send`](Client::send), for the [`Context`] in the request's extensions; without one, for none that ends.
impl<C, B> Service<Request<B>> for Client<C>
where
    C: Connector,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        // A turn is waited for under the request's context.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move {
            let ctx = request.extensions_mut().remove::<Context>();
            let ctx = ctx.unwrap_or_else(Context::background);
            client.send(&ctx, request).await
        })
    }
}

/// An exchange whose observers are told of its connection.
struct Told {
    exchange: Arc<Exchange>,
    is_http2: bool,
}

impl Told {
    fn of_interim<B>(&self, request: &mut Request<B>) {
        let exchange = self.exchange.clone();
        hyper::ext::on_informational(request, move |answer| {
            exchange.tell_of_connection(Event::Interim(answer.status()));
        });
    }

    fn of_connection(&self, connection: &CaptureConnection) {
        // Not told under the engine's lock.
        let info = {
            let connected = connection.connection_metadata();
            let connected = connected.as_ref();
            connected.map(|connected| self.exchange.conn_info(connected, self.is_http2))
        };
        info.inspect(|info| self.exchange.connected(info));
    }
}

/// Does an exchange, and lets the next one look for a connection as soon as this one has its own.
///
/// hyper's pool would make all that share a connection wait for the one that dials it, and fail them if that one is given
/// up. Here they queue, and the next takes the dial over.
async fn connected<F: Future>(
    exchange: F,
    mut connection: CaptureConnection,
    connecting: Option<OwnedSemaphorePermit>,
    told: Option<Told>,
) -> F::Output {
    let mut exchange = pin!(exchange);
    if connecting.is_none() && told.is_none() {
        return exchange.await;
    }
    let has_connection = async { drop(connection.wait_for_connection_metadata().await) };
    let done = tokio::select! {
        biased;
        done = exchange.as_mut() => Some(done),
        () = has_connection => None,
    };
    drop(connecting);
    told.inspect(|told| told.of_connection(&connection));
    match done {
        Some(done) => done,
        None => exchange.await,
    }
}

/// How far an exchange without an answer has come.
fn step(connection: &CaptureConnection, sent: &Sent) -> Step {
    if connection.connection_metadata().is_none() {
        Step::Dialling
    } else if sent.is_all() {
        Step::Answering
    } else {
        Step::Sending
    }
}
