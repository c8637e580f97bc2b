//! What the process uses: memory, as the system and as the program sees it, and processor time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bequest_http::server::BoxError;

/// Memory in use.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Bytes that were allocated and not freed.
    pub(crate) heap: isize,
    /// The resident size of the process, in KiB.
    pub(crate) resident: u64,
}

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Bytes in use, each thread's share by itself: one number for all would be fought for at each allocation.
static LIVE: [Share; 64] = [const { Share(AtomicIsize::new(0)) }; 64];

#[repr(align(128))]
struct Share(AtomicIsize);

thread_local! {
    /// Which share is this thread's.
    static SHARE: Cell<Option<usize>> = const { Cell::new(None) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count(bytes: isize) {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let share = SHARE.get().unwrap_or_else(|| {
        let share = THREADS.fetch_add(1, Relaxed) % LIVE.len();
        SHARE.set(Some(share));
        share
    });
    LIVE[share].0.fetch_add(bytes, Relaxed);
}

impl Memory {
    pub(crate) fn now() -> Result<Memory, BoxError> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(Memory {
            heap: LIVE.iter().map(|share| share.0.load(Relaxed)).sum(),
            resident: line
                .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
                .ok_or("no resident size")?,
        })
    }
}

/// The processor time of all threads, by the scheduler's own account.
pub(crate) fn processor_time() -> Result<Duration, BoxError> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let schedule = fs::read_to_string(task?.path().join("schedstat"))?;
        let run = schedule.split(' ').next().ok_or("no account of the scheduler")?;
        nanos += run.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
