//! Sessions: who is asking, checked at each request, and gone for good when it is ended.
//!
//! ```text
//!  id ─► SHA-256 ─► cache ── fresh ───────────────────────────────────────────► session
//!                     │ nothing, older than a minute, slow or away                 ▲
//!                     └─► one flight per id ─► database ─► fill, unless a tombstone stands
//! ```
//!
//! What lives here: ids, the database and the cache behind traits, the flights between them, the middleware. What does
//! not: what a session *is* ([`domain::session`](crate::domain::session)), tokens ([`token`](crate::token)), routes.
//!
//! # Invariants
//!
//! 1. *No resurrection.* Once [`Sessions::end`] has answered, no read that begins later is answered with that session, as
//!    long as the cache hears of ends; if it was away just then, within [`CONFIRMED_FOR`] all the same.
//! 2. *Never "allow".* If nobody can tell whether a session stands, the request is refused.
//! 3. Neither the database nor the cache nor a log ever sees an id, only its hash.
//! 4. Each step has a budget of its own within what is left of the request's, and its error says which step it was.
//! 5. A step is not begun for a request that has ended.
//! 6. A node whose claim on the database was taken by another believes no cache: it asks the database each time.
//!
//! [`Sessions::end`]: sessions::Sessions::end
//! [`CONFIRMED_FOR`]: sessions::CONFIRMED_FOR

mod background;
pub(crate) mod budget;
pub(crate) mod cache;
pub(crate) mod database;
pub(crate) mod flight;
pub(crate) mod id;
pub(crate) mod middleware;
pub(crate) mod next;
pub(crate) mod postgres;
pub(crate) mod record;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod sqlite;

pub(crate) use sessions::{SessionError, Sessions};

#[cfg(test)]
mod tests;
