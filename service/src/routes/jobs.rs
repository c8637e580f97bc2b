//! `/jobs`: work that outlives the request that started it.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use bequest::Context;
use bequest_http::axum::Ctx;
use bequest_http::server::ConnInfo;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Code, HandlerStatus, Refusal, respond};
use crate::app::App;
use crate::domain::userip;
use crate::jobs::Refused;
use crate::log::{Place, here};
use crate::store::jobs::Job;

#[derive(Debug, Deserialize)]
pub(super) struct Cancel {
    reason: Option<String>,
}

/// How many jobs a list has at most.
const MOST_LISTED: u32 = 100;

/// The longest reason for a cancel, in bytes.
const LONGEST_REASON: usize = 200;

/// `POST /jobs`: starts a job and answers at once. The job keeps the user's address, and what the logs know of the
/// request: its session, its id, its trace.
pub(super) async fn start(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    conn: ConnInfo,
) -> Result<Response, Refusal> {
    let user = userip::from_request(&conn.peer_addr().to_string());
    let user = user.map_err(|error| Refusal::new(here!(), Code::BadAddress, error.to_string()))?;
    let id = app.jobs.start(&userip::new_context(&ctx, user)).await;
    let id = id.map_err(|refused| refusal(here!(), &ctx, &refused))?;
    let location = format!("/jobs/{id}");
    let answer = HandlerStatus {
        status: StatusCode::ACCEPTED,
        code: Code::Accepted,
        result: json!({ "job": id, "location": location }),
    };
    let mut response = respond!(&ctx, answer);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /jobs`: the newest first.
pub(super) async fn list(Ctx(ctx): Ctx, State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let jobs = app.jobs.list(&ctx, MOST_LISTED).await;
    let jobs = jobs.map_err(|refused| refusal(here!(), &ctx, &refused))?;
    let jobs: Vec<_> = jobs.iter().map(tell).collect();
    let body = json!({ "running": app.jobs.running(), "jobs": jobs });
    Ok(answer::json_response(StatusCode::OK, &body))
}

/// `GET /jobs/{id}`: how far it is, and who started it.
pub(super) async fn show(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Response, Refusal> {
    let job = app.jobs.get(&ctx, id).await;
    let job = job.map_err(|refused| refusal(here!(), &ctx, &refused))?;
    Ok(answer::json_response(StatusCode::OK, &tell(&job)))
}

/// `DELETE /jobs/{id}[?reason=R]`: cancels it. The answer comes when it has ended.
pub(super) async fn cancel(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    conn: ConnInfo,
    Path(id): Path<i64>,
    Query(cancel): Query<Cancel>,
) -> Result<Response, Refusal> {
    let reason = cancel.reason.unwrap_or_else(|| "no reason given".into());
    if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
        let message = format!("reason= is longer than {LONGEST_REASON} bytes, or not a line of text");
        return Err(Refusal::new(here!(), Code::BadReason, message));
    }
    let by = conn.peer_addr().ip().to_string();
    let job = app.jobs.cancel(&ctx, id, reason, by).await;
    let job = job.map_err(|refused| refusal(here!(), &ctx, &refused))?;
    Ok(answer::json_response(StatusCode::OK, &tell(&job)))
}

fn tell(job: &Job) -> Value {
    json!({
        "job": job.id,
        "state": job.state.as_str(),
        "detail": job.detail,
        "reason": job.reason,
        "origin": job.origin,
        "passages": job.passages,
        "started_by": job.starter.address,
        "user": job.starter.user,
        "request_id": job.starter.request_id,
        "trace_id": job.starter.trace_id,
        "begun_at": job.begun_at,
        "ended_at": job.ended_at,
    })
}

fn refusal(place: Place, request: &Context, refused: &Refused) -> Refusal {
    let (code, message) = match refused {
        Refused::TooMany(most) => (Code::TooManyJobs, format!("{most} jobs are running")),
        Refused::ShuttingDown => (Code::ShuttingDown, "the service is shutting down".to_string()),
        Refused::Unknown => (Code::NoJob, "there is no job of that number".to_string()),
        Refused::Over(state) => (Code::JobOver, format!("the job is over: {}", state.as_str())),
        Refused::Ended(end) => return Refusal::ended(place, request, end),
        Refused::Store(error) => (Code::Internal, error.clone()),
    };
    Refusal::new(place, code, message)
}
