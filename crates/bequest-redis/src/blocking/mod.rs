//! Blocking commands: each on a connection to itself, ended on the server when nobody waits any more.
//!
//! What lives here: the few connections ([`pool`]), how one is made and ended ([`seat`]), the course of one command
//! ([`call`]), and what becomes of an answer that nobody takes ([`orphan`]).
//!
//! # The course of a command
//!
//! It runs in a task of its own, which owns the connection, the place in the pool and a clone of the context. The
//! caller waits for the task. If the context ends, or the caller is dropped, the task sends `CLIENT UNBLOCK id ERROR`
//! on the control connection and goes on waiting for the command's own reply:
//!
//! - the reply says `UNBLOCKED`: nothing was taken;
//! - the reply is an answer: the element was taken just before. The caller gets it; if there is no caller, it is put back;
//! - no reply within the limit: the connection is closed, and the answer is in doubt.
//!
//! # Invariants
//!
//! 1. A connection is handed on only after every reply on it has been read, and after the reply to every `UNBLOCK` that
//!    names it: none can arrive late and end the next user's command.
//! 2. An `UNBLOCK` is sent only on a control connection to the same run of the same server; their run ids were compared.
//!    A server never gives a client id twice, but another one, or the same after a restart, starts anew, and there the
//!    id might name a stranger. So a control connection that is lost is not replaced for the connections it served.
//! 3. A place in the pool is given back when its connection is free or closed, not when its caller leaves.
//! 4. An answer is given to exactly one: to the caller, to the list it came from, or to the sink; or it is counted as
//!    lost.

mod call;
mod orphan;
mod pool;
mod seat;

pub(crate) use call::{Work, call};
pub(crate) use pool::{Back, Patience, Pool};
