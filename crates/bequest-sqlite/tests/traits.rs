//! What may be sent, shared and printed: a table that fails to compile when it is no longer true.

use std::fmt::Debug;

use bequest_sqlite::{Database, Error, Lane, Options, Statistics, Step};

fn shared<T: Send + Sync + Debug>() {}
fn cloned<T: Send + Sync + Debug + Clone>() {}
fn sent<T: Send + Debug>() {}

/// That the calls can be spawned is in `queue.rs`.
#[test]
fn the_types() {
    cloned::<Database>();
    cloned::<Statistics>();
    cloned::<Lane>();
    cloned::<Step>();
    shared::<Error>();
    sent::<Options>();
}
