//! `/sessions`: signing in with a token, looking at one's sessions, ending them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bequest::Context;
use bequest_http::axum::Ctx;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;

use super::me;
use crate::answer::{self, Code, HandlerStatus, Refusal, go, respond};
use crate::app::App;
use crate::domain::session::{self, Session};
use crate::log::{Place, here};
use crate::session::id::SessionId;
use crate::session::middleware::{self, SESSION_HEADER, extract::SignedIn};
use crate::session::sessions::{CONFIRMED_FOR, Farewell};
use crate::token::TokenError;

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    /// `cookie=1`: the id comes as a cookie, which page scripts cannot read, and not in the answer.
    #[serde(default)]
    cookie: String,
}

/// `POST /sessions[?cookie=1]` with `Authorization: Bearer TOKEN`. A session that the client brings along ends.
pub(super) async fn begin(
    ctx: Ctx,
    state: State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    wish: Query<Wish>,
) -> Response {
    let begun = begun(ctx, state, method, uri, headers, wish).await;
    let mut response = begun.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

async fn begun(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(wish): Query<Wish>,
) -> Result<Response, Refusal> {
    let by_cookie = wish.cookie == "1";
    if by_cookie && middleware::is_cross_site(&method, &uri, &headers) {
        return Err(middleware::cross_site(here!()));
    }
    let token = bearer(&headers).map_err(|why| unauthorized(here!(), why))?;
    let (id, session) = sign_in(here!(), &ctx, &app, token).await?;
    let mut body = me::tell(&session);
    if !by_cookie {
        body["id"] = id.expose().into();
        body["send_it_as"] = SESSION_HEADER.as_str().into();
    }
    let made = HandlerStatus {
        status: StatusCode::CREATED,
        code: Code::Created,
        result: body,
    };
    let mut response = respond!(&ctx, made);
    if by_cookie {
        set_cookie(&mut response, &id);
    }
    Ok(response)
}

/// `GET /sessions`: one's own sessions that stand.
pub(super) async fn list(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    SignedIn(current): SignedIn,
) -> Result<Response, Refusal> {
    let records = app.identity.sessions.list(&ctx, &current.user.id).await;
    let records = records.map_err(|error| middleware::refusal(here!(), &ctx, &error))?;
    let sessions: Vec<_> = records
        .iter()
        .map(|record| {
            json!({
                "session": record.session.id.handle(),
                "login_time": me::time(record.session.login_time),
                "last_seen": me::time(record.last_seen),
                "ends_at_latest": me::time(record.absolute_end),
                "current": record.session.id == current.id,
            })
        })
        .collect();
    Ok(answer::json_response(
        StatusCode::OK,
        &json!({ "user": current.user.id, "sessions": sessions }),
    ))
}

/// `DELETE /sessions/current`: signing out.
pub(super) async fn end_current(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    SignedIn(current): SignedIn,
) -> Result<Response, Refusal> {
    let farewell = app.identity.sessions.end(&ctx, current.id).await;
    farewell
        .map(|farewell| goodbye(farewell, true))
        .map_err(|error| middleware::refusal(here!(), &ctx, &error))
}

/// `DELETE /sessions/{session}`: ending another of one's own, as `GET /sessions` names it.
pub(super) async fn end_one(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    SignedIn(current): SignedIn,
    Path(handle): Path<String>,
) -> Result<Response, Refusal> {
    let refused = |error| middleware::refusal(here!(), &ctx, &error);
    let own = app
        .identity
        .sessions
        .list(&ctx, &current.user.id)
        .await
        .map_err(refused)?;
    let found = own.iter().find(|record| record.session.id.handle() == handle);
    let found = found
        .ok_or_else(|| Refusal::new(here!(), Code::NoSuchSession, "you have no session of that name"))?;
    let id = found.session.id;
    let farewell = app.identity.sessions.end(&ctx, id).await.map_err(refused)?;
    Ok(goodbye(farewell, id == current.id))
}

/// `DELETE /sessions`: signing out everywhere.
pub(super) async fn end_all(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    SignedIn(current): SignedIn,
) -> Result<Response, Refusal> {
    let farewell = app.identity.sessions.end_all(&ctx, &current.user.id).await;
    farewell
        .map(|farewell| goodbye(farewell, true))
        .map_err(|error| middleware::refusal(here!(), &ctx, &error))
}

/// The user whose sessions an operator ends.
#[derive(Debug, Deserialize)]
pub(super) struct Whose {
    #[serde(default)]
    user: String,
}

/// `DELETE /sessions?user=NAME` of the admin listener: ending all sessions of a user who is not to be signed in any more.
pub(super) async fn end_all_of(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(Whose { user }): Query<Whose>,
) -> Result<Response, Refusal> {
    if middleware::is_cross_site(&method, &uri, &headers) {
        return Err(middleware::cross_site(here!()));
    }
    if user.is_empty() {
        return Err(Refusal::new(
            here!(),
            Code::BadUser,
            "user= says whose sessions are to end",
        ));
    }
    let farewell = app.identity.sessions.end_all(&ctx, &user).await;
    farewell
        .map(|farewell| goodbye(farewell, false))
        .map_err(|error| middleware::refusal(here!(), &ctx, &error))
}

/// Checks a token and begins a session for its user, for the handler at `place`.
pub(super) async fn sign_in(
    place: Place,
    ctx: &Context,
    app: &App,
    token: &str,
) -> Result<(SessionId, Arc<Session>), Refusal> {
    let user = app
        .identity
        .tokens
        .verify(ctx, token)
        .await
        .map_err(|error| token_refusal(place.clone(), ctx, &error))?;
    let old = session::from_context(ctx).map(|session| session.id);
    let begun = app.identity.sessions.begin(ctx, user, old).await;
    begun.map_err(|error| middleware::refusal(place, ctx, &error))
}

/// Gives `id` to the browser.
pub(super) fn set_cookie(response: &mut Response, id: &SessionId) {
    // An id is base64url, so it always makes a cookie.
    if let Some(cookie) = middleware::cookie(id) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

/// The one token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("send one Authorization: Bearer TOKEN");
    };
    let value = value.to_str().ok();
    let token = value.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    token.ok_or("Authorization is not Bearer TOKEN")
}

fn token_refusal(place: Place, ctx: &Context, error: &TokenError) -> Refusal {
    if let Some(end) = error.canceled() {
        return Refusal::ended(place, ctx, end).with("step", error.to_string());
    }
    if error.is_refused() {
        return unauthorized(place, &error.to_string());
    }
    Refusal::new(place, Code::IssuerUnavailable, error.to_string())
}

fn unauthorized(place: Place, message: &str) -> Refusal {
    Refusal::new(place, Code::InvalidToken, message)
}

fn goodbye(farewell: Farewell, own: bool) -> Response {
    let holds = if farewell.at_once {
        "at once".to_string()
    } else {
        format!("within {}", go(CONFIRMED_FOR))
    };
    let body = json!({ "ended": farewell.ended, "holds": holds });
    let mut response = answer::json_response(StatusCode::OK, &body).into_response();
    if own {
        let forget: HeaderValue = middleware::no_cookie();
        response.headers_mut().insert(header::SET_COOKIE, forget);
    }
    response
}
