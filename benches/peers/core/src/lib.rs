//! Workloads, peers and goals of the core's benchmark; `ci/bench.sh core` runs them.
//!
//! A *case* is one workload on one peer. `tree`, `values`, `wakes` and `awaits` hold the workloads, the same code for
//! every peer that can do them; `peer` holds what differs. `goals` says what is to come out, `table` measures and prints.

pub mod awaits;
pub mod case;
pub mod clock;
pub mod counts;
pub mod goals;
pub mod histogram;
pub mod peer;
pub mod table;
pub mod tree;
pub mod values;
pub mod wakes;

/// The answer of everything that may go wrong.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
