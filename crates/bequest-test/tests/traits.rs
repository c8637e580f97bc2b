//! What may be sent, shared and printed: a table that fails to compile when it is no longer true.

use std::fmt::Debug;

use bequest_test::{Bubble, Clock, Headers, Leak, Left, Recorder, Task, TestContext, Touch, WakeCounter};

fn cloned<T: Send + Sync + Debug + Clone>() {}
fn sent<T: Send + Debug>() {}
fn printed<T: Debug>() {}

#[test]
fn the_types() {
    cloned::<Clock>();
    cloned::<Headers>();
    cloned::<Recorder>();
    cloned::<Touch>();
    cloned::<WakeCounter>();
    sent::<Leak>();
    sent::<Left>();
    sent::<Task<std::future::Ready<()>>>();
    // These belong to one thread: the test's.
    printed::<Bubble>();
    printed::<TestContext>();
}

#[cfg(feature = "http")]
#[test]
fn exchanges() {
    sent::<bequest_test::http::Exchange<()>>();
    sent::<bequest_test::http::Answer>();
    sent::<bequest_test::http::Ending>();
}

#[cfg(all(feature = "servers", unix))]
#[test]
fn servers() {
    use bequest_test::servers::{Postgres, Redis, RedisCluster};

    sent::<Postgres>();
    sent::<Redis>();
    sent::<RedisCluster>();
}
