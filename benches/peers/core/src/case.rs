//! A case: one workload on one peer, and how its time is taken.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::clock::{Others, cpu};

/// What a case is made of. Setting up happens where it is made, outside the measured time.
pub enum Case {
    /// Does the operation so many times; CPU time of the process, per operation.
    Cpu(Box<dyn FnMut(u64)>),
    /// Does the operation so many times on each of two threads; wall time per operation and thread.
    Threads(Arc<dyn Fn(u64) + Send + Sync>),
    /// Sets up, measures, tears down; nanoseconds of CPU and operations of one round.
    Rounds(Box<dyn FnMut() -> (f64, u64)>),
    /// One latency, in nanoseconds of the wall. The median counts.
    Latency(Box<dyn FnMut() -> f64>),
}

/// What one sample came to.
pub struct Sample {
    pub nanoseconds: f64,
    /// The share of the machine that others had, where wall time was taken.
    pub others: Option<f64>,
}

/// At least this long is measured.
const SPAN: f64 = 150e6;
/// A case that prepares for long stops after this, if it has been measured a few times.
const PATIENCE: Duration = Duration::from_secs(4);

impl Case {
    pub fn cpu(work: impl FnMut(u64) + 'static) -> Option<Case> {
        Some(Case::Cpu(Box::new(work)))
    }

    pub fn threads(work: impl Fn(u64) + Send + Sync + 'static) -> Option<Case> {
        Some(Case::Threads(Arc::new(work)))
    }

    pub fn rounds(work: impl FnMut() -> (f64, u64) + 'static) -> Option<Case> {
        Some(Case::Rounds(Box::new(work)))
    }

    pub fn latency(work: impl FnMut() -> f64 + 'static) -> Option<Case> {
        Some(Case::Latency(Box::new(work)))
    }

    /// Calibrates, warms up by that, and measures once.
    pub fn sample(self) -> Sample {
        match self {
            Case::Cpu(mut work) => {
                let mut timed = |count| {
                    let began = cpu();
                    work(count);
                    cpu() - began
                };
                let count = calibrate(&mut timed);
                Sample {
                    nanoseconds: timed(count) / count as f64,
                    others: None,
                }
            }
            Case::Threads(work) => {
                let mut timed = |count| on_two_threads(&work, count);
                let count = calibrate(&mut timed);
                let others = Others::watch();
                let nanoseconds = timed(count) / count as f64;
                Sample {
                    nanoseconds,
                    others: Some(others.share()),
                }
            }
            Case::Rounds(work) => Sample {
                nanoseconds: rounds(work),
                others: None,
            },
            Case::Latency(work) => {
                let others = Others::watch();
                let nanoseconds = latency(work);
                Sample {
                    nanoseconds,
                    others: Some(others.share()),
                }
            }
        }
    }

    /// Does the operation exactly `count` times, unmeasured: for a count of instructions.
    pub fn repeat(self, count: u64) {
        match self {
            Case::Cpu(mut work) => work(count),
            Case::Threads(work) => work(count),
            Case::Rounds(mut work) => (0..count).for_each(|_| _ = work()),
            Case::Latency(mut work) => (0..count).for_each(|_| _ = work()),
        }
    }
}

/// The count for which `timed` takes about [`SPAN`].
fn calibrate(timed: &mut dyn FnMut(u64) -> f64) -> u64 {
    let mut count = 16;
    loop {
        let took = timed(count);
        if took >= SPAN / 10.0 {
            return (count as f64 * SPAN / took * 1.05) as u64 + 1;
        }
        count *= if took < SPAN / 100.0 { 8 } else { 2 };
    }
}

fn on_two_threads(work: &Arc<dyn Fn(u64) + Send + Sync>, count: u64) -> f64 {
    let start = Barrier::new(3);
    std::thread::scope(|threads| {
        let running = [(); 2].map(|()| {
            threads.spawn(|| {
                start.wait();
                work(count);
            })
        });
        start.wait();
        let began = Instant::now();
        for thread in running {
            thread.join().expect("the workload does not panic");
        }
        began.elapsed().as_nanos() as f64
    })
}

fn rounds(mut work: Box<dyn FnMut() -> (f64, u64)>) -> f64 {
    work();
    let began = Instant::now();
    let (mut time, mut count, mut done) = (0.0, 0, 0);
    while time < SPAN && (done < 3 || began.elapsed() < PATIENCE) {
        let (took, operations) = work();
        time += took;
        count += operations;
        done += 1;
    }
    time / count as f64
}

fn latency(mut work: Box<dyn FnMut() -> f64>) -> f64 {
    for _ in 0..20 {
        work();
    }
    let began = Instant::now();
    let mut seen = Vec::new();
    while began.elapsed().as_nanos() < 2 * SPAN as u128 || seen.len() < 15 {
        seen.push(work());
    }
    seen.sort_by(f64::total_cmp);
    seen[seen.len() / 2]
}
