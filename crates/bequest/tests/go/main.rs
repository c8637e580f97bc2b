//! Go's context, behaviour by behaviour: rows C1 to C49, under their numbers.
//!
//! `README.md` beside this file lists every row: where it is tested, and where we differ and why. Rows that need
//! tokio are in `tokio.rs`, rows about allocations in `../budget.rs`.

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/drops.rs"]
mod drops;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/random.rs"]
mod random;

mod causes;
mod deadlines;
mod derivation;
mod values;
