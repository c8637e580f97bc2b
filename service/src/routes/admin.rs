//! The admin listener: health, metrics, the end of a user's sessions, and the live contexts.
//!
//! It is for this machine: requests whose `Host` is not an address or `localhost` are refused, so that no web page can
//! reach it through a name that it made up.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use bequest::inspect;
use http::{StatusCode, header};
use serde_json::json;

use super::contexts;
use crate::answer::{self, Code, Refusal};
use crate::app::App;
use crate::log::{COUNTERS, Logs, here};

/// The routes of the admin listener.
///
/// The listener itself sets requests no limit, for the sake of the event stream. Whatever else is asked has the usual one.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(async || answer::text("ok\n".into())))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/sessions", delete(super::sessions::end_all_of))
        .route("/debug/contexts", get(contexts::page))
        .route("/debug/contexts.txt", get(contexts::text))
        .route("/debug/contexts.json", get(contexts::json))
        .route("/contexts.js", get(contexts::script))
        .route("/style.css", get(super::home::style))
        .route("/favicon.ico", get(super::home::icon))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), within_limit))
        .route("/debug/contexts.events", get(contexts::events))
        .layer(middleware::from_fn(only_by_address))
        .layer(middleware::from_fn(answer::way_out))
        .with_state(app)
}

/// Gives a request the limit that those of the public listener have.
async fn within_limit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let limit = app.settings.request_limit;
    let scope = answer::context_of(&request)
        .with_timeout(limit)
        .named("admin request");
    request.extensions_mut().insert(scope.context());
    next.run(request).await
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
    let rows: [(&str, &str, u64); 17] = [
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
            "bequest_contexts_followers",
            "gauge",
            app.pictures.followers() as u64,
        ),
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
