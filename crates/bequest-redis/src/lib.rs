//! Redis whose commands end with their context, on connections that stay clean.
//!
//! The driver is [`redis`]. This crate decides on which connection a command runs, for how long it is waited for, and
//! what happens on the server when nobody waits any more.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bequest::Context;
//! use bequest_redis::{Client, redis};
//! use std::time::Duration;
//!
//! # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
//! let client = Client::open(server.url())?;
//! let request = Context::background().with_timeout(Duration::from_secs(5));
//! client.set(&request, "name", "ana").await?;
//! let name: String = client.cmd(&request, redis::cmd("GET").arg("name")).await?;
//! assert_eq!(name, "ana");
//!
//! request.cancel(); // nobody waits any more: nothing is sent
//! assert!(client.del(&request, "name").await.unwrap_err().is_canceled());
//! # Ok(()) }
//! ```
//!
//! # What Redis does when we cancel
//!
//! | at the time of the cancel | what happens |
//! |---|---|
//! | the context had ended before | nothing is sent |
//! | the call waits for a connection, or for one to be made | it is answered at once; nothing of it is sent. The connection is made all the same, and kept for the next |
//! | a plain command waits to be written | it is answered at once, in doubt; the driver does not write it |
//! | a plain command was written | it is answered at once, in doubt. The command runs; the driver reads its reply and throws it away |
//! | a pipeline, a transaction, a script | as a plain command: it runs whole, or it was not sent at all |
//! | a blocking command waits on the server | `CLIENT UNBLOCK … ERROR` ends it; its reply says that nothing was taken, and then the call is answered |
//! | a blocking command was just given an element | the call returns the element, although its context has ended |
//! | the same, and the *future* was dropped | the element is put back to the end of the list it came from, or handed to [`Options::orphans`] |
//! | the server does not answer any more | plain: answered at once. Blocking: answered after [`Options::grace`], in doubt; after [`Options::unblock_limit`] its connection is closed |
//! | a message is waited for | the wait ends; a message that arrives stays for the next call |
//! | of a cluster: a node has sent the call elsewhere, or has asked for patience | it is answered at once; no node has run it |
//!
//! # What can not be cancelled
//!
//! - A command that was sent. Redis runs commands one after the other, each to its end, and knows no way to take back
//!   one that is on its way. [`Error::is_in_doubt`] says when that is the case. It concerns only commands that change
//!   something, and they are best made so that they can be repeated.
//! - A script that runs. `SCRIPT KILL` kills whichever script runs, not ours.
//! - An element that is on its way to us when the connection breaks, or when this process ends. The server has taken it off
//!   its list and nobody has it. Who can not afford this uses `BLMOVE` to a list of jobs in work, or a stream with a
//!   consumer group: there the server keeps it until the work is done.
//!
//! # Putting back, honestly
//!
//! When the future of a blocking pop is dropped, nobody is left to be given an element that was popped at that instant.
//! It goes back by `LPUSH` or `RPUSH` to the end it came from, or by `ZADD NX` with its score. For the time in between, a
//! round trip, it is in no list. Other workers may take what stands behind it first, and the key may have expired, and is
//! then made anew. It is tried once, within [`Options::unblock_limit`]; if that fails, it counts as
//! [`Blocking::lost`]. [`Client::settle`] waits until all this is done. It is better to end the context and to wait for
//! the answer: then the element comes to the caller, and nothing has to be put back.
//!
//! # A connection is never handed on dirty
//!
//! Plain commands share one connection, on which each reply belongs to the command that was sent in its place. What would
//! shift or change that is refused ([`Error::is_refused`]): `MULTI` on its own, `SELECT`, `SUBSCRIBE`, `CLIENT REPLY` and
//! others. A connection for blocking commands is handed on after its last reply *and* the reply to the last `UNBLOCK`
//! that names it have been read, so that no `UNBLOCK` can end the next user's command. One that was not set up completely
//! is dropped.
//!
//! # Connections
//!
//! A lost connection is replaced by the next call that needs one, within its budget: it tries again after 10 ms, then
//! ever later up to half a second, until the context ends or [`Options::connect_limit`] has passed. A command that was
//! sent is never sent again by itself. When a call has given up, the server is asked for a sign of life (one `PING` at
//! a time, however many give up); without one within a second the next call connects anew. Who waits on the silent one
//! without a deadline waits for as long as the system keeps it up.
//!
//! When a connection ends, whoever waits on it is told, with or without a deadline. (The driver alone forgets a command that
//! comes at that very instant.)
//!
//! The driver's own time limits (it answers after 500 ms, and lets a `BLPOP` swallow a job behind its back) are
//! switched off: the context's are the only ones.
//!
//! # A cluster
//!
//! [`Client::open_cluster`] gives the same client, with the same calls. A command goes to the node that has the slot of its
//! keys; keys with the same part in braces are in the same slot. What no one node can do is refused: keys in several slots
//! ([`Error::is_cross_slot`]), and commands about a whole server, which [`Client::cmd_at_each`] sends to each primary. A
//! pipeline is cut by node and its replies are put in order; a transaction needs one slot. A blocking command waits, and
//! is ended, at the node that has its list.
//!
//! A node that did not run a command says so (`MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`), and the call goes on elsewhere or a
//! little later; likewise when a node cannot be reached, until a replica has taken its place. All this is within the
//! context and [`Options::connect_limit`], whose end is an error that is not in doubt. What was sent and not answered is in
//! doubt, and is not sent again, here as with one server. A pipeline that ends after one of its parts has run is in doubt.
//!
//! Who has which slots is asked at the first call and again whenever a node says that it has changed or cannot be
//! reached. When the cluster has given up a node that does not answer, those who still wait on it are told that it is lost.
//! All is read from primaries. A subscription is at any one node, which hears what is published at any other.
//!
//! # TLS
//!
//! With the feature `tls` and a URL that begins with `rediss`, by rustls and ring. The server's certificate is always
//! verified, by the authorities that the system trusts, by [`Options::root_certificates`], or as [`Options::tls_config`]
//! says; a certificate that is not trusted is an error at once, and is not tried again.
//!
//! # Not here
//!
//! No sentinel, no transactions with `WATCH`, no sharded pub/sub, no reading from replicas. Redis 6 or later, since timeouts
//! are sent in fractions of seconds.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod blocking;
mod cache;
mod client;
mod cluster;
mod command;
mod connection;
mod endpoint;
mod error;
mod gather;
mod handle;
mod node;
mod options;
mod pubsub;
mod retry;
mod shared;
mod statistics;
mod stripes;
#[cfg(feature = "tls")]
mod tls;

pub use client::Client;
pub use error::{Error, Step};
pub use options::{Options, Orphan};
pub use pubsub::Subscription;
pub use redis;
#[cfg(feature = "tls")]
pub use rustls;
pub use statistics::{Blocking, Statistics};
