//! The page for people.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use crate::answer;
use crate::app::App;

/// `GET /`: what runs here, a button for each thing to try, and the way to the live contexts.
pub(super) async fn page(State(app): State<Arc<App>>) -> Response {
    let admin = format!("http://{}", app.admin_addr);
    answer::page(include_str!("../assets/home.html").replace("{admin}", &answer::escaped(&admin)))
}

pub(super) async fn script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("../assets/app.js"),
    )
}

pub(super) async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("../assets/style.css"),
    )
}

/// Browsers ask for it by themselves, whatever the page says.
pub(super) async fn icon() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "image/svg+xml")],
        include_str!("../assets/icon.svg"),
    )
}
