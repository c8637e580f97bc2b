//! Random families of contexts that share values, compared with maps that share nothing: lists, tables, shadows, and the
//! moment at which each value goes. A failure names the seed of its program.

#[path = "support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bequest::{Codec, Context, Key};

use random::Random;

const KEYS: usize = 90;

/// A value that is counted while it lives.
struct Counted {
    number: usize,
    live: Arc<AtomicUsize>,
    breaks: bool,
}

static KEY: [Key<Counted>; KEYS] = [const {
    Key::new("counted").crossing(Codec {
        encode: |value: &Counted| value.number.to_string(),
        decode: |_| None,
        limit: 20,
    })
}; KEYS];

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        assert!(!self.breaks, "asked to break");
    }
}

#[derive(Default)]
struct Family {
    live: Arc<AtomicUsize>,
    made: usize,
    /// Each with what should be found in it.
    members: Vec<(Context, Seen)>,
}

/// By key, the number of a value, which is also when it was put in.
type Seen = BTreeMap<usize, usize>;

impl Family {
    fn value(&mut self, breaks: bool) -> Counted {
        self.made += 1;
        self.live.fetch_add(1, Ordering::Relaxed);
        Counted {
            number: self.made,
            live: Arc::clone(&self.live),
            breaks,
        }
    }

    /// One member more, that has one value more than `parent`, under one of the first `keys`.
    fn derive(&mut self, parent: usize, key: usize) {
        let value = self.value(false);
        let (context, seen) = &self.members[parent];
        let mut seen = seen.clone();
        seen.insert(key, value.number);
        let context = context.with_value(&KEY[key], value);
        self.members.push((context, seen));
    }

    fn check(&self, member: usize) {
        let (context, seen) = &self.members[member];
        for (key, of) in KEY.iter().enumerate() {
            let found = context.value(of).map(|value| value.number);
            assert_eq!(found, seen.get(&key).copied(), "under key {key}");
        }
        let mut newest: Vec<_> = seen.values().collect();
        newest.sort_by_key(|number| std::cmp::Reverse(**number));
        let newest: Vec<_> = newest.iter().map(|number| number.to_string()).collect();
        let crossing: Vec<_> = context.crossing().into_iter().map(|(_, text)| text).collect();
        assert_eq!(crossing, newest, "newest first");
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

fn run(seed: u64) {
    let mut random = Random::seeded(seed);
    let mut family = Family::default();
    family.members.push((Context::background(), BTreeMap::new()));
    // Few keys make shadows, many make large tables.
    let keys = [2, 9, 30, KEYS][random.below(4)];
    for _ in 0..120 {
        let at = random.below(family.members.len());
        match random.below(10) {
            // A run of values upon one another, as a request gathers them.
            0..4 => {
                let mut parent = at;
                for _ in 0..random.below(24) {
                    family.derive(parent, random.below(keys));
                    parent = family.members.len() - 1;
                }
            }
            4..6 => family.derive(at, random.below(keys)),
            6 => {
                let (context, seen) = &family.members[at];
                family.members.push((context.clone(), seen.clone()));
            }
            7..9 if family.members.len() > 1 => drop(family.members.swap_remove(at)),
            _ => family.check(at),
        }
    }
    for member in 0..family.members.len() {
        family.check(member);
    }
    let visible: usize = family.members.iter().map(|(_, seen)| seen.len()).sum();
    while family.members.pop().is_some() {}
    assert_eq!(
        family.live(),
        0,
        "of {} values, {visible} were visible",
        family.made
    );
}

#[test]
fn families_agree_with_maps() {
    let first = std::env::var("BEQUEST_TEST_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + 300 {
        let outcome = catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "the family of seed {seed} differs from its maps");
    }
}

/// A context keeps what it shows and no more than a list and a table of shadows.
#[test]
fn what_is_hidden_is_let_go_of_at_the_next_table() {
    let mut family = Family::default();
    let mut context = Context::background();
    for round in 0..1000 {
        let key = round % 20;
        context = context.with_value(&KEY[key], family.value(false));
        // Twenty that are seen; hidden are at most those that came since the table, and those that it hides.
        assert!(family.live() <= 20 + 2 * 8, "{} after {round}", family.live());
    }
    drop(context);
    assert_eq!(family.live(), 0);
}

/// At each place of a chain in turn: in the list, in the table that links it, in one that holds each entry.
#[test]
fn a_value_that_breaks_as_it_goes_takes_none_of_the_others_along() {
    for length in [3, 8, 9, 17, 40] {
        for broken in 0..length {
            let mut family = Family::default();
            let mut context = Context::background();
            for (place, key) in KEY.iter().enumerate().take(length) {
                context = context.with_value(key, family.value(place == broken));
            }
            assert_eq!(family.live(), length);
            let outcome = catch_unwind(AssertUnwindSafe(|| drop(context)));
            assert!(outcome.is_err());
            assert_eq!(family.live(), 0, "{length} values, the one at {broken} breaks");
        }
    }
}
