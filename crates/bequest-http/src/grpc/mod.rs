//! gRPC under a context: deadlines that travel, ends that have the right status, streams included.
//!
//! Here live two tower layers, [`ServerLayer`] and [`ClientLayer`], and [`Ended`], which reads how a call ended. They work on
//! requests and answers of the `http` crate and know no messages, so they go around tonic's services and channels, on
//! [`Server`](crate::Server) as well as on tonic's own.
//!
//! | | on the server | on the client |
//! |---|---|---|
//! | `grpc-timeout` | read, and can only shorten | the time that is left, less a margin |
//! | the deadline passes | DEADLINE_EXCEEDED, before or after the head | the same, made here; the stream is reset |
//! | the context is cancelled | CANCELLED | the same, made here; the stream is reset |
//! | the server shuts down | UNAVAILABLE | from the peer: not an end of the caller's |
//! | the peer leaves | the context ends | tonic's status for a connection that failed |
//!
//! # Example: a handler
//!
//! ```
//! # use bequest::Context;
//! # fn example<T>(request: http::Request<T>) -> Option<std::time::Duration> {
//! // tonic's `Request` has the same `extensions()`.
//! let ctx = request.extensions().get::<Context>()?;
//! ctx.remaining()
//! # }
//! # let mut request = http::Request::new(());
//! # let scope = Context::background().with_timeout(std::time::Duration::from_secs(9));
//! # request.extensions_mut().insert(scope.context());
//! # assert!(example(request).is_some());
//! ```
//!
//! # Invariants
//!
//! 1. A handler is told before anything else happens to it: its context ends first; then the caller is answered; the
//!    handler itself runs on for a grace, under a cap, and is dropped.
//! 2. A stream ends with its context in both directions, whether or not anybody polls it: what is sent with trailers on a
//!    server and a reset on a client, what is received with an error.
//! 3. Once the context has ended, a failure is the context's failure: whatever status the handler makes of its own broken
//!    reads, the caller is told the context's.
//! 4. A request that broke off never reads as one that is complete, whatever the caller's reset says.
//! 5. What a peer says of itself is never taken for an end of our own: the mark of one is taken out of every answer.
//!
//! # Differences
//!
//! *From tonic's own handling of `grpc-timeout`*: it stands in the handler's context, it holds for streams to their end and
//! not only for heads, and its status is DEADLINE_EXCEEDED and not CANCELLED. A call to the next service takes it along.

mod client;
mod ended;
mod server;

pub use client::{CallBody, ClientLayer, ClientService};
pub use ended::{Ended, code};
pub use server::{Answering, BrokenOff, RequestBody, ResponseBody, ServerLayer, ServerService};

pub use crate::client::SentBody;

/// An error of any type, as services and bodies have them.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
