//! The embedded authentication server: a key set, and a token for whoever asks.
//!
//! It listens on this machine alone and believes everybody, so that the service can be tried out without another
//! server. Its key is made at the first start and kept in the data folder.

mod key;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bequest::Context;
use bequest_http::axum::Ctx;
use http::{StatusCode, Uri};
use serde_json::json;

pub(crate) use self::key::SigningKey;
use super::client::{AuthClient, FetchError};
use crate::answer::{self, Code, Refusal};
use crate::domain::session::Gender;
use crate::log::here;

/// What the tokens of the embedded server have in `iss`.
pub(crate) const ISSUER: &str = "urn:bequest:embedded-issuer";
/// How long a token is good for.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// The longest name of a user, in bytes.
const LONGEST_NAME: usize = 64;

/// The way from the service to its embedded authentication server.
#[derive(Clone, Debug)]
pub(crate) struct Demo {
    client: AuthClient,
    at: Uri,
}

#[derive(Debug)]
struct Issuer {
    key: SigningKey,
    audience: String,
}

/// Its routes: `GET /.well-known/jwks.json`, and `POST /token` with `user=NAME[&gender=G][&age=N]`.
pub(crate) fn router(key: SigningKey, audience: String) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(key_set))
        .route("/token", post(token))
        .layer(middleware::from_fn(answer::way_out))
        .with_state(Arc::new(Issuer { key, audience }))
}

impl Demo {
    /// For a server whose `POST /token` is at `at`.
    pub(crate) fn new(client: AuthClient, at: Uri) -> Demo {
        Demo { client, at }
    }

    /// A token for the user that `form` names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn token(&self, ctx: &Context, form: Bytes) -> Result<String, FetchError> {
        let body = self.client.post(ctx, &self.at, form).await?;
        String::from_utf8(body.into()).map_err(|error| FetchError::Exchange(error.into()))
    }
}

async fn key_set(State(issuer): State<Arc<Issuer>>) -> Response {
    answer::json_response(StatusCode::OK, &json!({ "keys": [issuer.key.public()] }))
}

async fn token(Ctx(ctx): Ctx, State(issuer): State<Arc<Issuer>>, form: Bytes) -> Response {
    let field = |name: &str| {
        let pair = form_urlencoded::parse(&form).find(|(field, _)| field == name);
        pair.map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty())
    };
    let user = field("user").filter(|user| is_name(user));
    let gender = field("gender")
        .map(|gender| Gender::parse(&gender))
        .unwrap_or(Some(Gender::Undisclosed));
    let age = field("age").map(|age| age.parse::<u8>()).transpose();
    let (Some(user), Some(gender), Ok(age)) = (user, gender, age) else {
        return Refusal::new(here!(), Code::BadUser, "user, gender or age").into_response();
    };
    let since = ctx.wall().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = since.unwrap_or_default().as_secs();
    let claims = json!({
        "iss": ISSUER,
        "aud": issuer.audience,
        "sub": user,
        "iat": now,
        "nbf": now,
        "exp": now + GOOD_FOR.as_secs(),
        "gender": gender.as_str(),
        "age": age,
    });
    issuer.key.sign(&claims).into_response()
}

fn is_name(user: &str) -> bool {
    user.len() <= LONGEST_NAME
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte))
}
