//! The routes: each takes the request's context, hands it down, and turns what comes back into an answer.

pub(crate) mod admin;
mod home;
mod jobs;
mod report;
mod search;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;

use crate::answer::Refusal;
use crate::app::App;

/// The routes of the public listener.
pub(crate) fn public(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(home::page))
        .route("/app.js", get(home::script))
        .route("/style.css", get(home::style))
        .route("/favicon.ico", get(home::icon))
        .route("/store", get(store::fetch).post(store::fetch))
        .route("/store/last", get(store::last))
        .route("/search", get(search::search))
        .route("/a/{*path}", get(search::passage))
        .route("/report", get(report::report))
        .route("/report/last", get(report::last))
        .route("/jobs", post(jobs::start))
        .route("/jobs/{id}", get(jobs::show))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(plain_rejections))
        .with_state(app)
}

async fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path; / lists what there is",
    )
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take that method",
    )
}

/// Puts what the router itself refuses, such as a query string that cannot be read, into the envelope.
async fn plain_rejections(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_plain = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/plain; charset=utf-8");
    if !(status.is_client_error() && is_plain) {
        return response;
    }
    let text =
        http_body_util::BodyExt::collect(http_body_util::Limited::new(response.into_body(), 4096)).await;
    let text = text
        .map(|text| String::from_utf8_lossy(&text.to_bytes()).into_owned())
        .unwrap_or_default();
    Refusal::new(status, "bad_request", text).into_response()
}
