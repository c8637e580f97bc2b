//! Sending a request again, within what its caller has left.
//!
//! Here is decided whether a second try is allowed and worth it; a try itself is an exchange like any other.
//!
//! # Invariants
//!
//! 1. What a peer may have seen is sent again only if it may be by its method, or if the caller says so ([`Replayable`]).
//! 2. No try begins, and no pause, that the caller's context does not leave time for.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, Reason};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tower_layer::Layer;
use tower_service::Service;

use super::error::{Error, Step};

/// How often, how soon and for how long a request is tried. A parameter struct: name what differs and take the rest from
/// [`Retry::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is tried at most, the first time included. Default 3.
    pub tries: u32,
    /// How long one try may take, to the end of its answer's body, as a deadline below the caller's. Default: as long as the
    /// caller has. Reason `Limit("try")`.
    pub each: Duration,
    /// The pause before the second try. Each further one is twice as long, and of each a random part between half and all
    /// is waited, so that callers who failed together do not come back together. Default 20 ms.
    pub pause: Duration,
    /// The longest pause. A `Retry-After` in seconds may ask for more, and gets it if the caller has as much left.
    /// Default 1 s.
    pub longest_pause: Duration,
}

/// Says of a request, in its extensions, that its peer may be given it twice whatever its method: it carries an idempotency
/// key, or it only asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayable;

/// Tries a request again when that may help: a tower layer around a [`Client`](super::Client) or a
/// [`ContextService`](super::ContextService).
///
/// Tried again is
///
/// - an exchange that failed before its peer could see anything of it ([`Step::Dialling`] and before), whatever it asks;
/// - an exchange that failed or took longer than [`Retry::each`], and one answered with 502, 503 or 504, if its method is
///   idempotent (`GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT`, `DELETE`) or it is [`Replayable`].
///
/// It is not tried again once its context has ended, or when what that has left does not reach beyond the pause: a call that
/// used up its caller's whole budget was the last. Answers are handed on when they cannot be bettered, whatever their
/// status; what fails says why it was given up ([`RetryError::why`]). The body of an answer is not tried again.
///
/// The request's body is cloned for each try, and so has to be all there.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use bequest::Context;
/// use bequest_http::client::{Client, Retry, RetryLayer};
/// use bequest_http::{Server, server::service_fn};
/// use http::{Request, Response, StatusCode};
/// use std::time::Duration;
/// use tower_layer::Layer;
///
/// static ASKED: AtomicU32 = AtomicU32::new(0);
/// let flaky = service_fn(|_: Request<_>| async {
///     let mut answer = Response::new(String::from("here"));
///     if ASKED.fetch_add(1, Relaxed) == 0 {
///         *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
///     }
///     answer
/// });
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let url = format!("http://{}/", listener.local_addr().unwrap());
/// tokio::spawn(async move { Server::builder().serve(listener, flaky, &Context::background()).await });
///
/// let client = RetryLayer::new(Retry::default()).layer(Client::builder().build());
/// let ctx = Context::background().with_timeout(Duration::from_secs(5));
/// let request = Request::get(url).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
/// let answer = client.send(&ctx, request).await.unwrap();
/// assert_eq!((answer.status(), ASKED.load(Relaxed)), (StatusCode::OK, 2));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct RetryLayer(Arc<Retry>);

/// The service made by [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    client: S,
    retry: Arc<Retry>,
}

/// A request that failed at its last try.
#[derive(Debug)]
pub struct RetryError {
    last: Error,
    tries: u32,
    why: GaveUp,
}

/// Why a request was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// It has been tried as often as it may be.
    Tries,
    /// The caller's context was cancelled.
    Ended,
    /// The caller's time is used up, or leaves none for another try.
    Budget,
    /// The peer may have seen it, and it must not be seen twice.
    NotReplayable,
}

impl RetryLayer {
    /// A layer that tries like this.
    pub fn new(retry: Retry) -> RetryLayer {
        RetryLayer(Arc::new(retry))
    }
}

impl<S> RetryService<S> {
    /// Sends a request for `ctx`, and again where that may help.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the present try up, as the end of `ctx` does.
    ///
    /// # Errors
    ///
    /// If the last try fails. The error has that try's as its [`last`](RetryError::last), and says why there was no other.
    pub async fn send<B, R>(&self, ctx: &Context, request: Request<B>) -> Result<Response<R>, RetryError>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Error> + Clone,
        B: Clone,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let pause = match self.once(ctx, request.clone()).await {
                Ok(answer) if !is_transient(answer.status()) => return Ok(answer),
                // The answer goes, and its connection with it or back, before the pause.
                Ok(answer) => match self.again(ctx, &request, tries, None, asked_pause(answer.headers())) {
                    Ok(pause) => pause,
                    Err(_) => return Ok(answer),
                },
                Err(last) => match self.again(ctx, &request, tries, Some(&last), Duration::ZERO) {
                    Ok(pause) => pause,
                    Err(why) => return Err(RetryError { last, tries, why }),
                },
            };
            // An end of the context is what the next try says.
            let _ = ctx.sleep(pause).await;
        }
    }

    async fn once<B, R>(&self, ctx: &Context, mut request: Request<B>) -> Result<Response<R>, Error>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Error> + Clone,
    {
        let mut client = self.client.clone();
        let one = ctx
            .with_timeout(self.retry.each)
            .named("try")
            .reason(Reason::Limit("try"));
        // The body of the answer goes on after this, and ends with the caller or at the limit.
        request.extensions_mut().insert(one.into_context());
        poll_fn(|cx| client.poll_ready(cx)).await?;
        client.call(request).await
    }

    /// The pause before the next try, or why there is none. `failed`: how the last one failed, if it was not answered.
    fn again<B>(
        &self,
        ctx: &Context,
        request: &Request<B>,
        tries: u32,
        failed: Option<&Error>,
        asked: Duration,
    ) -> Result<Duration, GaveUp> {
        if ctx.err().is_some_and(|end| !end.is_timeout()) {
            return Err(GaveUp::Ended);
        }
        if ctx.is_done() || failed.is_some_and(|error| error.used_up_budget(ctx)) {
            return Err(GaveUp::Budget);
        }
        let was_unseen = failed.is_some_and(|error| error.step() <= Step::Dialling);
        if !was_unseen && !is_replayable(request) {
            return Err(GaveUp::NotReplayable);
        }
        if tries >= self.retry.tries {
            return Err(GaveUp::Tries);
        }
        let pause = self.pause(tries).max(asked);
        match ctx.remaining() {
            Some(left) if left <= pause => Err(GaveUp::Budget),
            _ => Ok(pause),
        }
    }

    /// The pause after this many tries.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = 2_u32.checked_pow(tries - 1).unwrap_or(u32::MAX);
        let whole = self
            .retry
            .pause
            .saturating_mul(doubled)
            .min(self.retry.longest_pause);
        whole / 2 + (whole / 2).mul_f64(random())
    }
}

/// From 0 to 1, anew for each call.
fn random() -> f64 {
    // Keyed at random, for each call with other keys.
    let number = RandomState::new().build_hasher().finish();
    number as f64 / u64::MAX as f64
}

fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Whether a peer may be given it twice (RFC 9110 §9.2.2).
fn is_replayable<B>(request: &Request<B>) -> bool {
    let is_idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(request.method());
    is_idempotent || request.extensions().get::<Replayable>().is_some()
}

/// The pause that an answer asks for, in seconds; a date is not followed.
fn asked_pause(headers: &HeaderMap) -> Duration {
    let asked = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let seconds = asked.and_then(|text| text.parse::<u32>().ok());
    Duration::from_secs(seconds.unwrap_or(0).into())
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, client: S) -> RetryService<S> {
        RetryService {
            client,
            retry: self.0.clone(),
        }
    }
}

/// As [`send`](RetryService::send), for the [`Context`] in the request's extensions; without one, for none that ends.
impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = RetryError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, RetryError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), RetryError>> {
        // Each try waits for the client under the request's context.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let ctx = request.extensions().get::<Context>().cloned();
            let ctx = ctx.unwrap_or_else(Context::background);
            service.send(&ctx, request).await
        })
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            tries: 3,
            each: Duration::MAX,
            pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(1),
        }
    }
}

impl RetryError {
    /// The error of the last try.
    pub fn last(&self) -> &Error {
        &self.last
    }

    /// How often it was tried.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Why it was not tried again.
    pub fn why(&self) -> GaveUp {
        self.why
    }
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "given up at try {}, as {}: {}",
            self.tries, self.why, self.last
        )
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GaveUp::Tries => "that was the last one",
            GaveUp::Ended => "the caller's context has ended",
            GaveUp::Budget => "the caller has no time left",
            GaveUp::NotReplayable => "the peer may have seen it",
        })
    }
}

impl std::error::Error for RetryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.last)
    }
}
