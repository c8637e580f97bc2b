//! Measures the service against real clients, each figure beside the naive way, and prints a table in Markdown.
//!
//! `ci/figures.sh` runs it on a release build. It asserts nothing about time; it only tells. The path of the binary is
//! its argument.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

mod follow;
mod naive;
mod report;
mod shutdown;
mod start;
mod store;
#[allow(dead_code, reason = "shared with the tests, and each user takes a part of it")]
#[path = "../../tests/service/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

/// One line of the table: what, ours, the naive way.
struct Row(&'static str, String, String);

fn main() -> ExitCode {
    let Some(binary) = std::env::args_os().nth(1) else {
        eprintln!("usage: figures BINARY");
        return ExitCode::FAILURE;
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("Measured on {cores} cores, over loopback, one run.\n");
    println!("| what | bequest | the naive way |\n|---|---|---|");
    for measure in [
        store::leaving,
        store::around_the_write,
        report::leaving,
        shutdown::open,
        shutdown::idle,
        shutdown::twice,
        start::up,
        follow::live,
    ] {
        for Row(what, ours, naive) in measure(&binary) {
            println!("| {what} | {ours} | {naive} |");
        }
    }
    ExitCode::SUCCESS
}

/// Spans that were measured, to be summed up.
#[derive(Default)]
struct Spans(Vec<Duration>);

impl Spans {
    fn add(&mut self, span: Duration) {
        self.0.push(span);
        self.0.sort();
    }

    /// The span that this share of the spans do not exceed.
    fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    fn summary(&self) -> String {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| millis(self.quantile(share)));
        format!("p50 {p50}, p99 {p99}, max {max}")
    }
}

fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

fn from_millis(value: &serde_json::Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().expect("a number of milliseconds") / 1e3)
}

/// Instants to leave at: the same ones in every run, and spread as chance would spread them (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        most.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
    }
}
