//! `/jobs`: work that outlives the request that started it.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use bequest_http::axum::Ctx;
use bequest_http::server::ConnInfo;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::answer::{self, Code, HandlerStatus, Refusal, go, respond};
use crate::app::App;
use crate::domain::userip;
use crate::jobs::{Progress, Refused};
use crate::log::here;

/// `POST /jobs`: starts a job and answers at once. The job keeps the user's address, and nothing else of the request.
pub(super) async fn start(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    Extension(conn): Extension<ConnInfo>,
) -> Result<Response, Refusal> {
    let user = userip::from_request(&conn.peer_addr().to_string());
    let user = user.map_err(|error| Refusal::new(here!(), Code::BadAddress, error.to_string()))?;
    let id = app
        .jobs
        .start(&userip::new_context(&ctx, user))
        .map_err(refusal)?;
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

/// `GET /jobs/{id}`: how far it is, and who started it.
pub(super) async fn show(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Response {
    let Some(job) = app.jobs.get(id) else {
        return Refusal::new(here!(), Code::NoJob, "there is no job of that number").into_response();
    };
    let (state, detail) = match &job.progress {
        Progress::Running => ("running", format!("for {}", go(job.begun.elapsed()))),
        Progress::Finished { digest, took } => ("finished", format!("{digest}; took {}", go(*took))),
        Progress::Ended(end) => ("ended", end.to_string()),
        Progress::Failed(error) => ("failed", error.clone()),
    };
    let body = json!({
        "job": id,
        "state": state,
        "detail": detail,
        "passages": job.passages,
        "started_by": job.started_by,
    });
    answer::json_response(StatusCode::OK, &body)
}

fn refusal(refused: Refused) -> Refusal {
    let (code, message) = match refused {
        Refused::TooMany(most) => (Code::TooManyJobs, format!("{most} jobs are running")),
        Refused::ShuttingDown => (Code::ShuttingDown, "the service is shutting down".to_string()),
    };
    Refusal::new(here!(), code, message)
}
