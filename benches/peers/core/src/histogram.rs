//! From a cancel to the run of the task that waits for it, on a runtime that is busy: a histogram, drawn as SVG.
//!
//! Two worker threads are kept busy by tasks that each derive, check and drop under one shared root, as requests do,
//! and let others run. A thread beside them cancels a node on which one task waits, again and again. Peers take turns.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Result;
use crate::peer::{Bequest, OURS, Token};
use crate::wakes::{Waited, two_threads};

/// Busy tasks beside the one that waits.
const BUSY: usize = 16;
/// What a busy task derives and drops before it lets others run.
const DERIVED: usize = 20;
const TURNS: usize = 20;
const EACH_TURN: usize = 500;

/// Measures, writes the picture to `path`, and prints the quantiles.
pub fn run(path: &str) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        // Who comes first alternates too.
        if turn % 2 == 0 {
            ours.extend(latencies::<Bequest>());
            theirs.extend(latencies::<Token>());
        } else {
            theirs.extend(latencies::<Token>());
            ours.extend(latencies::<Bequest>());
        }
    }
    let series = [
        (OURS, "#b4451f", sorted(ours)),
        ("tokio-util", "#3b6ea5", sorted(theirs)),
    ];
    println!("| cancel to wake, {BUSY} busy tasks on 2 threads | p50 | p90 | p99 | p99.9 | largest |");
    println!("|---|---|---|---|---|---|");
    for (name, _, seen) in &series {
        let at = |part| micros(quantile(seen, part));
        println!(
            "| {name}, {} wakes | {} | {} | {} | {} | {} |",
            seen.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    std::fs::write(path, draw(&series))?;
    Ok(())
}

/// Nanoseconds from cancel to run, one for each wake.
fn latencies<T: Waited>() -> Vec<u64> {
    let runtime = two_threads();
    let over = Arc::new(AtomicBool::new(false));
    let root = Arc::new(T::root());
    for _ in 0..BUSY {
        let (root, over) = (Arc::clone(&root), Arc::clone(&over));
        runtime.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                for _ in 0..DERIVED {
                    let child = root.child();
                    assert!(!child.is_cancelled());
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let seen = (0..EACH_TURN).map(|_| one::<T>(&runtime, &root)).collect();
    over.store(true, Ordering::Relaxed);
    seen
}

fn one<T: Waited>(runtime: &Runtime, root: &T) -> u64 {
    let node = root.child();
    let origin = Instant::now();
    let waiting = Arc::new(AtomicBool::new(false));
    let ran = Arc::new(AtomicU64::new(0));
    let task = runtime.spawn({
        let (handle, waiting, ran) = (node.handle(), Arc::clone(&waiting), Arc::clone(&ran));
        async move {
            waiting.store(true, Ordering::Release);
            T::wait(handle).await;
            ran.store(origin.elapsed().as_nanos() as u64, Ordering::Release);
        }
    });
    while !waiting.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    // It has begun; that it has also registered by then is all but sure.
    std::thread::sleep(Duration::from_micros(100));
    let began = origin.elapsed().as_nanos() as u64;
    node.cancel();
    runtime.block_on(task).expect("the waiter does not panic");
    ran.load(Ordering::Acquire).saturating_sub(began)
}

fn sorted(mut seen: Vec<u64>) -> Vec<u64> {
    seen.sort_unstable();
    seen
}

fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn micros(nanoseconds: u64) -> String {
    match nanoseconds as f64 / 1e3 {
        micros if micros < 10.0 => format!("{micros:.1} µs"),
        micros if micros < 1e3 => format!("{micros:.0} µs"),
        micros => format!("{:.1} ms", micros / 1e3),
    }
}

/// Columns to each tenfold, from a microsecond to ten milliseconds.
const FINE: usize = 16;
const TENFOLDS: usize = 4;
const COLUMNS: usize = FINE * TENFOLDS;
const LEFT: f64 = 56.0;
const TOP: f64 = 56.0;
const WIDE: f64 = 640.0;
const HIGH: f64 = 240.0;

fn column(nanoseconds: u64) -> usize {
    let at = (nanoseconds.max(1) as f64 / 1e3).log10() * FINE as f64;
    (at.max(0.0) as usize).min(COLUMNS - 1)
}

fn draw(series: &[(&str, &str, Vec<u64>)]) -> String {
    let shares: Vec<Vec<f64>> = series
        .iter()
        .map(|(_, _, seen)| {
            let mut shares = vec![0.0; COLUMNS];
            seen.iter()
                .for_each(|&each| shares[column(each)] += 100.0 / seen.len() as f64);
            shares
        })
        .collect();
    let most = shares
        .iter()
        .flatten()
        .fold(1.0_f64, |most, &share| most.max(share));
    let x = |place: f64| LEFT + WIDE * place / COLUMNS as f64;
    let y = |share: f64| TOP + HIGH * (1.0 - share / most);

    let mut svg = String::new();
    let mut add = |line: String| svg.push_str(&(line + "\n"));
    add(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="12">"#,
        LEFT + WIDE + 24.0,
        TOP + HIGH + 48.0
    ));
    add(r##"<rect width="100%" height="100%" fill="#ffffff"/>"##.into());
    add(format!(
        r#"<text x="{LEFT}" y="20" font-size="14">From cancel to the run of the waiting task, {BUSY} busy tasks on 2 threads</text>"#
    ));
    for (row, (name, colour, seen)) in series.iter().enumerate() {
        let left = LEFT + row as f64 * 330.0;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| micros(quantile(seen, part)));
        add(format!(
            r#"<text x="{left}" y="40" fill="{colour}">{name}: p50 {p50}, p99 {p99}, p99.9 {p999}</text>"#
        ));
    }
    for (tenfold, label) in ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms"].iter().enumerate() {
        let at = x((tenfold * FINE) as f64);
        add(format!(
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{}" stroke="#dddddd"/><text x="{at:.1}" y="{}" text-anchor="middle">{label}</text>"##,
            TOP + HIGH,
            TOP + HIGH + 18.0
        ));
    }
    add(format!(
        r#"<text x="{}" y="{}" text-anchor="end">{most:.0} %</text><text x="{}" y="{}" text-anchor="end">0</text>"#,
        LEFT - 6.0,
        TOP + 4.0,
        LEFT - 6.0,
        TOP + HIGH
    ));
    for ((_, colour, _), shares) in series.iter().zip(&shares) {
        let mut path = format!("M {:.1} {:.1}", x(0.0), y(0.0));
        for (place, share) in shares.iter().enumerate() {
            let (from, to) = (x(place as f64), x(place as f64 + 1.0));
            write!(path, " L {from:.1} {:.1} L {to:.1} {:.1}", y(*share), y(*share))
                .expect("a string takes it");
        }
        write!(path, " L {:.1} {:.1} Z", x(COLUMNS as f64), y(0.0)).expect("a string takes it");
        add(format!(
            r#"<path d="{path}" fill="{colour}" fill-opacity="0.18" stroke="{colour}" stroke-width="1.5"/>"#
        ));
    }
    add("</svg>".into());
    svg
}
