//! gRPC through tonic's services and channels, on this crate's server and on tonic's own, over real sockets on loopback.
//!
//! `work.rs` is what tonic's generator makes of `work.proto`, committed so that nobody needs a compiler of protocols.
//! Waiting is by condition. Each claim has its control beside it: the same call without the layers.

mod calls;
mod chain;
mod control;
mod deadline;
mod desk;
mod ends;
mod late;
mod support;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
mod work;
