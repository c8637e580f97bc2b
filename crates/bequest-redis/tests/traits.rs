//! What may be sent, shared and printed: a table that fails to compile when it is no longer true.

use std::fmt::Debug;

use bequest::Context;
use bequest_redis::{Blocking, Client, Error, Options, Orphan, Statistics, Step, Subscription, redis};

fn shared<T: Send + Sync + Debug>() {}
fn cloned<T: Send + Sync + Debug + Clone>() {}
fn sent<T: Send + Debug>() {}
fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_types() {
    cloned::<Client>();
    cloned::<Options>();
    cloned::<Orphan>();
    cloned::<Statistics>();
    cloned::<Blocking>();
    cloned::<Step>();
    shared::<Error>();
    sent::<Subscription>();
}

#[test]
fn calls_can_be_spawned() {
    // Named, so that it is checked; not run.
    let _ = |client: Client, ctx: Context| {
        sendable(async move { client.cmd::<String>(&ctx, redis::cmd("GET").arg("name")).await })
    };
}
