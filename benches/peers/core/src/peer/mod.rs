//! The peers, by name; what each of them cannot do, it does not answer to.

mod almost_enough;
mod bequest;
mod http;
mod opentelemetry;
mod tokio;

pub use self::almost_enough::Stopper;
pub use self::bequest::{Bequest, Values};
pub use self::http::Map;
pub use self::opentelemetry::Otel;
pub use self::tokio::Token;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::awaits::{Polls, awaits, polls};
use crate::case::Case;

/// Ours.
pub const OURS: &str = "bequest";
/// The Go program, which is a process of its own.
pub const GO: &str = "go";

/// The case `name` on `peer`, if there is such a thing.
pub fn case(peer: &str, name: &str) -> Option<Case> {
    match peer {
        OURS => bequest::case(name),
        "tokio-util" => tokio::case(name),
        "select" | "select-biased" | "tokio-timeout" | "timeout-run" => tokio::awaiting(peer, name),
        "almost-enough" => crate::tree::case::<Stopper>(name),
        "opentelemetry" => crate::values::case::<Otel>(name),
        "http" => crate::values::case::<Map>(name),
        "bare" => bare(name),
        _ => None,
    }
}

/// What the machine takes without anybody's help.
fn bare(name: &str) -> Option<Case> {
    match name {
        "w4_d1" => {
            let flag = Box::new(AtomicBool::new(false));
            Case::cpu(move |count| {
                for _ in 0..count {
                    black_box(black_box(&flag).load(Ordering::Acquire));
                }
            })
        }
        "w10_ready" | "w10_3poll" => {
            let count = polls(name)?;
            awaits(move || Polls(count))
        }
        _ => None,
    }
}
