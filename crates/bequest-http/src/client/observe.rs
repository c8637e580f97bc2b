//! Telling a program what becomes of its exchanges: what each waits for, on which connection it goes out, how it ends.
//!
//! An observer is given to a client, or travels in a context, as Go's `httptrace` does. Nobody observed costs a look.
//!
//! # Invariants
//!
//! 1. Of each observed exchange [`Event::Waiting`] is told first, and one of the three that end it last, once.
//! 2. [`Event::Connected`] is told before whatever comes of the connection, though other threads may drive that.
//! 3. No lock is held while an observer is told.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bequest::{Context, Key};
use http::request::Parts;
use http::{Extensions, Method, StatusCode, Uri};
use hyper_util::client::legacy::connect::{Connected, HttpInfo};

use super::error::Error;
use crate::wire::{Trace, TraceParent};

static OBSERVERS: Key<Vec<Observer>> = Key::new("client observers");

/// Is told what becomes of exchanges.
///
/// It runs on the thread where the thing happens, which may be one that drives connections: it is to be short, like a waker,
/// and must not block. A panic in it is caught, and stops no exchange.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use bequest::Context;
/// use bequest_http::client::{Client, Event, Observer};
/// use bequest_http::{Server, server::service_fn};
/// use http_body_util::{BodyExt, Empty};
/// use std::sync::{Arc, Mutex};
///
/// let hello = service_fn(|_: http::Request<_>| async { http::Response::new("hello".to_owned()) });
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let url = format!("http://{}/", listener.local_addr().unwrap());
/// tokio::spawn(async move { Server::builder().serve(listener, hello, &Context::background()).await });
///
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let log = seen.clone();
/// let observer = Observer::new(move |_exchange, event| {
///     log.lock().unwrap().push(match event {
///         Event::Connected(conn) => format!("reused: {}", conn.is_reused()),
///         other => other.to_string(),
///     });
/// });
///
/// // As a value of the context, for the exchanges made for it; `Builder::observer` is for all of a client.
/// let ctx = observer.carried_by(&Context::background());
/// let client = Client::builder().build();
/// for _ in 0..2 {
///     let request = http::Request::get(&url).body(Empty::<bytes::Bytes>::new()).unwrap();
///     let answer = client.send(&ctx, request).await.unwrap();
///     answer.into_body().collect().await.unwrap();
/// }
/// let seen = seen.lock().unwrap();
/// // The second may come before the first connection is back in its place.
/// assert_eq!(seen.iter().find(|seen| seen.starts_with("reused")).unwrap(), "reused: false");
/// assert_eq!((seen[0].as_str(), seen.last().unwrap().as_str()), ("waiting for its turn", "complete"));
/// # });
/// ```
#[derive(Clone)]
pub struct Observer(Arc<Tell>);

type Tell = dyn Fn(&Exchange, &Event<'_>) + Send + Sync;

/// An exchange that is observed.
pub struct Exchange {
    id: u64,
    context: Context,
    method: Method,
    uri: Uri,
    trace: Option<TraceParent>,
    observers: Vec<Observer>,
    state: Mutex<State>,
}

/// How far an exchange has been told.
#[derive(Debug, Default)]
struct State {
    /// When it began to look for a connection.
    since: Option<Instant>,
    is_connected: bool,
    is_over: bool,
    /// What was told of the connection before it was told that there is one (invariant 2).
    early: Vec<Event<'static>>,
}

/// What has become of an exchange.
///
/// Around another client ([`ContextLayer`](super::ContextLayer), gRPC's layer) nothing is seen of its connections: of those
/// exchanges their beginning is told, their head and their end.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It has begun, and waits for its turn.
    Waiting,
    /// Its turn has come. It waits for a connection: one that is free, or a new one.
    Connecting,
    /// It has a connection.
    Connected(&'a ConnInfo),
    /// The request is handed over to the connection, to the end of its body. What is told of a body that the engine gives up
    /// before its end is how the exchange ends.
    Sent,
    /// The peer has sent an interim answer: 100, 103. Not told on HTTP/2, whose engine keeps them to itself.
    Interim(StatusCode),
    /// The head of the answer is here.
    Answered(StatusCode),
    /// The body of the answer was read to its end. Nothing is told after this, nor after the next two.
    Complete,
    /// Nobody wanted the rest: the future, or the body, was dropped.
    Dropped,
    /// It failed, or its context ended: the error says which, and in which step.
    Failed(&'a Error),
}

/// The connection of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    is_reused: bool,
    is_http2: bool,
    peer_addr: Option<SocketAddr>,
    local_addr: Option<SocketAddr>,
    dial: Option<Duration>,
}

/// What is known of a connection since it was made.
#[derive(Debug)]
pub(super) struct Line {
    made: Instant,
    dial: Option<Duration>,
    uses: AtomicU64,
}

/// Whether anybody has observed an exchange of a client: connections are then made with a [`Line`].
#[derive(Clone, Debug, Default)]
pub(super) struct Observed(Arc<AtomicBool>);

/// Tells of an exchange how it ends; its drop, that nobody wanted the rest.
pub(crate) struct Watch {
    exchange: Arc<Exchange>,
}

impl Observer {
    /// An observer that is told by calling this.
    pub fn new(tell: impl Fn(&Exchange, &Event<'_>) + Send + Sync + 'static) -> Observer {
        Observer(Arc::new(tell))
    }

    /// `ctx` with this observer: it is told of the exchanges made for it and for what is derived from it. One that `ctx`
    /// carries already is told too, after it, and last the client's own.
    #[must_use]
    pub fn carried_by(self, ctx: &Context) -> Context {
        let outer = ctx.value(&OBSERVERS).into_iter().flatten().cloned();
        let all = [self].into_iter().chain(outer).collect();
        ctx.with_value(&OBSERVERS, all)
    }
}

impl Exchange {
    /// Its number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its context, with its deadline and its values.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The request's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's target.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The span in which the request goes out, if it has one.
    pub fn trace(&self) -> Option<TraceParent> {
        self.trace
    }

    fn tell(&self, event: Event<'_>) {
        for observer in &self.observers {
            // Its message has been written by the panic's hook.
            let _ = catch_unwind(AssertUnwindSafe(|| (observer.0)(self, &event)));
        }
    }

    /// Tells what whoever drives the connection has seen, or keeps it until the connection is told of.
    pub(super) fn tell_of_connection(&self, event: Event<'static>) {
        {
            let mut state = self.state();
            if !state.is_connected && !state.is_over {
                state.early.push(event);
            }
            if !state.is_connected || state.is_over {
                return;
            }
        }
        self.tell(event);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connecting(&self) {
        self.state().since = Some(Instant::now());
        self.tell(Event::Connecting);
    }

    /// What is to be told of its connection, by what the engine knows.
    pub(super) fn conn_info(&self, connected: &Connected, is_http2: bool) -> ConnInfo {
        ConnInfo::of(connected, is_http2, self.state().since)
    }

    /// Tells of the connection, and of what came of it meanwhile. Called once.
    pub(super) fn connected(&self, info: &ConnInfo) {
        self.tell(Event::Connected(info));
        loop {
            let early = {
                let mut state = self.state();
                // Only now may others tell for themselves, or they would come before what was kept.
                state.is_connected = state.early.is_empty();
                if state.is_connected {
                    return;
                }
                std::mem::take(&mut state.early)
            };
            early.into_iter().for_each(|event| self.tell(event));
        }
    }
}

impl Watch {
    /// Begins to tell of an exchange for `ctx`, if anybody observes it.
    pub(super) fn begin(ctx: &Context, client: Option<&Observer>, head: &Parts) -> Option<Watch> {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let carried = ctx.value(&OBSERVERS);
        if carried.is_none() && client.is_none() {
            return None;
        }
        let carried = carried.into_iter().flatten();
        let exchange = Exchange {
            id: NEXT.fetch_add(1, Relaxed),
            context: ctx.clone(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            trace: Trace::read(&head.headers).map(|trace| trace.parent()),
            observers: carried.chain(client).cloned().collect(),
            state: Mutex::default(),
        };
        exchange.tell(Event::Waiting);
        Some(Watch {
            exchange: Arc::new(exchange),
        })
    }

    pub(super) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.exchange.tell(Event::Answered(status));
    }

    pub(super) fn complete(&self) {
        self.end(Event::Complete);
    }

    pub(super) fn failed(&self, error: &Error) {
        self.end(Event::Failed(error));
    }

    fn end(&self, event: Event<'_>) {
        let was_over = std::mem::replace(&mut self.exchange.state().is_over, true);
        if !was_over {
            self.exchange.tell(event);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(Event::Dropped);
    }
}

impl Observed {
    pub(super) fn note(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn is_noted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Line {
    pub(super) fn new(dial: Option<Duration>) -> Line {
        Line {
            made: Instant::now(),
            dial,
            uses: AtomicU64::new(0),
        }
    }
}

impl ConnInfo {
    /// What the engine knows of the connection of an exchange that has been looking for one `since`.
    fn of(connected: &Connected, is_http2: bool, since: Option<Instant>) -> ConnInfo {
        let mut extras = Extensions::new();
        connected.get_extras(&mut extras);
        let addresses = extras.get::<HttpInfo>();
        let line = extras.get::<Arc<Line>>();
        // Made before anybody observed this client, and so before this exchange.
        let is_reused = line.is_none_or(|line| {
            let is_used = line.uses.fetch_add(1, Relaxed) > 0;
            is_used || since.is_some_and(|since| line.made < since)
        });
        ConnInfo {
            is_reused,
            is_http2: is_http2 || connected.is_negotiated_h2(),
            peer_addr: addresses.map(HttpInfo::remote_addr),
            local_addr: addresses.map(HttpInfo::local_addr),
            dial: line.and_then(|line| line.dial),
        }
    }

    /// Whether it was there before: made for another exchange, or used by one.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// The peer's address, if the connector says so.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// The address at this end, if the connector says so.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// How long it was dialled, with the TLS handshake; longer than its exchange has waited if the dial was another's before.
    /// `None` if that began before anybody observed this client.
    pub fn dial(&self) -> Option<Duration> {
        self.dial
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Waiting => f.write_str("waiting for its turn"),
            Event::Connecting => f.write_str("waiting for a connection"),
            Event::Connected(conn) if conn.is_reused => f.write_str("on a connection that was there"),
            Event::Connected(_) => f.write_str("on a new connection"),
            Event::Sent => f.write_str("sent"),
            Event::Interim(status) => write!(f, "answered {} in the meantime", status.as_str()),
            Event::Answered(status) => write!(f, "answered {}", status.as_str()),
            Event::Complete => f.write_str("complete"),
            Event::Dropped => f.write_str("dropped"),
            Event::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("id", &self.id)
            .field("method", &self.method)
            // Not the query: that may be a secret.
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}
