//! The server: an accept loop whose contexts know when their client has left.
//!
//! Here live the loop, the connections, the requests, their limits and their end. HTTP/1 itself is hyper's, the frames of HTTP/2 are `h2`'s;
//! routing is whatever [`tower_service::Service`] it is given.
//!
//! # The contexts
//!
//! ```text
//! server ──► connection ──► request          each ends with its reason, and takes everything below it along
//!   │            │             ├─ ClientGone, StreamReset   nobody waits for the answer
//!   │            │             ├─ ResponseEnded             the body has been sent to its end
//!   │            │             ├─ Limit("request")          its deadline
//!   │            │             ├─ Limit("body idle" | "body rate")
//!   │            │             └─ Panicked
//!   │            ├─ ClientGone, Unreachable
//!   │            └─ Limit("first byte" | "handshake" | "header" | "idle" | "write stall" | "resets")
//!   └─ Shutdown
//! ```
//!
//! # Invariants
//!
//! 1. *Told, then grace, then dropped.* No handler is dropped, moved or answered for before its context has ended. The
//!    grace is bounded, counted and capped.
//! 2. Every wait is a wait on a context's clock: tests move the clock, and the same limits hold on both protocols.
//! 3. A request's context ends exactly once, and the observer is told exactly once.

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context as TaskContext, Poll};

use http::{Request, Response};

mod accept;
mod activity;
mod attend;
mod bell;
mod body;
mod builder;
mod calling;
mod calls;
mod connection;
mod counts;
mod disconnect;
mod drive;
mod exchange;
mod form;
mod frames;
mod http2;
mod inbound;
mod incoming;
#[cfg(feature = "axum-serve")]
mod introduced;
mod layer;
mod limits;
mod listen;
mod observe;
mod outpost;
mod oversee;
mod pace;
mod panic;
mod peer;
mod ping;
mod resets;
mod service;
mod shared;
mod shutdown;
mod silence;
mod socket;
mod statistics;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod turn;
mod upgrade;
mod wire;

pub use body::{RequestBody, ResponseBody, UntilShutdown};
pub use builder::{Builder, ServeError};
#[cfg(feature = "grpc")]
pub(crate) use disconnect::{ExchangeHandle, Handler};

pub use disconnect::{Disconnect, DisconnectLayer, DisconnectService};
pub use inbound::{CallerDeadline, Inbound, Refusal, Trusted, Unreadable};
pub use incoming::Incoming;
#[cfg(feature = "axum-serve")]
pub use introduced::{IntoAxum, IntoAxumFuture, Introduced};
pub use layer::{Answer, ContextLayer, ContextService, Layers};
pub use limits::Limits;
pub use observe::{
    ConnInfo, Dropped, Finished, ListenerInfo, Observer, PanicReport, StandIn, WhyDropped, WhyStandIn,
    client_closed_request,
};
pub use panic::{Panic, Place};
pub use peer::{HalfClose, Peer, PeerState};
pub use shutdown::Summary;
pub use statistics::{Snapshot, Statistics};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsInfo};
pub use upgrade::Upgrade;

/// An error of any type, as services and bodies have them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A server: where it begins.
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// A server with default settings, to be changed and then [served](Builder::serve).
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// A service from an async function that always answers; for tests and small servers without a router.
pub fn service_fn<F>(function: F) -> ServiceFn<F> {
    ServiceFn(function)
}

/// The service made by [`service_fn`].
#[derive(Clone, Copy, Debug)]
pub struct ServiceFn<F>(F);

impl<F, A, B, R> tower_service::Service<Request<RequestBody<R>>> for ServiceFn<F>
where
    F: FnMut(Request<RequestBody<R>>) -> A,
    A: Future<Output = Response<B>>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answering<A>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<R>>) -> Answering<A> {
        Answering {
            answer: (self.0)(request),
        }
    }
}

pin_project_lite::pin_project! {
    /// The future of [`ServiceFn`].
    #[derive(Debug)]
    pub struct Answering<A> {
        #[pin]
        answer: A,
    }
}

impl<A: Future> Future for Answering<A> {
    type Output = Result<A::Output, Infallible>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx).map(Ok)
    }
}
