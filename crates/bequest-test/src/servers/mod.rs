//! Private servers of the real thing: started for a test, on loopback, gone afterwards.
//!
//! What lives here: starting a server on a free port with its files in a temporary folder, stopping it in each of the
//! ways in which servers stop, and leaving a test out where the server is not installed. What does not: clients. Tests
//! bring the driver that they are about.
//!
//! ```
//! use bequest_test::servers::Postgres;
//!
//! let Some(server) = Postgres::start_or_leave_out() else { return };
//! assert!(server.address().ip().is_loopback());
//! server.freeze(); // it hangs from now on, instead of failing
//! server.thaw();
//! ```
//!
//! # Left out
//!
//! A server that is not installed is not a failure: [`Postgres::start_or_leave_out`] says so on the standard error
//! stream and returns `None`, and the test ends. Where the variable [`REQUIRE`] is `1`, nothing may be left out, and it
//! panics.
//!
//! # What may be relied on
//!
//! 1. A server listens on loopback only, on a port of its own, and trusts whoever connects. It is for tests.
//! 2. It never runs as root: for root it is started under the server's own account, or `nobody`.
//! 3. It syncs nothing to the disk, and all that it writes is in one folder, under the system's temporary folder.
//! 4. When its owner is dropped, or the test's process ends in whatever way, the server is killed and the folder removed:
//!    a keeper process waits for the closing of a pipe, and a killed test closes it too.

mod account;
mod error;
mod pgbouncer;
mod postgres;
mod process;
mod program;
mod redis;
mod redis_cluster;

pub use error::StartError;
pub use pgbouncer::{PgBouncer, Pooling};
pub use postgres::Postgres;
pub use redis::{Pem, Redis};
pub use redis_cluster::RedisCluster;

/// The variable that lets no test be left out, if it is `1`.
///
/// A program that refuses variables which it does not know has to let it pass: whoever runs the tests exports it.
pub const REQUIRE: &str = "BEQUEST_REQUIRE_SERVERS";
