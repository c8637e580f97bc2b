//! Eight threads do at random what can be done to contexts, and between rounds it is checked that nothing was lost,
//! told twice or leaked.
//!
//! Without the test harness: it counts the armed deadlines of the whole process. By itself it runs for a few seconds;
//! `BEQUEST_SOAK_SECONDS` says for how long (`ci/soak.sh`: a minute), `BEQUEST_TEST_SEED` with what seed it begins. A
//! failure names the seed of its round; threads interleave as they like, so it may take several runs to come again.

#![allow(
    clippy::print_stdout,
    reason = "a program without a harness says itself what it did"
)]

#[path = "../support/drops.rs"]
mod drops;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/random.rs"]
mod random;

mod records;
mod storm;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use storm::{Fault, Storm};

const THREADS: usize = 8;
/// Of each thread, in each round.
const STEPS: usize = 4_000;
/// What `cargo test` runs.
const A_WHILE: u64 = 3;

fn main() {
    let span = Duration::from_secs(number("BEQUEST_SOAK_SECONDS").unwrap_or(A_WHILE));
    let mut seed = number("BEQUEST_TEST_SEED").unwrap_or_else(some_seed);
    println!(
        "soak: {THREADS} threads for {} s, from seed {seed}",
        span.as_secs()
    );
    controls();

    let (began, mut rounds, mut steps) = (Instant::now(), 0_u64, 0_u64);
    while rounds == 0 || began.elapsed() < span {
        let outcome = catch_unwind(AssertUnwindSafe(|| Storm::new(seed, THREADS).round(STEPS, None)));
        match outcome {
            Ok(done) => steps += done,
            Err(_) => {
                eprintln!("soak: failed in round {rounds}, seed {seed}");
                std::process::exit(1);
            }
        }
        rounds += 1;
        seed += 1;
    }
    println!(
        "soak: {steps} operations in {rounds} rounds, {} s; nothing lost, told twice or leaked",
        began.elapsed().as_secs()
    );
}

/// The same checks see each fault that is put in on purpose.
fn controls() {
    std::panic::set_hook(Box::new(|_| {}));
    for fault in [
        Fault::KeptScope,
        Fault::LostCallback,
        Fault::SecondCall,
        Fault::LostWake,
    ] {
        let outcome = catch_unwind(|| Storm::new(1, 2).round(500, Some(fault)));
        assert!(outcome.is_err(), "the control {fault:?} was not noticed");
    }
    drop(std::panic::take_hook());
    println!("soak: each of 4 faults put in on purpose was noticed");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

fn some_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 16
}
