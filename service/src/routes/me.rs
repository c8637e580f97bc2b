//! `/me`: who is asking.

use std::time::SystemTime;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer;
use crate::domain::session::Session;
use crate::log;
use crate::session::middleware::extract::SignedIn;

/// `GET /me`. The signature says that it needs a session.
pub(super) async fn me(SignedIn(session): SignedIn) -> Response {
    answer(&session)
}

/// The answer for this session.
pub(crate) fn answer(session: &Session) -> Response {
    answer::json_response(StatusCode::OK, &tell(session))
}

/// A session as its owner sees it.
pub(super) fn tell(session: &Session) -> Value {
    json!({
        "user": session.user.id,
        "login_time": time(session.login_time),
        "gender": session.user.gender.as_str(),
        "age": session.user.age,
        "session": session.id.handle(),
    })
}

pub(super) fn time(at: SystemTime) -> String {
    log::timestamp(at)
}
