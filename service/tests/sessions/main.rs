//! Sessions from outside: the real binary, real sockets.
//!
//! What happens inside, under virtual time and with caches that fail on command, is tested beside the code; what happens
//! a thousand times over, by `bequest torture sessions`, which has its own test here.

mod issuer;
mod killed;
mod logged;
mod login;
mod mine;
mod tokens;
mod torture;

#[allow(
    dead_code,
    reason = "shared with other test binaries, and each uses a part of it"
)]
#[path = "../service/support/mod.rs"]
mod support;

use std::path::Path;

use support::instance::{Instance, command};
use support::signing_in::{SESSION, ask, me, session, sign_in, token};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_bequest");

fn service(flags: &[&str]) -> Instance {
    Instance::start(BINARY, flags)
}

/// A service on the data of another, which has ended.
fn service_on(data: &Path) -> Instance {
    let mut command = command(BINARY.as_ref());
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(data);
    Instance::of(command)
}
