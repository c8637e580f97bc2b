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

use serde_json::Value;
use support::client::{self, Answer};
use support::instance::{Instance, command};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_bequest");

/// Under which a session's id is sent.
const SESSION: &str = "x-myapp-session";

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

/// A request with these headers.
fn ask(service: &Instance, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    client::ask(service.public, method, target, headers)
}

/// A token of the embedded authentication server.
fn token(service: &Instance, user: &str) -> String {
    let answer = ask(service, "POST", &format!("/token?user={user}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.trim().to_string()
}

/// Signs in; the new session as the service tells of it.
fn sign_in(service: &Instance, user: &str) -> Value {
    let bearer = format!("Bearer {}", token(service, user));
    let answer = ask(service, "POST", "/sessions", &[("authorization", &bearer)]);
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["Result"].clone()
}

/// The id of a new session.
fn session(service: &Instance, user: &str) -> String {
    sign_in(service, user)["id"].as_str().expect("an id").to_string()
}

/// The status of `GET /me` with this id.
fn me(service: &Instance, id: &str) -> u16 {
    ask(service, "GET", "/me", &[(SESSION, id)]).status
}
