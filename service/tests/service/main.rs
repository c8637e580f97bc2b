//! The reference service from outside: the real binary, real sockets, one module for each route.
//!
//! Each promise stands beside its negative control where there is one: [`control`] is the naive service, which goes on
//! and writes although nobody waits.

mod admin;
mod control;
mod events;
mod http2;
mod jobs;
mod logs;
mod report;
mod search;
mod settings;
mod shutdown;
mod store;
#[allow(
    dead_code,
    reason = "shared with other test binaries, and each uses a part of it"
)]
mod support;

use support::instance::Instance;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_bequest");

/// A service with these flags on free ports.
fn service(flags: &[&str]) -> Instance {
    Instance::start(BINARY, flags)
}
