//! SQLite whose statements stop when their context does.
//!
//! [`rusqlite`] does the work, on threads of its own. This crate decides when a piece of work may begin, when it must
//! stop, and in what state the connection is handed on.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bequest::Context;
//! use bequest_sqlite::Database;
//! use std::time::Duration;
//!
//! let ctx = Context::background();
//! let db = Database::temporary(&ctx).await?;
//! db.execute_batch(&ctx, "CREATE TABLE visit (name TEXT)").await?;
//!
//! let request = ctx.with_timeout(Duration::from_secs(5));
//! db.execute(&request, "INSERT INTO visit VALUES (?1)", ["ana"]).await?;
//! assert_eq!(db.query(&request, "SELECT name FROM visit", (), |row| row.get::<_, String>(0)).await?, ["ana"]);
//!
//! request.cancel(); // nobody waits any more: nothing is begun
//! assert!(db.execute(&request, "DELETE FROM visit", ()).await.unwrap_err().is_canceled());
//! # Ok(()) }
//! ```
//!
//! # What SQLite does when we cancel
//!
//! | at the time of the cancel | what happens |
//! |---|---|
//! | the call waits for a thread | it leaves the queue and is answered at once; nothing of it runs |
//! | a `SELECT` runs | it stops at the next look at the context, within a millisecond as a rule; locks and snapshot are released |
//! | an `INSERT`, `UPDATE`, `DELETE` runs | it stops likewise, and SQLite rolls the **whole transaction** back, not only the statement |
//! | the work is between two statements | the next statement is refused when it is prepared; a statement prepared before stops within a thousand steps |
//! | a [`Blob`] is read or written | the next piece, of at most 64 KiB, is refused; what was written is rolled back |
//! | another connection holds a lock | the wait ends at once (`PRAGMA busy_timeout` would sit it out: an interrupt does not end it) |
//! | the work has returned, the commit has not begun | the commit becomes a rollback |
//! | the commit is done | the answer is `Ok`: success wins |
//! | nothing runs | nothing happens: there is no interrupt that could arrive late and hit the next statement |
//!
//! The context is read by hooks *on the thread that runs the statement*: the progress handler, every thousand steps of
//! SQLite's virtual machine; the busy handler, between tries for a lock; the authorizer, whenever a statement is
//! prepared; the commit hook, before a commit takes effect. `sqlite3_interrupt` is not used.
//!
//! # What can not be cancelled
//!
//! - A commit on its way. It ends, well or not, and the answer tells which. With a write-ahead log and
//!   `synchronous = NORMAL`, which is how connections are opened, it seldom waits for the disk.
//! - A single step of the virtual machine: sorting what has been collected, one call of a function on a large value
//!   (`LIKE` or JSON on megabytes), one look-up of a full-text index, one read from a disk that does not answer.
//! - A blob read or written by `rusqlite`'s own handle, which asks nobody; [`Blob`] does.
//! - Rust code of the work. A loop in it may clone the context in, and check it.
//!
//! # A connection is never handed on dirty
//!
//! After each piece of work: an open transaction is rolled back; a connection on which that fails, or on which a
//! statement was leaked, is closed and another opened; a panic is caught, rolled back and reported
//! ([`Error::is_panicked`]), and the thread lives on. What persists is what SQLite itself keeps for a connection: pragmas, temporary
//! tables, attached databases. Set such things before and for all, in the file, by [`Options::set_up`], or in the work that needs
//! them.
//!
//! # Connections
//!
//! One writes, the others read; foreign keys are on; the file has a write-ahead log, so readers never wait for the
//! writer. Readers are opened read-only. Calls are served first in, first out, by [`Database`]'s own threads, and the
//! answers work on any executor.
//!
//! # Cancel safety
//!
//! Under this heading each method says what dropping its future does, to the data and to the queue.
//!
//! # Features
//!
//! `functions`: rusqlite's feature of that name, for SQL functions written in Rust, which [`Options::set_up`] registers.
//!
//! # Not here
//!
//! No pool of databases, no migrations, no mapping of rows to types: `rusqlite` is re-exported and has them or knows
//! who has. Databases in memory: connections can share one only with locks on which nobody can wait;
//! [`Options::temporary`] is for tests.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod blob;
mod call;
mod cancel;
mod client;
mod connection;
mod error;
mod options;
mod pool;
mod statistics;
mod temporary;

pub use blob::Blob;
pub use client::Database;
pub use error::{Error, Step};
pub use options::Options;
pub use rusqlite;
pub use statistics::{Lane, Statistics};
