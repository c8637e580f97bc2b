//! The routes: each takes the request's context, hands it down, and turns what comes back into an answer.

pub(crate) mod admin;
mod home;
mod jobs;
mod login;
pub(crate) mod me;
mod report;
mod search;
mod sessions;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post};

use crate::answer::{self, Code, Refusal};
use crate::app::App;
use crate::log::here;
use crate::session::middleware::identify;

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
        .route("/jobs", get(jobs::list).post(jobs::start))
        .route("/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/me", get(me::me))
        .route(
            "/sessions",
            get(sessions::list)
                .post(sessions::begin)
                .delete(sessions::end_all),
        )
        .route("/sessions/current", delete(sessions::end_current))
        .route("/sessions/{session}", delete(sessions::end_one))
        .route("/login", get(login::page).post(login::sign_in))
        .route("/token", post(login::token))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app.identity.sessions),
            identify,
        ))
        .layer(middleware::from_fn(answer::way_out))
        .with_state(app)
}

async fn not_found() -> Refusal {
    Refusal::new(
        here!(),
        Code::NotFound,
        "there is nothing at this path; / lists what there is",
    )
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(
        here!(),
        Code::MethodNotAllowed,
        "this path does not take that method",
    )
}
