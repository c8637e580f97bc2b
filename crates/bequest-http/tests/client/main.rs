//! The client over real sockets on loopback, against peers that answer what and when a test wants.
//!
//! Rows H1 to H13 of Go's client behaviours stand under their IDs. Waiting is by condition; limits pass on a clock that
//! the test moves.

mod answers;
mod body;
mod budget;
mod control;
mod dial;
mod go;
mod hops;
mod http2;
mod late;
mod layer;
mod observe;
mod retry;
mod silent;
mod steps;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod trace;
