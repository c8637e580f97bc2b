//! What the crate's front page says may be relied on, promise by promise; numbers are those of `lib.rs`.
//!
//! Each module takes one promise and the ways in which a tree like ours goes wrong. `naive` holds the wrong ways
//! themselves, small: the controls in the modules show that the same checks catch them. Memory is counted in
//! `../budget.rs` and threads in `../threads.rs`, where nothing else runs.

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/drops.rs"]
mod drops;
#[path = "../support/poll.rs"]
mod poll;

mod complete;
mod deadlines;
mod foreign;
mod futures;
mod leaks;
mod naive;
mod quick;
mod traits;
mod why;
