//! The live contexts as text for a terminal: the tree, and the last ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use bequest::inspect::{self, Ended, Live};
use bequest::{Reason, ScopeId};

use super::ROWS;
use crate::answer::go;

/// All of it.
pub(super) fn write_all() -> String {
    let snapshot = inspect::snapshot();
    let mut out = String::new();
    if !inspect::is_on() {
        out.push_str("listing is switched off\n");
    }
    let _ = writeln!(out, "{} live", snapshot.live.len());
    let mut tree = Tree::of(&snapshot.live);
    while let Some((depth, row)) = tree.next() {
        let _ = writeln!(
            out,
            "{:indent$}{}",
            "",
            live_line(row),
            indent = 2 * depth.min(40)
        );
    }
    if tree.left_out() > 0 {
        let _ = writeln!(out, "… and {} more", tree.left_out());
    }
    let told: Vec<_> = snapshot.ended.iter().rev().filter(|row| is_news(row)).collect();
    let ordinary = snapshot.ended.len() - told.len();
    let _ = writeln!(
        out,
        "\nlast ends, newest first ({ordinary} of finished work left out)"
    );
    for row in told.into_iter().take(40) {
        let _ = writeln!(out, "{}", ended_line(row));
    }
    out
}

/// Whether an end is more than work that was finished.
fn is_news(row: &Ended) -> bool {
    !matches!(row.end.reason(), Reason::ScopeEnded | Reason::ResponseEnded)
}

fn live_line(row: &Live) -> String {
    let name = row.name.map_or_else(
        || format!("{}:{}", row.made_at.file(), row.made_at.line()),
        str::to_string,
    );
    let mut line = format!("{name} {}  age {}", row.id, brief(row.age));
    match (row.remaining, row.owns_deadline) {
        (Some(left), true) => drop(write!(line, "  {} left", brief(left))),
        (Some(left), false) => drop(write!(line, "  {} left (inherited)", brief(left))),
        (None, _) => {}
    }
    if row.waiting > 0 {
        let _ = write!(line, "  {} waiting", row.waiting);
    }
    if let Some(end) = &row.end {
        let ago = end.at().map(|at| brief(at.elapsed())).unwrap_or_default();
        let _ = write!(line, "  ENDED {ago} ago, still {} holders: {end}", row.holders);
    }
    line
}

fn ended_line(row: &Ended) -> String {
    let name = row.name.unwrap_or("scope");
    format!(
        "{} ago  {name} {} after {}: {}",
        brief(Instant::now().saturating_duration_since(row.at)),
        row.id,
        brief(row.age),
        row.end
    )
}

/// A span for people: from ten milliseconds on, to the millisecond.
fn brief(span: Duration) -> String {
    if span < Duration::from_millis(10) {
        return go(span);
    }
    go(Duration::from_millis(
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// Walks the rows parents first, in a loop, at most [`ROWS`] of them.
struct Tree<'r> {
    children: BTreeMap<ScopeId, Vec<&'r Live>>,
    open: Vec<(usize, &'r Live)>,
    shown: usize,
    all: usize,
}

impl<'r> Tree<'r> {
    fn of(rows: &'r [Live]) -> Tree<'r> {
        let listed: BTreeSet<ScopeId> = rows.iter().map(|row| row.id).collect();
        let mut children: BTreeMap<ScopeId, Vec<&Live>> = BTreeMap::new();
        let mut open = Vec::new();
        for row in rows.iter().rev() {
            match row.parents.iter().find(|parent| listed.contains(parent)) {
                Some(parent) => children.entry(*parent).or_default().push(row),
                None => open.push((0, row)),
            }
        }
        Tree {
            children,
            open,
            shown: 0,
            all: rows.len(),
        }
    }

    fn next(&mut self) -> Option<(usize, &'r Live)> {
        if self.shown == ROWS {
            return None;
        }
        let (depth, row) = self.open.pop()?;
        let below = self.children.remove(&row.id).unwrap_or_default();
        self.open
            .extend(below.into_iter().map(|child| (depth + 1, child)));
        self.shown += 1;
        Some((depth, row))
    }

    fn left_out(&self) -> usize {
        self.all - self.shown
    }
}
