//! Pictures of the live contexts, and what one who follows them is told of the next.
//!
//! # Invariants
//!
//! 1. However many follow, the contexts are looked at once within [`FRESH`], and once more for each whose stream ends. If
//!    nobody follows, they are not looked at.
//! 2. The number of a picture grows when something in it has changed. Ages and what is left of a budget change by
//!    themselves, so they do not count.
//! 3. A follower keeps what it was told last, and no picture. What it is told next is the way from there to the newest
//!    picture, whatever lies between. So nothing is ever queued, and a slow one is told less often, not more at once: the
//!    rows of a picture are limited, and the ends that are remembered are, too.
//! 4. Nothing but the clocks of the contexts is called under the lock of `newest`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bequest::inspect::{self, Live, Snapshot};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{ROWS, rows};

/// The newest picture, and the places of those who follow.
#[derive(Debug)]
pub(crate) struct Pictures {
    newest: Mutex<Option<Arc<Picture>>>,
    places: Arc<Semaphore>,
}

/// The contexts at one moment.
#[derive(Debug)]
pub(super) struct Picture {
    number: u64,
    taken: Instant,
    snapshot: Snapshot,
}

/// What a follower was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The number of the picture; none yet.
    number: Option<u64>,
    live: BTreeMap<u64, Mark>,
    ends: u64,
}

/// An event to tell: the number of the picture, the kind, and the data.
pub(super) type Event = (u64, &'static str, Value);

/// What of a row changes, and is told when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    name: Option<&'static str>,
    is_over: bool,
    holders: usize,
    children: usize,
    waiting: usize,
}

/// How many may follow at once. Each costs a connection, and a row of numbers for each context.
pub(super) const PLACES: usize = 32;

/// A picture serves for so long.
pub(super) const FRESH: Duration = Duration::from_millis(125);

impl Pictures {
    pub(crate) fn new() -> Pictures {
        Pictures {
            newest: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// How many follow.
    pub(crate) fn followers(&self) -> usize {
        PLACES - self.places.available_permits()
    }

    /// A place to follow from, if there is one left.
    pub(super) fn follow(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// The newest picture, taken now unless there is one that is younger than this.
    pub(super) fn newest(&self, age: Duration) -> Arc<Picture> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(picture) = newest.as_ref()
            && picture.taken.elapsed() < age
        {
            return Arc::clone(picture);
        }
        let taken = Instant::now();
        let picture = Arc::new(Picture::after(newest.as_deref(), taken, inspect::snapshot()));
        let former = newest.replace(Arc::clone(&picture));
        drop(newest);
        // Outside the lock: it may hold the last handle to a cause.
        drop(former);
        picture
    }
}

impl Picture {
    fn after(before: Option<&Picture>, taken: Instant, snapshot: Snapshot) -> Picture {
        let number = match before {
            None => 1,
            Some(before) if shows_the_same(&before.snapshot, &snapshot) => before.number,
            Some(before) => before.number + 1,
        };
        Picture {
            number,
            taken,
            snapshot,
        }
    }

    fn rows(&self) -> &[Live] {
        shown(&self.snapshot)
    }
}

impl Told {
    /// What leads from what was told to this picture, if that is another one: everything at first, and then changes.
    pub(super) fn next(&mut self, picture: &Picture) -> Option<Event> {
        let before = self.number.replace(picture.number);
        if before == Some(picture.number) {
            return None;
        }
        let told = std::mem::take(&mut self.live);
        self.live = picture.rows().iter().map(marked).collect();
        let ends = std::mem::replace(&mut self.ends, picture.snapshot.ends);
        let (kind, data) = match before {
            None => ("contexts", rows::whole(&picture.snapshot)),
            Some(_) => ("change", change(&told, &self.live, ends, picture)),
        };
        Some((picture.number, kind, data))
    }
}

/// Rows that are new or have changed, those that are gone, and new ends.
fn change(told: &BTreeMap<u64, Mark>, live: &BTreeMap<u64, Mark>, ends: u64, picture: &Picture) -> Value {
    let snapshot = &picture.snapshot;
    let has_changed = |row: &&Live| {
        let (id, mark) = marked(row);
        told.get(&id) != Some(&mark)
    };
    let gone: Vec<_> = told.keys().filter(|id| !live.contains_key(id)).collect();
    let new_ends = usize::try_from(snapshot.ends - ends).unwrap_or(usize::MAX);
    json!({
        "live": picture.rows().iter().filter(has_changed).map(rows::live).collect::<Vec<_>>(),
        "gone": gone,
        "live_in_all": snapshot.live.len(),
        "ended": snapshot.ended.iter().rev().take(new_ends).map(rows::ended).collect::<Vec<_>>(),
        "ends_in_all": snapshot.ends,
    })
}

fn shows_the_same(before: &Snapshot, now: &Snapshot) -> bool {
    before.ends == now.ends
        && before.live.len() == now.live.len()
        && shown(before).iter().map(marked).eq(shown(now).iter().map(marked))
}

/// The rows that are told of, the oldest.
fn shown(snapshot: &Snapshot) -> &[Live] {
    &snapshot.live[..snapshot.live.len().min(ROWS)]
}

fn marked(row: &Live) -> (u64, Mark) {
    let mark = Mark {
        name: row.name,
        is_over: row.end.is_some(),
        holders: row.holders,
        children: row.children,
        waiting: row.waiting,
    };
    (row.id.get(), mark)
}

#[cfg(test)]
mod tests;
