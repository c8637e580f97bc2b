//! The service on PostgreSQL and Redis: the tests of sessions once more, and what only servers can show, two nodes among it.
//!
//! Where a server is not installed, that is said in a line, and the tests of sessions run on the embedded parts once more;
//! those that are about servers end at once. With `BEQUEST_REQUIRE_SERVERS=1` nothing is left out.

#[path = "../sessions/killed.rs"]
mod killed;
#[path = "../sessions/logged.rs"]
mod logged;
#[path = "../sessions/login.rs"]
mod login;
#[path = "../sessions/mine.rs"]
mod mine;
mod nodes;
mod restart;
mod routes;
mod servers;
mod tls;

#[allow(
    dead_code,
    reason = "shared with other test binaries, and each uses a part of it"
)]
#[path = "../service/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use servers::Stores;
use support::instance::{Instance, command};
use support::signing_in::{SESSION, ask, me, session, sign_in, token};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_bequest");

/// The stores of each service that was started, by its data folder.
static STORES: Mutex<Option<HashMap<PathBuf, Stores>>> = Mutex::new(None);

/// A service on a database of its own.
fn service(flags: &[&str]) -> Instance {
    let Some(stores) = Stores::new() else {
        return Instance::start(BINARY, flags);
    };
    let service = Instance::start(BINARY, &[&stores.flags()[..], flags].concat());
    let mut known = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().insert(service.data(), stores);
    service
}

/// A service on the data of another, which has ended.
fn service_on(data: &Path) -> Instance {
    let mut command = command(BINARY.as_ref());
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(data);
    let known = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stores) = known.as_ref().and_then(|known| known.get(data)) {
        command.args(stores.flags());
    }
    drop(known);
    Instance::of(command)
}
