//! Against a real server, a private one: see the README beside this folder.

mod cancel;
mod careless;
mod common;
mod copy;
mod dropped;
mod faults;
mod poolers;
mod queue;
mod races;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod transactions;
