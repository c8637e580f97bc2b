//! Who is running, with how much time left, and who ended what, and why: as a page, as text, as JSON, and as an event
//! stream. All forms show names, times and reasons, and none shows a value.

mod picture;
mod rows;
mod stream;
mod text;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bequest::inspect;
use bequest_http::axum::Ctx;
use bequest_http::server::UntilShutdown;
use http::{StatusCode, header};

use crate::answer::{self, Code, Refusal, escaped};
use crate::app::App;
use crate::log::here;

pub(crate) use picture::Pictures;

/// How many live rows are shown.
const ROWS: usize = 500;

/// `GET /debug/contexts`: the text, kept up to date by a script or, without scripts, by being loaded anew.
pub(super) async fn page() -> Response {
    let text = escaped(&text::write_all());
    answer::page(include_str!("../../assets/contexts.html").replace("{text}", &text))
}

/// What keeps the page up to date.
pub(super) async fn script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("../../assets/contexts.js"),
    )
}

/// `GET /debug/contexts.txt`
pub(super) async fn text() -> Response {
    answer::text(text::write_all())
}

/// `GET /debug/contexts.json`
pub(super) async fn json() -> Response {
    answer::json_response(StatusCode::OK, &rows::whole(&inspect::snapshot()))
}

/// `GET /debug/contexts.events`: the same, and then what changes, for as long as there is somebody to tell.
///
/// It ends with its follower, with its context, and at once with the shutdown.
pub(super) async fn events(Ctx(ctx): Ctx, State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let place = app.pictures.follow().ok_or_else(|| {
        let message = format!("{} follow already, and no more may", picture::PLACES);
        Refusal::new(here!(), Code::TooManyFollowers, message)
    })?;
    let events = stream::Events::new(&ctx, Arc::clone(&app.pictures), place);
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((Extension(UntilShutdown), kind, Body::new(events)).into_response())
}
