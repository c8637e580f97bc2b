//! W7: typed values. What is looked up is the oldest of so many entries of distinct types.

use std::hint::black_box;

use crate::case::Case;

/// A value of a type of its own.
#[derive(Clone, Copy)]
pub struct Typed<const N: usize>(#[allow(dead_code, reason = "held, as a value is")] pub u64);

/// Something that holds values by type, shared as it grows.
pub trait Store: Clone + 'static {
    fn empty() -> Self;
    /// This and one more.
    fn with<const N: usize>(&self) -> Self;
    fn get<const N: usize>(&self) -> bool;
}

/// Not in any store.
const MISSING: usize = 126;
/// What is added to a filled store.
const NEW: usize = 127;
/// As many as there are adders.
const MOST: usize = 100;

pub fn case<S: Store>(name: &str) -> Option<Case> {
    let (what, depth) = name.strip_prefix("w7_")?.split_once('_')?;
    let depth: usize = depth.parse().ok()?;
    let store = filled::<S>(depth);
    match what {
        "hit" => Case::cpu(move |count| {
            for _ in 0..count {
                assert!(black_box(black_box(&store).get::<0>()));
            }
        }),
        "miss" => Case::cpu(move |count| {
            for _ in 0..count {
                assert!(!black_box(black_box(&store).get::<MISSING>()));
            }
        }),
        "derive" => Case::cpu(move |count| {
            for _ in 0..count {
                black_box(black_box(&store).with::<NEW>());
            }
        }),
        // So that what is done at every so many entries is paid for, wherever it falls.
        "ladder" => Case::cpu(move |count| {
            for _ in 0..count.div_ceil(8) {
                let one = black_box(&store).with::<120>();
                let two = one.with::<121>();
                let three = two.with::<122>();
                let four = three.with::<123>();
                let five = four.with::<124>();
                let six = five.with::<125>();
                let seven = six.with::<118>();
                black_box(seven.with::<119>());
            }
        }),
        "both" => match depth {
            1 => both::<S, 0, 0, 0, 0, 0>(store),
            5 => both::<S, 0, 1, 2, 3, 4>(store),
            8 => both::<S, 0, 2, 4, 6, 7>(store),
            20 => both::<S, 0, 5, 10, 15, 19>(store),
            100 => both::<S, 0, 25, 50, 75, 99>(store),
            _ => None,
        },
        _ => None,
    }
}

/// One entry more, and five look-ups, from the oldest to the newest.
fn both<S: Store, const A: usize, const B: usize, const C: usize, const D: usize, const E: usize>(
    store: S,
) -> Option<Case> {
    Case::cpu(move |count| {
        for _ in 0..count {
            let derived = black_box(&store).with::<NEW>();
            let seen = black_box(&derived);
            assert!(seen.get::<A>() & seen.get::<B>() & seen.get::<C>() & seen.get::<D>() & seen.get::<E>());
        }
    })
}

fn filled<S: Store>(depth: usize) -> S {
    let adders = adders::<S>();
    adders[..depth].iter().fold(S::empty(), |store, add| add(&store))
}

macro_rules! adders {
    ($($number:literal)*) => {
        fn adders<S: Store>() -> [fn(&S) -> S; MOST] {
            [$(S::with::<$number>),*]
        }
    };
}

adders! {
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
    40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77
    78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99
}
