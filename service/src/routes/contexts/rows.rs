//! The live contexts as JSON: one row for each that lives, one for each of the last ends.

use bequest::inspect::{self, Ended, Live, Snapshot};
use serde_json::{Value, json};

use super::ROWS;

/// All of it.
pub(super) fn whole(snapshot: &Snapshot) -> Value {
    json!({
        "listing": inspect::is_on(),
        "live": snapshot.live.iter().take(ROWS).map(live).collect::<Vec<_>>(),
        "live_in_all": snapshot.live.len(),
        "ended": snapshot.ended.iter().rev().map(ended).collect::<Vec<_>>(),
        "ends_in_all": snapshot.ends,
    })
}

/// A context that lives.
pub(super) fn live(row: &Live) -> Value {
    let ended_at = row.end.as_ref().and_then(|end| end.at());
    json!({
        "id": row.id.get(),
        "parents": row.parents.iter().map(|id| id.get()).collect::<Vec<_>>(),
        "name": row.name,
        "made_at": format!("{}:{}", row.made_at.file(), row.made_at.line()),
        "age_ms": row.age.as_millis() as u64,
        "budget_left_ms": row.remaining.map(|left| left.as_millis() as u64),
        "owns_deadline": row.owns_deadline,
        "ended": row.end.as_ref().map(ToString::to_string),
        "ended_ago_ms": ended_at.map(|at| at.elapsed().as_millis() as u64),
        "holders": row.holders,
        "children": row.children,
        "waiting": row.waiting,
    })
}

/// An end that was seen.
pub(super) fn ended(row: &Ended) -> Value {
    json!({
        "id": row.id.get(),
        "name": row.name,
        "kind": row.end.kind().to_string(),
        "reason": row.end.reason().to_string(),
        "why": row.end.to_string(),
        "age_ms": row.age.as_millis() as u64,
        "ago_ms": row.at.elapsed().as_millis() as u64,
    })
}
