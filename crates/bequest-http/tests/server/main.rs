//! The server, tested over real sockets on loopback.
//!
//! Time is virtual wherever a limit is meant to pass: the clock is moved in steps until the awaited thing has happened,
//! and what is asserted is the time on that clock. Everything else is waited for by condition.

mod common;

mod control;
mod disconnect;
mod echoes;
mod engine;
mod event_stream;
#[cfg(feature = "axum")]
mod extractor;
mod first_poll;
mod floods;
mod go_http1;
mod go_http2;
mod half_close;
mod inbound;
#[cfg(feature = "axum-serve")]
mod layers;
mod limits;
mod malformed;
#[cfg(feature = "tls")]
mod matrix;
mod observe;
mod panic;
mod resets;
mod shutdown;
mod slow;
mod smuggling;
mod stand_in;
mod storm;
#[cfg(feature = "tls")]
mod tls;
mod under_load;
mod upgrade;
