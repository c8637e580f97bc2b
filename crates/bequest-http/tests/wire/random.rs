//! Random numbers from a seed that is printed, so that a failure can be repeated.

use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64: small, and good enough to choose inputs with.
pub(crate) struct Random(u64);

impl Random {
    /// From `BEQUEST_SEED`, or a new seed. It is printed, which the test harness shows if the test fails.
    #[expect(clippy::print_stdout, reason = "for whoever wants to repeat a failure")]
    pub(crate) fn new() -> Random {
        let seed = match std::env::var("BEQUEST_SEED") {
            Ok(seed) => seed.parse().expect("BEQUEST_SEED is a number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        println!("BEQUEST_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Up to `longest` bytes, mostly of `likely`.
    pub(crate) fn bytes(&mut self, longest: usize, likely: &[u8]) -> Vec<u8> {
        let length = self.below(longest + 1);
        (0..length)
            .map(|_| match self.below(16) {
                0 => self.next() as u8,
                _ => *self.one(likely),
            })
            .collect()
    }
}
