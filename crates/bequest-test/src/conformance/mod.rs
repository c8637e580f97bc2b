//! What every integration of a store must pass: one suite over a few small traits.
//!
//! A store's tests implement [`Store`], and of the other traits those that fit it: [`Pooled`], [`Transactional`],
//! [`LongTransactions`], [`Streaming`], [`Hosted`]. Then one line makes a test of each clause:
//!
//! ```text
//! bequest_test::conformance! { Sqlite: base, pool, transactions, long_transactions, rows }
//! ```
//!
//! A trait that is left out is a promise that is not made, and it shows: its tests are not in the list. Each test
//! opens a store of its own with **one** connection, so that who uses it next is certain.
//!
//! | ability | trait | the clauses |
//! |---|---|---|
//! | `base` | [`Store`] | ended before, deadline in the past; running: cancelled, at the deadline, dropped; a crowd that leaves at once; ended at each await |
//! | `pool` | [`Pooled`] | waiting for a connection: cancelled, at the deadline, dropped |
//! | `transactions` | [`Transactional`] | ended at the commit; ended at each await of write and commit |
//! | `long_transactions` | [`LongTransactions`] | in a transaction: cancelled, dropped |
//! | `rows` | [`Streaming`] | reading: cancelled, dropped |
//! | `server` | [`Hosted`] | frozen, killed and restarted |
//!
//! # After each clause
//!
//! 1. Nothing of the call runs any more, as the store's own side sees it.
//! 2. The pool is whole and every connection clean, as [`Store::whole`] finds.
//! 3. The next user is served.
//!
//! All three are waited for as conditions; whatever takes longer than [`Store::PATIENCE`] fails.
//!
//! # What it does not show
//!
//! How soon anything ends: that is a figure, and belongs to a benchmark. A cancel that meets the end of a statement by
//! a hair: that takes thousands of tries, and is a race test of each store's own.

mod base;
mod pool;
mod rows;
mod server;
mod store;
mod transactions;
mod wait;

pub use self::base::{
    a_crowd_leaves_at_once, deadline_in_the_past, ended_at_each_await, ended_at_each_await_of_a_slow_call,
    ended_before, running_and_cancelled, running_and_dropped, running_at_the_deadline,
};
pub use self::pool::{waiting_and_cancelled, waiting_and_dropped, waiting_at_the_deadline};
pub use self::rows::{reading_and_cancelled, reading_and_dropped};
pub use self::server::{frozen, killed_and_restarted};
pub use self::store::{Hosted, LongTransactions, Pooled, Store, Streaming, Transactional};
pub use self::transactions::{
    in_a_transaction_and_cancelled, in_a_transaction_and_dropped, transaction_ended_at_each_await,
    transaction_ended_at_the_commit,
};

/// Makes a `#[tokio::test]` of each clause, for a store and its abilities: see [the module](mod@crate::conformance).
///
/// The crate that uses it needs `tokio` with `macros` and `rt`.
#[macro_export]
macro_rules! conformance {
    ($store:ty: $($ability:ident),+ $(,)?) => {
        $($crate::conformance! { @ $ability $store })+
    };
    (@ base $store:ty) => {
        $crate::conformance! { @@ $store: ended_before, deadline_in_the_past, running_and_cancelled,
            running_at_the_deadline, running_and_dropped, a_crowd_leaves_at_once, ended_at_each_await,
            ended_at_each_await_of_a_slow_call }
    };
    (@ pool $store:ty) => {
        $crate::conformance! { @@ $store: waiting_and_cancelled, waiting_at_the_deadline, waiting_and_dropped }
    };
    (@ transactions $store:ty) => {
        $crate::conformance! { @@ $store: transaction_ended_at_the_commit, transaction_ended_at_each_await }
    };
    (@ long_transactions $store:ty) => {
        $crate::conformance! { @@ $store: in_a_transaction_and_cancelled, in_a_transaction_and_dropped }
    };
    (@ rows $store:ty) => {
        $crate::conformance! { @@ $store: reading_and_cancelled, reading_and_dropped }
    };
    (@ server $store:ty) => {
        $crate::conformance! { @@ $store: frozen, killed_and_restarted }
    };
    (@@ $store:ty: $($clause:ident),+) => {
        $(
            #[tokio::test]
            async fn $clause() {
                let Some(store) = <$store as $crate::conformance::Store>::open().await else { return };
                $crate::conformance::$clause(&store).await;
            }
        )+
    };
}
