//! The web search: a client of a back end, and the back end that is built in.
//!
//! The two speak HTTP on loopback even when they are one process, so that the embedded one can be replaced by
//! `--search URL`: the schema is in `docs/search-backend.md`.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod corpus;

/// One result: what it is called and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) title: String,
    pub(crate) url: String,
}
