//! The client: requests that end with their context, from the wait for a connection to the last byte of the answer.
//!
//! Here lives what a context does to an exchange; the protocols and the pool of used connections are hyper's. There are
//! two ways in: [`Client`], ready to use, over TLS with feature `tls`, and [`ContextLayer`], which does the same around any
//! tower client. [`RetryLayer`] tries again what may be tried again, within what the caller has left. An [`Observer`] is told of
//! each exchange.
//!
//! ```text
//! step       Waiting ──► Dialling ──► Sending ──► Answering ──► Reading
//! waits for  its turn    a connection  the peer    the head      the body
//! ends by    leaving     leaving; the  resetting the stream on HTTP/2, where the connection stays;
//!            the queue   dial goes on  closing the connection on HTTP/1
//! ```
//!
//! # Invariants
//!
//! 1. When its context ends, an exchange ends, whatever step it is in and whether or not anybody polls its body.
//! 2. A connection of HTTP/1 that was given up in the middle of an exchange is not used for another one, nor one of either
//!    protocol whose peer is silent when it is asked. A dial that was given up goes on, within its limit, and what comes of it is kept
//!    for the next request.
//! 3. An exchange holds its place under [`Limits::exchanges_per_host`] until its body is at its end or dropped, and nothing
//!    of it stays behind then: no callback, no timer, no task.
//! 4. The error of an exchange that ended with its context is the context's, the same on both protocols; how the protocol
//!    engine noticed is not told.
//! 5. However many streams of an HTTP/2 connection are given up, the others on it go on.

mod body;
mod builder;
mod call;
mod dial;
mod error;
mod hosts;
mod kept;
mod layer;
mod observe;
mod ready;
mod retry;
mod sending;
mod sent_body;
mod silence;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "grpc")]
pub(crate) use call::Call;
#[cfg(feature = "grpc")]
pub use sent_body::SentBody;

pub use body::ResponseBody;
pub use builder::{Builder, Limits};
pub use dial::Connector;
pub use error::{Error, Step};
pub use layer::{ContextLayer, ContextService};
pub use observe::{ConnInfo, Event, Exchange, Observer};
pub use ready::Client;
pub use retry::{GaveUp, Replayable, Retry, RetryError, RetryLayer, RetryService};
#[cfg(feature = "tls")]
pub use tls::{Https, HttpsStream, Tls, TlsError};

/// An error of any type, as services and bodies have them.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
