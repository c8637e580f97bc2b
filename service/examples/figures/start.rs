//! The start, and what an idle service holds.

use std::ffi::OsString;
use std::time::Instant;

use crate::support::instance::Instance;
use crate::{Row, Spans};

const STARTS: usize = 20;

pub(crate) fn up(binary: &OsString) -> Vec<Row> {
    let (mut printed, mut ready) = (Spans::default(), Spans::default());
    let mut resident = String::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let service = Instance::start(binary, &[]);
        printed.add(begun.elapsed());
        service.event("ready");
        ready.add(begun.elapsed());
        resident = resident_memory(service.pid());
    }
    let row = |what, ours| Row(what, ours, "-".into());
    vec![
        row(
            "start: to the first line (20 starts, each with an empty data folder)",
            printed.summary(),
        ),
        row("start: to ready, with the search index built", ready.summary()),
        row("resident memory, idle", resident),
    ]
}

/// What Linux says of it.
fn resident_memory(pid: u32) -> String {
    format!("{:.1} MiB", resident_mebibytes(pid))
}

/// The same as a number; none (NaN) on other systems.
pub(crate) fn resident_mebibytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    kilobytes.map_or(f64::NAN, |size| size / 1024.0)
}
