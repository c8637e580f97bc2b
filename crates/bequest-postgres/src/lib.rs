//! PostgreSQL whose queries stop when their context does.
//!
//! [`tokio_postgres`] does the talking. This crate decides when something may be sent, when the server must stop, and in
//! what state a connection is handed on.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
//! use bequest::Context;
//! use bequest_postgres::Database;
//! use std::time::Duration;
//!
//! let ctx = Context::background();
//! let db = Database::open(&ctx, &server.url()).await?;
//!
//! let request = ctx.with_timeout(Duration::from_millis(50));
//! let error = db.query(&request, "SELECT pg_sleep(8)", &[]).await.unwrap_err();
//! assert!(error.is_canceled()); // and the server has stopped: the next user does not wait for it
//!
//! let row = db.query_one(&ctx, "SELECT 6 * $1", &[&7]).await?;
//! assert_eq!(row.get::<_, i32>(0), 42);
//! # Ok(()) }
//! ```
//!
//! # What the server does when we cancel
//!
//! | at the time of the cancel | what happens |
//! |---|---|
//! | the call waits for a connection | it leaves the queue and is answered at once; nothing was sent. A connection being made for it is made to its end, and goes to the next |
//! | a statement is prepared or runs | a cancel request goes out on a connection of its own; the server's process looks at it at the next safe point, within a millisecond as a rule, undoes the statement, and says so |
//! | it waits for a lock, or sleeps | likewise, at once |
//! | rows are being read | likewise; those on their way are thrown away |
//! | its rows are not being read, and the server waits for that | the rows on their way are taken and thrown away, so that the server's process comes to look at the cancel |
//! | a `COPY` comes in | it is failed by the end of its data, cancelled if that does not end it, and nothing of it is kept |
//! | a transaction is open | it is rolled back, even if nobody is calling; no statement of it runs afterwards |
//! | the statement has just succeeded | the answer is `Ok`: success wins. The cancel finds nobody, and has gone by before the next statement is sent |
//! | `COMMIT` was sent | it is not disturbed; see below |
//! | the server hangs, or the network does | the call is answered after [`Options::patience`]; the connection is thrown away after [`Options::settle_limit`], and the server stops the query when it sees that ([`client_connection_check_interval`][check]) or when its own limit passes (`statement_timeout`, which follows the context's budget) |
//!
//! [check]: https://www.postgresql.org/docs/current/runtime-config-connection.html
//!
//! # What can not be cancelled
//!
//! - A commit on its way. It ends, well or not, and the answer tells which; if the answer does not come in time,
//!   [`Error::is_in_doubt`] says that it may have been done. That goes for statements outside of a transaction too, which
//!   commit by themselves: one that was cancelled *and answered* has changed nothing; of one whose answer did not come
//!   nobody knows.
//! - Code in the server that does not look: a function of an extension in a long loop, a read from a disk that does not
//!   answer.
//! - What a statement has done outside of the database: a sequence has advanced, a foreign server was written to.
//!
//! # A connection is never handed on dirty
//!
//! After a call was given up, its connection has a way to go before somebody else has it: the cancel's own connection is
//! read *to its end*, which proves that the cancel can not hit a later statement; a question behind the statement is
//! answered, which proves that its replies have been read (after a `COPY` that failed, a question whose answer is known, since
//! the driver may have lost count); an open transaction is rolled back; and the server says that
//! none is open. That state is read off every answer, not guessed from the statements. If any of it fails or takes too
//! long, the connection is closed. All the while its place in the pool is held, so the server never works for more users
//! than there are places.
//!
//! What persists is what the server itself keeps for a session: settings made by `SET`, temporary tables, advisory locks.
//!
//! # Bounds
//!
//! Cancels are bounded in number ([`Options::cancels`]) and time; so is tidying up. When a crowd leaves at once, the cancels
//! wait for one another, and the server does not notice the crowd.
//!
//! # Cancel safety
//!
//! Under this heading each method says what dropping its future does.
//!
//! # TLS
//!
//! With the feature `tls`, by rustls; see `Tls` and `Options::tls`. Cancel requests are encrypted as the session is that they
//! are about, so the key that cancels is shown to nobody. Without the feature a configuration that requires TLS is refused.
//!
//! # Poolers in between
//!
//! A pooler takes cancel requests itself, and passes them on. That its connection is closed may prove only that the pooler has
//! taken the request: it may still reach the server after the statement has ended, and hit what the *next* user of the
//! connection sends. What helps depends on the pooler:
//!
//! - It closes the cancel's connection when the server has closed its own, and gives nobody the server's session before, as PgBouncer
//!   does from 1.18: nothing is to be done. Behind it, in session and in transaction pooling, none of 20 000 next users was hit.
//! - It passes the cancel on late, to whatever its client's session is at by then, or that is not known: set
//!   [`Options::discard_after_cancel`]. The session is closed after every cancel, so a late one finds nobody.
//! - It looks up at once which session of the server is meant, and gives that to somebody else before it has passed the
//!   cancel on: then it hits a stranger, and no client can do anything about it.
//!
//! The tests of this crate play all three (`tests/server/poolers.rs`).
//!
//! If the pooler gives one session to several clients (transaction pooling), switch [`Options::server_limits`] off, since settings
//! would be everybody's, and let it keep prepared statements (PgBouncer: `max_prepared_statements`, from 1.21), or use
//! [`batch_execute`](Database::batch_execute) alone.
//!
//! # Not here
//!
//! An adapter for deadpool: it hands connections out, and takes them back in a destructor that can not wait. What makes a
//! connection clean here (the cancel read to its end, the rollback) would run after deadpool has counted it as free, so its
//! limit would no more be the limit of what the server works at; DESIGN.md says more. Migrations, mapping of rows to types, pipelining: a connection has one
//! user, who sends one statement at a time, since a cancel names a connection and not a statement.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
mod cancel;
mod client;
mod connection;
mod copy;
mod error;
mod held;
mod listen;
mod options;
mod pool;
mod reader;
mod rows;
mod statistics;
#[cfg(feature = "tls")]
mod tls;
mod transaction;

pub use client::Database;
pub use copy::{CopyIn, CopyOut};
pub use error::{Error, Step};
pub use listen::Listener;
pub use options::Options;
pub use rows::Rows;
pub use statistics::Statistics;
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use tokio_postgres;
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;
pub use transaction::{Savepoint, Transaction};
