//! Signing in, and asking as somebody who has.

use serde_json::Value;

use super::client::{self, Answer};
use super::instance::Instance;

/// Under which a session's id is sent.
pub(crate) const SESSION: &str = "x-myapp-session";

/// A request with these headers.
pub(crate) fn ask(service: &Instance, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    client::ask(service.public, method, target, headers)
}

/// A token of the embedded authentication server.
pub(crate) fn token(service: &Instance, user: &str) -> String {
    let answer = ask(service, "POST", &format!("/token?user={user}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.trim().to_string()
}

/// Signs in; the new session as the service tells of it.
pub(crate) fn sign_in(service: &Instance, user: &str) -> Value {
    let bearer = format!("Bearer {}", token(service, user));
    let answer = ask(service, "POST", "/sessions", &[("authorization", &bearer)]);
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["Result"].clone()
}

/// The id of a new session.
pub(crate) fn session(service: &Instance, user: &str) -> String {
    sign_in(service, user)["id"].as_str().expect("an id").to_string()
}

/// The status of `GET /me` with this id.
pub(crate) fn me(service: &Instance, id: &str) -> u16 {
    ask(service, "GET", "/me", &[(SESSION, id)]).status
}
