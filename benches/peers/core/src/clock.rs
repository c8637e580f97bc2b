//! Time: of the process, of the wall, and how much of the machine others had meanwhile.

use std::time::Instant;

/// CPU time of this process, all threads together, in nanoseconds.
pub fn cpu() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a `timespec` of this frame.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(code, 0, "the process's clock can be read");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Watches what share of the machine other processes take.
pub struct Others {
    began: Instant,
    own: f64,
    busy: f64,
}

impl Others {
    pub fn watch() -> Others {
        Others {
            began: Instant::now(),
            own: cpu(),
            busy: busy(),
        }
    }

    /// The share of all cores that others had since `watch`, 0 to 1.
    pub fn share(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
        let span = self.began.elapsed().as_nanos() as f64 * cores;
        let others = (busy() - self.busy) - (cpu() - self.own);
        (others / span).max(0.0)
    }
}

/// What all cores together have spent on something, in nanoseconds, as the kernel counts it (in ticks of 10 ms).
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let counted = [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| ticks.get(field));
    counted.sum::<f64>() * 1e7
}
