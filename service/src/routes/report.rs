//! `/report`: one request context, a scope with its own limit, and two parallel children in a group.
//!
//! ```text
//! request ─ report (its own limit) ─ group ─┬─ the long query
//!                                           └─ the cache
//! ```
//!
//! It is the picture from which everything here starts: when the client leaves, or the limit passes, both children stop,
//! and the query in the database with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::response::Response;
use bequest::{Canceled, Context, Group};
use bequest_http::axum::Ctx;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::answer::{self, Code, Refusal, go};
use crate::app::App;
use crate::domain::budget;
use crate::domain::duration::GoDuration;
use crate::log::{Place, here};
use crate::store::Ledger;

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    ms: Option<u64>,
    timeout: Option<String>,
}

/// The report's own limit.
const LIMIT: Duration = Duration::from_secs(20);
/// With less than this left, no report is begun.
const WORTH_STARTING: Duration = Duration::from_millis(20);
/// Without `ms=`, the query takes this long; and with it, this long at most.
const USUAL_MS: u64 = 300;
const MOST_MS: u64 = 600_000;
/// Under which the last report is remembered.
const LAST: &str = "report";

/// What one child found.
enum Part {
    Ledger(Ledger),
    Remembered(Option<String>),
}

/// Why one child found nothing.
#[derive(Debug)]
enum Failure {
    Ended(Canceled),
    Store(String),
}

/// `GET /report[?ms=M][&timeout=T]`.
pub(super) async fn report(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    Query(question): Query<Question>,
) -> Result<Response, Refusal> {
    let timeout = question.timeout.as_deref().map(GoDuration::parse).transpose();
    let timeout =
        timeout.map_err(|error| Refusal::new(here!(), Code::BadTimeout, format!("timeout: {error}")))?;
    let limit = timeout.map_or(LIMIT, |timeout| timeout.to_wait().min(LIMIT));
    let span = Duration::from_millis(question.ms.unwrap_or(USUAL_MS).min(MOST_MS));

    let begun = Instant::now();
    let scope = ctx
        .with_timeout(limit)
        .named("report")
        .caused_by(format!("the report's limit of {}", go(limit)));
    budget::at_least(&scope, WORTH_STARTING).map_err(|little| Refusal::too_little_time(here!(), little))?;
    let (ledger, remembered) = both(&scope, &app, span)
        .await
        .map_err(|failure| refusal(here!(), &ctx, failure))?;
    let summary = format!("{} entries, balance {}", ledger.entries, ledger.balance);
    let kept = app.cache.put(&scope, LAST, &summary).await;
    kept.map_err(|end| Refusal::ended(here!(), &ctx, &end))?;
    let body = json!({
        "report": summary,
        "last_report": remembered,
        "elapsed": go(begun.elapsed()),
        "budget_left": scope.remaining().map(go),
    });
    Ok(answer::json_response(StatusCode::OK, &body))
}

/// `GET /report/last`: what the store says of its statements, and how long after its context's end the last interrupted one
/// had stopped.
pub(super) async fn last(State(app): State<Arc<App>>) -> Response {
    let statements = app.store.statistics();
    let body = json!({
        "running": statements.running,
        "interrupted": statements.interrupted,
        "stopped_after_ms": statements.last_stop.map(answer::millis),
    });
    answer::json_response(StatusCode::OK, &body)
}

/// The long query beside the cache; the first failure of either ends the other.
async fn both(scope: &Context, app: &Arc<App>, span: Duration) -> Result<(Ledger, Option<String>), Failure> {
    let mut group = Group::new(scope);
    let store = app.store.clone();
    group.spawn(move |ctx| async move {
        let ledger = store.ledger(&ctx, span).await;
        ledger.map(Part::Ledger).map_err(|error| match error.canceled() {
            Some(end) => Failure::Ended(end.clone()),
            None => Failure::Store(error.to_string()),
        })
    });
    let cache = Arc::clone(app);
    group.spawn(move |ctx| async move {
        let remembered = cache.cache.get(&ctx, LAST).await;
        remembered.map(Part::Remembered).map_err(Failure::Ended)
    });
    let parts = group
        .wait()
        .await
        .map_err(|error| match (error.panic(), error.canceled()) {
            (Some(panic), _) => Failure::Store(format!("a part of the report panicked: {panic}")),
            (None, Some(end)) => Failure::Ended(end.clone()),
            (None, None) => error
                .into_error()
                .unwrap_or_else(|| Failure::Store("a part of the report failed".into())),
        })?;
    let (mut ledger, mut remembered) = (None, None);
    for part in parts {
        match part {
            Part::Ledger(found) => ledger = Some(found),
            Part::Remembered(found) => remembered = found,
        }
    }
    let ledger = ledger.ok_or_else(|| Failure::Store("the query answered nothing".into()))?;
    Ok((ledger, remembered))
}

fn refusal(place: Place, request: &Context, failure: Failure) -> Refusal {
    match failure {
        Failure::Ended(end) => Refusal::ended(place, request, &end),
        Failure::Store(error) => Refusal::new(place, Code::Internal, error),
    }
}
