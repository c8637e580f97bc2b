//! W8: the heap that each of a million live things takes, chunk rounding and the parent's bookkeeping included.
//!
//! A program of its own, since counting allocations costs time. `measure PEER CASE` prints the bytes of each.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use peers_core::peer::{Bequest, Map, Otel, Stopper, Token, Values};
use peers_core::tree::{HALF_A_MINUTE, Timed, Tree};
use peers_core::values::Store;

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// What a chunk takes of the heap: what the allocator made of the size, and its header.
fn chunk(memory: *mut u8) -> usize {
    const HEADER: usize = size_of::<usize>();
    // SAFETY: the memory is the system allocator's, and alive.
    HEADER + unsafe { libc::malloc_usable_size(memory.cast()) }
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            BYTES.fetch_add(chunk(memory), Ordering::Relaxed);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(chunk(memory), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIVE: usize = 1_000_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = match words.as_slice() {
        ["measure", "bequest", case] => tree_bytes::<Bequest>(case)
            .or_else(|| timeout_bytes::<Bequest>(case))
            .or_else(|| value_bytes::<Values>(case)),
        ["measure", "tokio-util", case] => tree_bytes::<Token>(case).or_else(|| timeout_bytes::<Token>(case)),
        ["measure", "almost-enough", case] => tree_bytes::<Stopper>(case),
        ["measure", "opentelemetry", case] => value_bytes::<Otel>(case),
        ["measure", "http", case] => value_bytes::<Map>(case),
        _ => None,
    };
    match bytes {
        Some(bytes) => println!("{bytes:.2} -"),
        None => {
            eprintln!("no such case: {}", words.join(" "));
            std::process::exit(1);
        }
    }
    // At once: taking a million things apart says nothing.
    std::process::exit(0);
}

fn tree_bytes<T: Tree>(case: &str) -> Option<f64> {
    let parent = T::root();
    (case == "w8_child").then(|| each(|| parent.child()))
}

fn timeout_bytes<T: Timed>(case: &str) -> Option<f64> {
    (case == "w8_timeout").then(|| {
        let (driver, parent) = (T::driver(1), T::root());
        // What is made once is made before.
        let first = parent.keep_limited(HALF_A_MINUTE);
        let bytes = each(|| parent.keep_limited(HALF_A_MINUTE));
        black_box((driver, first));
        bytes
    })
}

fn value_bytes<S: Store>(case: &str) -> Option<f64> {
    let empty = S::empty();
    (case == "w8_value").then(|| each(|| empty.with::<0>()))
}

/// The place that holds them is made before, for every peer alike.
fn each<T>(make: impl Fn() -> T) -> f64 {
    let mut kept = Vec::with_capacity(LIVE);
    let before = BYTES.load(Ordering::Relaxed);
    kept.extend((0..LIVE).map(|_| make()));
    let grown = BYTES.load(Ordering::Relaxed) - before;
    std::mem::forget(black_box(kept));
    grown as f64 / LIVE as f64
}
