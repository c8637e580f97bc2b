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
//! - [`Layers`](server::Layers): the same contexts as tower layers, for an accept loop of your own or for `axum::serve` (feature
//!   `axum-serve` to have it introduce its connections); the page has a table of which abilities remain.
//! - [`Limits`](server::Limits): how long each stage may take, and how many of each there may be; a route's own limit is set in
//!   [`request_context`](server::Builder::request_context).
//! - [`Disconnect`](server::Disconnect) and [`DisconnectLayer`](server::DisconnectLayer): what becomes of a handler whose
//!   client leaves, for the server or for a route.
//! - [`Upgrade`](server::Upgrade): the context of a connection that changes to another protocol;
//!   [`UntilShutdown`](server::UntilShutdown): the mark of an event stream.
//! - [`Observer`](server::Observer): where the access log and the metrics hang; [`Statistics`](server::Statistics).
//! - [`Inbound`](server::Inbound): what a request's headers hand down, the caller's deadline first, and from whom it is
//!   taken. The formats, both ways, are in [`wire`]; the chapter [`manual::travelling`] has the whole way.
//! - `client::Client` (feature `client`): requests that end with their context, and take the remaining time along;
//!   `client::ContextLayer` does the same around any tower client. `client::Observer` is told what each of them waits for, on
//!   which connection it goes out, and how it ends.
//! - `server::Tls` and `client::Tls` (feature `tls`): HTTPS, by [rustls](https://docs.rs/rustls) and ring, which this crate exports as `rustls`.
//! - `grpc::ServerLayer` and `grpc::ClientLayer` (feature `grpc`): the same for gRPC, around tonic's services and channels;
//!   `grpc::Ended` tells a peer's end from our own.
//! - `axum::Ctx` (feature `axum`): the context as an extractor. Without it: `request.extensions().get::<Context>()`,
//!   and [`Peer`](server::Peer) beside it, which has the connection as [`ConnInfo`](server::ConnInfo).
//!
//! # Features
//!
//! None is on by default: the server, its layers and [`wire`] are always there.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | the extractors in `axum` |
//! | `axum-serve` | `server::Introduced`, for the connections of `axum::serve`; with `axum` |
//! | `client` | `client` |
//! | `grpc` | `grpc`; with `client` |
//! | `tls` | `server::Tls` and, with `client`, `client::Tls` |
//! | `webpki-roots`, `native-roots` | for `client::Tls`: the authorities that Mozilla trusts, compiled in; those of the system |
//!
//! In the signatures stand types of `http`, `http-body`, `bytes`, `tower-service`, `tower-layer`, and `tokio` (its listeners), and
//! beside an [`Upgrade`](server::Upgrade) `hyper`'s `OnUpgrade`; with `client` also of `hyper-util` (its connector), with `axum` of
//! axum, with `tls` of `rustls`, which is exported here.
//!
//! # What is noticed, and what is not
//!
//! A client that closes its connection, resets it, or resets its stream is noticed while its handler runs, whatever of what
//! it sent is unread: a body not read or dropped, a body cut short, a pipelined request, `Expect: 100-continue`. Two things
//! see to it where nobody reads: sockets are watched for the end of reading (Linux
//! and Android), and up to [`Limits::read_ahead`](server::Limits::read_ahead) is read ahead of the handler.
//! `cargo run --features tls --example disconnect_matrix` prints how each case fares, beside bare hyper.
//!
//! - *Half-closed or gone?* On HTTP/1 a client that closes only its sending side can not be told from one that has ended. It
//!   counts as gone, and an answer within the grace is still sent to it; [`Peer`](server::Peer) says what was seen, and
//!   [`HalfClose`](server::HalfClose) changes what it means.
//! - *Behind more unread bytes than are read ahead*, an orderly close can not reach the server: it waits in the client's
//!   system for room. A reset does reach it, where sockets are watched.
//! - *Elsewhere than on Linux and Android*, a departure behind more unread bytes than are read ahead is not noticed.
//! - *With TLS* all of this holds below it, as the sockets are watched. A farewell of TLS (`close_notify`) that leaves the
//!   socket open is met where bytes are: it is not noticed behind more unread bytes than are read ahead.
//! - *Behind a proxy*, the client is the proxy.
//! - *A peer that falls silent* is noticed after [`Limits::unreachable`](server::Limits::unreachable): by PING on HTTP/2; on
//!   HTTP/1 by the system's own means (keepalive, and on Linux what it has heard of the peer since it began to repeat itself), which
//!   ask the next machine and not the process behind it. A client that only reads slowly is not taken for one.
//!
//! What is not noticed so ends with the request limit.
//!
//! # Differences
//!
//! *From `axum::serve`* (which can have the contexts all the same, as [`Layers`](server::Layers)): handlers are told and not merely dropped; there are limits on the first byte, the header, idle
//! connections and requests; the drain is bounded; a panic is a 500 with its place in the log.
//!
//! *From hyper*: an HTTP/1.1 request that has not exactly one `Host`, or one that can be none, is answered with 400, a transfer
//! coding other than chunked with 501, and the connection is closed. HTTP/2 is spoken without hyper, on the `h2` crate: a handler is not
//! begun for a stream that was reset before, a `CONNECT` that announces a body is refused and its connection stays, and a tunnel whose client
//! resets it fails and does not end.
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

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "grpc")]
pub mod grpc;
mod heard;
pub mod manual;
pub mod server;
pub mod wire;

#[cfg(feature = "tls")]
pub use rustls;

pub use server::Server;
