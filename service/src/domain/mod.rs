//! What the service does, in its own terms.
//!
//! Nothing here knows of HTTP, SQL or sockets: the one import is `bequest`. That is the claim the whole design rests on:
//! a domain that takes a `&Context` stops when its caller leaves, whoever the caller is.

pub(crate) mod budget;
pub(crate) mod duration;
pub(crate) mod fetch;
pub(crate) mod session;
pub(crate) mod userip;
