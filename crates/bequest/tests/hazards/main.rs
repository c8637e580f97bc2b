//! The ways in which a tree like this one goes wrong, each with a test that goes there on purpose.
//!
//! | hazard | where |
//! |---|---|
//! | derive and cancel: a child is lost | `promises/complete.rs`, `loom.rs`; after the lists were split: `races` |
//! | a missed wake-up | `promises/quick.rs`, `loom.rs` |
//! | foreign code under a lock: wakers, callbacks, values, causes that re-enter | `promises/foreign.rs`; in numbers, in a burst of deadlines, at a thread's end: `foreign` |
//! | the last touch: a waiter, a node, a guard that is freed while it is told | `races` |
//! | canceller and dropper of the same child: who frees it | `races` |
//! | relays: nodes without handles, with live children | `promises/leaks.rs`; freed from below while cancelled from above: `races` |
//! | depth: drop and cancel recurse | `depth` |
//! | cycles: a callback that holds its context, a value that does | `promises/leaks.rs` |
//! | a holder of a lock that is preempted | `holder` (Linux) |
//! | cancel and cancel: one returns early | `promises/complete.rs`, `loom.rs` |
//! | a count of handles that overflows | `overflow` (by `ci/soak.sh`: it takes a while) |
//! | an armed timer that keeps its context | `promises/leaks.rs` |
//! | a million under an immortal parent; memory from one thread freed on another | `budget.rs` |
//!
//! Most of these need an unlucky instant, so they are tried many times; under the address sanitizer
//! (`ci/sanitize.sh`) a touch too late is seen even if nothing comes of it.

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/poll.rs"]
mod poll;

mod depth;
mod foreign;
#[cfg(target_os = "linux")]
mod holder;
mod overflow;
mod races;
