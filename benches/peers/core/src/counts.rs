//! Instructions per operation, counted by callgrind: they repeat within a few where times spread by a quarter.
//!
//! What setting up costs is taken off by counting twice, with many operations and with few.

use std::process::Command;

use crate::Result;
use crate::peer::OURS;

/// Case, the peer counted in the same run, and the least ratio of its count to ours.
const GUARDS: [(&str, &str, &str, f64); 4] = [
    ("w1", "w1", "tokio-util", 3.9),
    ("w3_armed", "w3_armed", "tokio-util", 3.8),
    ("w9", "w9", "tokio-util", 3.9),
    ("w10_3poll", "w10_3poll", "tokio-util", 2.9),
];
const FEW: u64 = 500;
const MANY: u64 = 3_500;

pub fn run() -> Result<()> {
    println!("| workload | ours | peer | its count | ratio | bar | |");
    println!("|---|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (ours, theirs, peer, bar) in GUARDS {
        let (own, other) = (per_operation(OURS, ours)?, per_operation(peer, theirs)?);
        let ratio = other / own;
        let verdict = if ratio >= bar { "met" } else { "missed" };
        println!("| {ours} | {own:.0} | {peer} | {other:.0} | {ratio:.2} | {bar} | {verdict} |");
        if ratio < bar {
            missed.push(ours);
        }
    }
    let is_guard = std::env::var_os("CI").is_some();
    match missed.is_empty() || !is_guard {
        true => Ok(()),
        false => Err(format!("below the bar: {}", missed.join(", ")).into()),
    }
}

fn per_operation(peer: &str, case: &str) -> Result<f64> {
    let (few, many) = (counted(peer, case, FEW)?, counted(peer, case, MANY)?);
    Ok((many - few) / (MANY - FEW) as f64)
}

fn counted(peer: &str, case: &str, count: u64) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["repeat", peer, case, &count.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind says nothing of {peer} {case}: {told}").into())
}
