//! The core beside its peers, in fresh processes, interleaved and shuffled.
//!
//! Without a word it measures and prints the table of goals; `ci/bench.sh core` builds and runs it so. `measure PEER
//! CASE` is one sample, `counts` the instructions per operation by callgrind, `histogram FILE` the picture of cancel-to-wake.

use std::process::ExitCode;

use peers_core::{Result, counts, histogram, peer, table};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["measure", peer, name] => measure(peer, name),
        ["repeat", peer, name, count] => repeat(peer, name, count),
        ["counts"] => counts::run(),
        ["histogram", path] => histogram::run(path),
        options => table::run(options),
    };
    match outcome {
        // At once: what a workload has leaked, and the threads of runtimes, are not waited for.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One sample in this process: nanoseconds, and the share of the machine that others had, or `-`.
fn measure(peer: &str, name: &str) -> Result<()> {
    let case = peer::case(peer, name).ok_or_else(|| format!("{peer} has no {name}"))?;
    let sample = case.sample();
    let others = sample
        .others
        .map_or("-".to_string(), |share| format!("{share:.3}"));
    println!("{:.4} {others}", sample.nanoseconds);
    Ok(())
}

fn repeat(peer: &str, name: &str, count: &str) -> Result<()> {
    let case = peer::case(peer, name).ok_or_else(|| format!("{peer} has no {name}"))?;
    case.repeat(count.parse()?);
    Ok(())
}
