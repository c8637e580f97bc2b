//! The routes: each takes the request's context, hands it down, and turns what comes back into an answer.

pub(crate) mod admin;
pub(crate) mod contexts;
mod home;
mod jobs;
mod login;
pub(crate) mod me;
mod report;
mod search;
mod sessions;
mod store;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bequest_http::server::{RequestBody, service_fn};
use http::Request;
use tower_service::Service;

use crate::answer::{self, Code, Refusal};
use crate::app::App;
use crate::log::here;
use crate::session::Sessions;
use crate::session::middleware::identify;
use crate::session::settings::NoSessionStatus;

/// The service of the public listener: who is asking, the route, and the one way out.
///
/// Both ends are here, around the router, and not layers of each route: a layer is a box and a copy of the route for
/// each request.
pub(crate) fn public(
    app: Arc<App>,
) -> impl Service<Request<RequestBody>, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let sessions = Arc::clone(&app.identity.sessions);
    let no_session = app.settings.sessions.no_session;
    let router = router(app);
    service_fn(move |mut request: Request<RequestBody>| {
        if no_session != NoSessionStatus::Forbidden {
            request.extensions_mut().insert(no_session);
        }
        handle(router.clone(), Arc::clone(&sessions), request)
    })
}

async fn handle(mut router: Router, sessions: Arc<Sessions>, mut request: Request<RequestBody>) -> Response {
    let ctx = answer::context_of(&request);
    let response = match identify(&sessions, &mut request).await {
        Ok(parting) => {
            let Ok(mut response) = router.call(request).await;
            parting.part(&mut response);
            response
        }
        Err(refusal) => refusal.into_response(),
    };
    answer::let_out(&ctx, response).await
}

fn router(app: Arc<App>) -> Router {
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
