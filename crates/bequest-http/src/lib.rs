//! HTTP whose request context ends when its client leaves.
//!
//! A server that gives each request a [`bequest::Context`]. It ends, and says why, as soon as nobody wants the answer any
//! more: the client disconnects, the stream is reset, a limit passes, the server shuts down, or the response has been
//! sent to its end. A handler is told before anything else happens to it, then has a grace, and only then is dropped.
//!
//! # Example: a client that leaves
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! use bequest::{Context, Reason};
//! use bequest_http::{Server, server::service_fn};
//! use http::{Request, Response};
//! use tokio::{io::AsyncWriteExt, net::{TcpListener, TcpStream}, sync::mpsc};
//!
//! let (tell, mut told) = mpsc::channel(2);
//! let service = service_fn(move |request: Request<_>| {
//!     let tell = tell.clone();
//!     async move {
//!         let ctx: Context = request.extensions().get::<Context>().cloned().unwrap();
//!         tell.send(None).await.unwrap();                        // the handler has begun
//!         let end = ctx.done().await;                            // … and would wait for ever
//!         tell.send(Some(end.reason())).await.unwrap();          // … but is told, and not torn down
//!         Response::new(String::new())
//!     }
//! });
//! let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let address = listener.local_addr().unwrap();
//! let process = Context::background().with_cancel();
//! let ctx = process.context();
//! let server = tokio::spawn(async move { Server::builder().serve(listener, service, &ctx).await });
//!
//! let mut client = TcpStream::connect(address).await.unwrap();
//! client.write_all(b"GET / HTTP/1.1\r\nhost: example\r\n\r\n").await.unwrap();
//! assert_eq!(told.recv().await.unwrap(), None);
//! drop(client);
//! assert_eq!(told.recv().await.unwrap(), Some(Reason::ClientGone));
//!
//! process.cancel();
//! assert_eq!(server.await.unwrap().unwrap().statistics.client_gone, 1);
//! # });
//! ```
//!
//! # The map
//!
//! - [`Server::builder`](server::Server::builder): contexts, limits, observer, then [`serve`](server::Builder::serve).
//! - [`Limits`](server::Limits): how long each stage may take, and how many of each there may be.
//! - [`Disconnect`](server::Disconnect) and [`DisconnectLayer`](server::DisconnectLayer): what becomes of a handler whose
//!   client leaves, for the server or for a route.
//! - [`Observer`](server::Observer): where the access log and the metrics hang; [`Statistics`](server::Statistics).
//! - `axum::Ctx` (feature `axum`): the context as an extractor. Without it: `request.extensions().get::<Context>()`,
//!   and [`ConnInfo`](server::ConnInfo) beside it.
//!
//! # What is not noticed
//!
//! The end of a client is seen as far as hyper sees it. On HTTP/1 it reads no further while a body is left unread or
//! while a pipelined request waits, so a client that leaves behind one of these is noticed when it is read or written to,
//! or at the request limit. A client that closes only its sending side counts as gone. Connections can not be upgraded.
//!
//! # Differences
//!
//! *From `axum::serve`*: handlers are told and not merely dropped; there are limits on the first byte, the header, idle
//! connections and requests; the drain is bounded; a panic is a 500 with its place in the log.
//!
//! *From Go's `net/http`*: the context ends when the response body has been sent to its end, not when the handler
//! function returns, since here the body may outlive it. Every end has a reason. Requests have a limit by default. The
//! server's end is a context as well: there is no `Shutdown` method. A panic is answered with 500 and the connection
//! stays.
//!
//! *From tower's `Timeout`*: the limit is the deadline of the context, visible to everything the handler calls; the
//! handler is told and may still answer; only then does the server answer 504 in its place.
//!
//! # Cancel safety
//!
//! A handler may assume that it is dropped only after its context has ended and its grace has passed, except where its
//! route says [`Disconnect::Drop`](server::Disconnect::Drop) or a cap on lingering handlers is reached.

#[cfg(feature = "axum")]
pub mod axum;
pub mod server;

pub use server::Server;
