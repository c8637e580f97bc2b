//! What followers are told. Other tests of this process make contexts as well, so nothing here counts exactly.

use std::collections::BTreeMap;

use bequest::{CancelScope, Context, Reason};

use super::*;

/// One who follows: has what it was told, and nothing else.
#[derive(Default)]
struct Follower {
    told: Told,
    live: BTreeMap<u64, Value>,
    /// Newest first.
    ended: Vec<Value>,
    in_all: [u64; 2],
}

/// What does not change by itself.
const LASTING: [&str; 7] = [
    "parents", "name", "made_at", "holders", "children", "waiting", "ended",
];

/// How many ends are compared.
const ENDS: usize = 100;

impl Follower {
    fn look(&mut self, picture: &Picture) {
        let Some((number, kind, data)) = self.told.next(picture) else {
            return;
        };
        assert_eq!(number, picture.number);
        if kind == "contexts" {
            self.live.clear();
            self.ended.clear();
        }
        for id in data["gone"].as_array().into_iter().flatten() {
            let gone = self.live.remove(&id.as_u64().unwrap());
            assert!(gone.is_some(), "{id} was there");
        }
        self.live.extend(lasting(&data["live"]));
        let ended = ids(&data["ended"]).into_iter().chain(self.ended.drain(..));
        self.ended = ended.take(ENDS).collect();
        self.in_all = in_all(&data);
    }

    fn assert_sees(&self, picture: &Picture) {
        let whole = rows::whole(&picture.snapshot);
        assert_eq!(self.live, lasting(&whole["live"]));
        let ended: Vec<_> = ids(&whole["ended"]).into_iter().take(ENDS).collect();
        assert_eq!(self.ended, ended);
        assert_eq!(self.in_all, in_all(&whole));
    }
}

fn lasting(rows: &Value) -> BTreeMap<u64, Value> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| {
        let members: Vec<_> = LASTING.iter().map(|name| row[*name].clone()).collect();
        (row["id"].as_u64().unwrap(), members.into())
    })
    .collect()
}

fn ids(rows: &Value) -> Vec<Value> {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].clone())
        .collect()
}

fn in_all(data: &Value) -> [u64; 2] {
    ["live_in_all", "ends_in_all"].map(|name| data[name].as_u64().unwrap())
}

/// Makes, ends or lets go of one.
fn happen(scopes: &mut Vec<CancelScope>, chance: &mut fastrand::Rng) {
    let any = |scopes: &[CancelScope], chance: &mut fastrand::Rng| chance.usize(..scopes.len());
    match chance.u8(..5) {
        0 | 1 => scopes.push(Context::background().with_cancel().named("root")),
        2 if !scopes.is_empty() => {
            let parent = any(scopes, chance);
            scopes.push(scopes[parent].with_cancel().named("child"));
        }
        3 if !scopes.is_empty() => scopes[any(scopes, chance)].cancel_for(Reason::Explicit),
        4 if !scopes.is_empty() => drop(scopes.swap_remove(any(scopes, chance))),
        _ => {}
    }
}

#[test]
fn changes_lead_from_each_picture_to_the_next() {
    inspect::enable();
    let mut chance = fastrand::Rng::with_seed(7);
    let mut scopes = Vec::new();
    let (mut quick, mut slow) = (Follower::default(), Follower::default());
    let mut before: Option<Picture> = None;
    for round in 0..200 {
        for _ in 0..chance.usize(..6) {
            happen(&mut scopes, &mut chance);
        }
        let picture = Picture::after(before.as_ref(), Instant::now(), inspect::snapshot());
        quick.look(&picture);
        quick.assert_sees(&picture);
        if round % 20 == 0 {
            slow.look(&picture);
            slow.assert_sees(&picture);
        }
        before = Some(picture);
    }
}

#[test]
fn nothing_is_told_while_nothing_changes() {
    inspect::enable();
    let _scope = Context::background().with_cancel();
    let first = Picture::after(None, Instant::now(), inspect::snapshot());
    let mut told = Told::default();
    assert!(told.next(&first).is_some());
    // Later, when the ages are others.
    let mut snapshot = first.snapshot.clone();
    for row in &mut snapshot.live {
        row.age += Duration::from_secs(1);
        row.remaining = row.remaining.map(|left| left / 2);
    }
    let second = Picture::after(Some(&first), Instant::now(), snapshot);
    assert_eq!(second.number, first.number);
    assert!(told.next(&second).is_none());
}

#[test]
fn however_much_has_happened_one_event_of_limited_size_tells_of_it() {
    inspect::enable();
    let first = Picture::after(None, Instant::now(), inspect::snapshot());
    let mut follower = Follower::default();
    follower.look(&first);
    let many = 4 * inspect::REMEMBERED;
    for _ in 0..many {
        Context::background().with_cancel().cancel();
    }
    let kept: Vec<_> = (0..2 * ROWS)
        .map(|_| Context::background().with_cancel())
        .collect();
    let second = Picture::after(Some(&first), Instant::now(), inspect::snapshot());
    let (_, kind, data) = follower.told.next(&second).unwrap();
    assert_eq!(kind, "change");
    let length = |name: &str| data[name].as_array().unwrap().len();
    assert!(length("live") <= ROWS && length("gone") <= ROWS);
    assert_eq!(length("ended"), inspect::REMEMBERED, "as many as are remembered");
    let [live, ends] = in_all(&data);
    assert!(live >= kept.len() as u64, "and how many there are besides");
    assert!(ends - follower.in_all[1] >= many as u64);
    assert!(follower.told.next(&second).is_none(), "that was all");
}

#[test]
fn places_are_limited_and_given_back() {
    let pictures = Pictures::new();
    let mut places: Vec<_> = (0..PLACES).map(|_| pictures.follow().unwrap()).collect();
    assert!(pictures.follow().is_none());
    assert_eq!(pictures.followers(), PLACES);
    places.pop();
    assert_eq!(pictures.followers(), PLACES - 1);
    assert!(pictures.follow().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_picture_serves_all_who_look_within_a_moment() {
    let pictures = Pictures::new();
    let first = pictures.newest(FRESH);
    assert!(Arc::ptr_eq(&first, &pictures.newest(FRESH)));
    tokio::time::advance(FRESH).await;
    assert!(!Arc::ptr_eq(&first, &pictures.newest(FRESH)));
}
