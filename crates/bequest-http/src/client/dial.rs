//! Dials that outlive the requests they were made for.
//!
//! Each dial is a task. A request that is given up leaves its dial behind, under its host; the next request for that host
//! takes it over, finished or not, before another is begun.
//!
//! # Invariants
//!
//! 1. A dial ends within [`Limits::connect`]; what it made is kept for [`Limits::idle`] at most, and no more dials are kept
//!    for a host than [`Limits::idle_per_host`].
//! 2. A connection that is kept is watched: one that the peer closes, or speaks on out of turn, is dropped at once.

use std::collections::HashMap;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use bequest::Context;
use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use super::BoxError;
use super::builder::Limits;
use super::hosts;
use super::kept::Kept;
use super::observe::Observed;
use super::silence::{Silence, System};

/// What a connector must be to be wrapped: it gives connections that the pool can use.
pub trait Connector:
    Service<
        Uri,
        Response: Read + Write + Connection + Unpin + Send + 'static,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> Connector for C where
    C: Service<
            Uri,
            Response: Read + Write + Connection + Unpin + Send + 'static,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A connector whose dials go on when nobody waits for them.
#[derive(Debug)]
pub(super) struct Dialler<C: Connector> {
    connector: C,
    limits: Limits,
    is_http2: bool,
    left: Arc<Left<Kept<C::Response>>>,
    observed: Observed,
    system: System,
}

/// A dial that a request waits for.
pub(super) struct Dialling<C: Connector> {
    dialler: Dialler<C>,
    uri: Uri,
    /// `None` once it has answered.
    waiting: Option<Waiting<Kept<C::Response>>>,
}

struct Waiting<T> {
    answer: oneshot::Receiver<Result<T, BoxError>>,
    dial: Dial<T>,
    /// Whether the dial was begun for another request.
    is_taken_over: bool,
    runtime: Handle,
}

/// How what a dial makes is kept.
struct Keeping {
    limits: Limits,
    /// Whether the peer is known to speak HTTP/2, and first.
    is_http2: bool,
}

/// A dial's task: whoever wants what it makes sends where to put it.
type Dial<T> = mpsc::UnboundedSender<Taker<T>>;
/// A dial's task, and what its first taker waits for.
type Started<T> = (Dial<Kept<T>>, oneshot::Receiver<Result<Kept<T>, BoxError>>);
type Taker<T> = oneshot::Sender<Result<T, BoxError>>;

/// Dials that were left behind, by host.
#[derive(Debug)]
struct Left<T>(Mutex<HashMap<String, Vec<Dial<T>>>>);

impl<C: Connector> Dialler<C> {
    pub(super) fn new(connector: C, limits: Limits, is_http2: bool, observed: Observed) -> Dialler<C> {
        Dialler {
            connector,
            limits,
            is_http2,
            left: Arc::new(Left(Mutex::default())),
            observed,
            system: System::default(),
        }
    }

    fn keeping(&self) -> Keeping {
        Keeping {
            limits: self.limits.clone(),
            is_http2: self.is_http2,
        }
    }

    /// Takes over a dial that was left behind for this host, or begins one.
    fn dial(&self, uri: &Uri) -> Waiting<Kept<C::Response>> {
        while let Some(dial) = self.left.take(uri) {
            let (taker, answer) = oneshot::channel();
            if dial.send(taker).is_ok() {
                return Waiting {
                    answer,
                    dial,
                    is_taken_over: true,
                    runtime: Handle::current(),
                };
            }
        }
        let mut connector = self.connector.clone();
        let uri = uri.clone();
        let observed = self.observed.clone();
        let began = observed.is_noted().then(Instant::now);
        let (unreachable, is_http2, system) = (self.limits.unreachable, self.is_http2, self.system.clone());
        let work = async move {
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
            let io = connector.call(uri).await.map_err(Into::into)?;
            let dialled = began.map(|began| began.elapsed());
            let connected = io.connected();
            let is_asked = is_http2 || connected.is_negotiated_h2();
            let silence = match is_asked {
                true => None,
                false => Silence::of(&connected, unreachable, system),
            };
            Ok(Kept::new(io, observed, dialled, silence))
        };
        let (dial, answer) = start(&Handle::current(), work, self.keeping());
        Waiting {
            answer,
            dial,
            is_taken_over: false,
            runtime: Handle::current(),
        }
    }
}

impl<C: Connector> Service<Uri> for Dialler<C> {
    type Response = Kept<C::Response>;
    type Error = BoxError;
    type Future = Dialling<C>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        // The connector is waited for in the dial's task.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Dialling<C> {
        Dialling {
            waiting: Some(self.dial(&uri)),
            dialler: self.clone(),
            uri,
        }
    }
}

impl<C: Connector> Future for Dialling<C> {
    type Output = Result<Kept<C::Response>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let waiting = this.waiting.as_mut().expect("polled again after it was ready");
            let answer = ready!(Pin::new(&mut waiting.answer).poll(cx));
            let is_taken_over = waiting.is_taken_over;
            this.waiting = None;
            match answer {
                Ok(answer) => return Poll::Ready(answer),
                // What was taken over came to its end in the same moment.
                Err(_) if is_taken_over => this.waiting = Some(this.dialler.dial(&this.uri)),
                Err(_) => return Poll::Ready(Err("the dial's task is gone".into())),
            }
        }
    }
}

impl<C: Connector> Unpin for Dialling<C> {}

impl<C: Connector> Drop for Dialling<C> {
    fn drop(&mut self) {
        let Some(mut waiting) = self.waiting.take() else {
            return;
        };
        waiting.answer.close();
        let dial = match waiting.answer.try_recv() {
            // It was on its way to us.
            Ok(Ok(made)) => {
                let made = ready(Ok(made));
                start(&waiting.runtime, made, self.dialler.keeping()).0
            }
            Ok(Err(_)) => return,
            Err(_) => waiting.dial,
        };
        self.dialler
            .left
            .leave(&self.uri, dial, self.dialler.limits.idle_per_host);
    }
}

/// Starts a dial's task, with a first taker.
fn start<T>(
    runtime: &Handle,
    work: impl Future<Output = Result<Kept<T>, BoxError>> + Send + 'static,
    keeping: Keeping,
) -> Started<T>
where
    T: Read + Connection + Unpin + Send + 'static,
{
    let (dial, takers) = mpsc::unbounded_channel();
    let (taker, answer) = oneshot::channel();
    // The receiver is at hand, so it is there.
    let _ = dial.send(taker);
    // Not joined: it ends by its limits, or when nobody can take it any more.
    drop(runtime.spawn(keep(work, takers, keeping)));
    (dial, answer)
}

/// Dials, and keeps the outcome for whoever takes it.
async fn keep<T: Read + Connection + Unpin>(
    work: impl Future<Output = Result<Kept<T>, BoxError>>,
    mut takers: mpsc::UnboundedReceiver<Taker<Kept<T>>>,
    keeping: Keeping,
) {
    let clock = Context::background();
    let outcome = match clock.timeout(keeping.limits.connect, work).await {
        Ok(outcome) => outcome,
        Err(late) => Err(late.into()),
    };
    let mut made = match outcome {
        Ok(made) => made,
        Err(error) => return refuse(&mut takers, error),
    };
    let may_speak = keeping.is_http2 || made.connected().is_negotiated_h2();
    loop {
        let taker = tokio::select! {
            biased;
            taker = takers.recv() => taker,
            _ = clock.sleep(keeping.limits.idle) => None,
            () = poll_fn(|cx| made.poll_spoiled(cx, may_speak)) => None,
        };
        let Some(taker) = taker else { return };
        made = match taker.send(Ok(made)) {
            Err(Ok(untaken)) => untaken,
            Ok(()) | Err(Err(_)) => return,
        };
    }
}

/// Tells the first taker that still waits; the others find the task gone and dial anew.
fn refuse<T>(takers: &mut mpsc::UnboundedReceiver<Taker<T>>, error: BoxError) {
    let mut refusal = Err(error);
    while let Ok(taker) = takers.try_recv() {
        match taker.send(refusal) {
            Ok(()) => return,
            Err(unheard) => refusal = unheard,
        }
    }
}

impl<T> Left<T> {
    fn take(&self, uri: &Uri) -> Option<Dial<T>> {
        self.lock().get_mut(&hosts::key(uri))?.pop()
    }

    /// Keeps a dial. What has come to its end meanwhile, for whatever host, is cleared away.
    fn leave(&self, uri: &Uri, dial: Dial<T>, most: usize) {
        let mut left = self.lock();
        left.retain(|_, dials| {
            dials.retain(|dial| !dial.is_closed());
            !dials.is_empty()
        });
        let dials = left.entry(hosts::key(uri)).or_default();
        if dials.len() < most {
            dials.push(dial);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Dial<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connector> Clone for Dialler<C> {
    fn clone(&self) -> Dialler<C> {
        Dialler {
            connector: self.connector.clone(),
            limits: self.limits.clone(),
            is_http2: self.is_http2,
            left: self.left.clone(),
            observed: self.observed.clone(),
            system: self.system.clone(),
        }
    }
}
