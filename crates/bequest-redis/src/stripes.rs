//! What every call touches, several times over: one for each of a few threads, so that cores do not wait for each other's
//! cache lines. A call that moves to another thread may end on another stripe than it began on; nothing depends on it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const COUNT: usize = 8;

/// Several of one kind, each on cache lines of its own.
#[derive(Debug, Default)]
pub(crate) struct Stripes<T>([Apart<T>; COUNT]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// A count that many threads add to at once, and that is read seldom.
#[derive(Debug, Default)]
pub(crate) struct StripedCounter(Stripes<AtomicU64>);

impl<T> Stripes<T> {
    /// This thread's.
    pub(crate) fn mine(&self) -> &T {
        &self.0[place()].0
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

impl StripedCounter {
    /// Relaxed, as is reading: nothing is published by a count.
    pub(crate) fn add(&self) {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.all().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The place of this thread, the same for its whole life.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    PLACE.with(|place| {
        place.get().unwrap_or_else(|| {
            let drawn = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            place.set(Some(drawn));
            drawn
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_striped_count_is_whole() {
        let count = StripedCounter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * COUNT {
                scope.spawn(|| (0..100).for_each(|_| count.add()));
            }
        });
        assert_eq!(count.get(), 200 * COUNT as u64);
    }
}
