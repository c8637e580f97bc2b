//! The admin listener: health, metrics, the end of a user's sessions, and the live contexts as a page, as text and as JSON.
//!
//! It is for this machine: requests whose `Host` is not an address or `localhost` are refused, so that no web page can
//! reach it through a name that it made up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use bequest::inspect::{self, Ended, Live};
use bequest::{Reason, ScopeId};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::answer::{self, Code, Refusal, escaped, go};
use crate::app::App;
use crate::log::{COUNTERS, Logs, here};

/// The routes of the admin listener.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(async || answer::text("ok\n".into())))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/sessions", delete(super::sessions::end_all_of))
        .route("/debug/contexts", get(contexts_page))
        .route("/debug/contexts.txt", get(async || answer::text(contexts_text())))
        .route(
            "/debug/contexts.json",
            get(async || answer::json_response(StatusCode::OK, &contexts_json())),
        )
        .route("/style.css", get(super::home::style))
        .route("/favicon.ico", get(super::home::icon))
        .layer(middleware::from_fn(only_by_address))
        .layer(middleware::from_fn(answer::way_out))
        .with_state(app)
}

/// Against DNS rebinding: a name that is not `localhost` never leads here.
async fn only_by_address(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok().map(str::to_string));
    match authority.or(host) {
        Some(host) if is_address(&host) => next.run(request).await,
        _ => Refusal::new(
            here!(),
            Code::BadHost,
            "this listener is reached by address or as localhost",
        )
        .into_response(),
    }
}

fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Ready until the shutdown begins.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    let draining = app.stopping.is_done();
    let status = if draining {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let running = app.store.statistics().running;
    answer::json_response(
        status,
        &json!({ "ready": !draining, "statements_running": running, "jobs_running": app.jobs.running() }),
    )
}

/// In the text format of Prometheus.
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let server = app.server.snapshot();
    let contexts = inspect::statistics();
    let statements = app.store.statistics();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let rows: [(&str, &str, u64); 16] = [
        (
            "bequest_requests_answered_total",
            "counter",
            load(&COUNTERS.answered),
        ),
        (
            "bequest_requests_client_left_total",
            "counter",
            load(&COUNTERS.client_left),
        ),
        (
            "bequest_requests_deadline_total",
            "counter",
            load(&COUNTERS.deadline),
        ),
        (
            "bequest_handlers_panicked_total",
            "counter",
            load(&COUNTERS.panicked),
        ),
        (
            "bequest_handlers_dropped_total",
            "counter",
            load(&COUNTERS.dropped),
        ),
        ("bequest_connections", "gauge", server.connections as u64),
        ("bequest_requests", "gauge", server.requests as u64),
        ("bequest_handlers_in_grace", "gauge", server.in_grace as u64),
        ("bequest_contexts", "gauge", contexts.listed as u64),
        (
            "bequest_deadlines_armed",
            "gauge",
            contexts.armed_deadlines as u64,
        ),
        ("bequest_statements_running", "gauge", statements.running as u64),
        ("bequest_statements_total", "counter", statements.accepted),
        (
            "bequest_statements_interrupted_total",
            "counter",
            statements.interrupted,
        ),
        (
            "bequest_search_statements_running",
            "gauge",
            app.corpus.as_ref().map_or(0, |corpus| corpus.running()) as u64,
        ),
        ("bequest_jobs_running", "gauge", app.jobs.running() as u64),
        ("bequest_cache_failed_total", "counter", app.cache.failed()),
    ];
    let mut out = String::new();
    for (name, kind, value) in rows.into_iter().chain(app.identity.metrics()) {
        let _ = write!(out, "# TYPE {name} {kind}\n{name} {value}\n");
    }
    write_answers(&mut out);
    write_logs(&mut out, &app.logs);
    answer::text(out)
}

/// How often each code was answered, other than with 200.
fn write_answers(out: &mut String) {
    let _ = writeln!(out, "# TYPE bequest_answers_total counter");
    for (code, count) in Code::counts() {
        let _ = writeln!(out, "bequest_answers_total{{code=\"{}\"}} {count}", code.word());
    }
}

/// What has become of the lines of the logs.
fn write_logs(out: &mut String, logs: &Logs) {
    let rows = logs.counts().map(|(log, counts)| {
        [
            ("bequest_log_lines_total", log, counts.accepted),
            ("bequest_log_lines_lost_total", log, counts.lost),
            ("bequest_log_failures_total", log, counts.failures),
        ]
    });
    let [access, errors] = rows;
    for (access, errors) in access.iter().zip(&errors) {
        let _ = writeln!(out, "# TYPE {} counter", access.0);
        for (metric, log, count) in [access, errors] {
            let _ = writeln!(out, "{metric}{{log=\"{log}\"}} {count}");
        }
    }
}

async fn contexts_page() -> Response {
    let text = escaped(&contexts_text());
    let mut response = answer::page(format!(
        "<!doctype html><meta charset=utf-8><title>live contexts</title><link rel=stylesheet href=/style.css>\
         <main class=wide><h1>Live contexts</h1><p>Refreshed every second. \
         Also as <a href=/debug/contexts.txt>text</a> and <a href=/debug/contexts.json>JSON</a>.</p>\
         <pre>{text}</pre></main>\n"
    ));
    response
        .headers_mut()
        .insert(header::REFRESH, http::HeaderValue::from_static("1"));
    response
}

/// How many rows of each list are shown.
const ROWS: usize = 500;

/// The tree, and the last ends, as text for a terminal.
fn contexts_text() -> String {
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

fn contexts_json() -> Value {
    let snapshot = inspect::snapshot();
    let place = |at: &std::panic::Location<'_>| format!("{}:{}", at.file(), at.line());
    let live: Vec<_> = snapshot
        .live
        .iter()
        .take(ROWS)
        .map(|row| {
            json!({
                "id": row.id.get(),
                "parents": row.parents.iter().map(|id| id.get()).collect::<Vec<_>>(),
                "name": row.name,
                "made_at": place(row.made_at),
                "age_ms": row.age.as_millis() as u64,
                "budget_left_ms": row.remaining.map(|left| left.as_millis() as u64),
                "ended": row.end.as_ref().map(ToString::to_string),
                "holders": row.holders,
                "children": row.children,
                "waiting": row.waiting,
            })
        })
        .collect();
    let ended: Vec<_> = snapshot
        .ended
        .iter()
        .rev()
        .map(|row| {
            json!({
                "id": row.id.get(),
                "name": row.name,
                "kind": row.end.kind().to_string(),
                "reason": row.end.reason().to_string(),
                "why": row.end.to_string(),
                "age_ms": row.age.as_millis() as u64,
                "ago_ms": row.at.elapsed().as_millis() as u64,
            })
        })
        .collect();
    json!({ "live": live, "live_in_all": snapshot.live.len(), "ended": ended })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost() {
        for host in [
            "127.0.0.1:7070",
            "localhost",
            "LOCALHOST:1",
            "[::1]:7070",
            "10.0.0.1",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "rebind.example:7070",
            "127.0.0.1.example",
            "",
            "localhost.example",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }
}
