//! `/login` and `/token`: signing in without an identity provider at hand, by the embedded authentication server.
//!
//! They are for trying things out. With `--issuer` there is no such server: the page then says where tokens come from.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bequest_http::axum::Ctx;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::sessions;
use crate::answer::{self, Code, Refusal, escaped};
use crate::app::App;
use crate::log::{Place, here};
use crate::session::middleware;
use crate::session::next;
use crate::token::client::FetchError;

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    next: String,
}

/// `GET /login[?next=/path]`.
pub(super) async fn page(State(app): State<Arc<App>>, Query(question): Query<Question>) -> Response {
    let next = next::local(&question.next).unwrap_or(next::HOME);
    let form = match app.identity.demo {
        Some(_) => format!(
            "<form method=post action=/login><input name=user value=ann aria-label=user autofocus> \
             <input type=hidden name=next value=\"{}\"><button>Sign in</button></form>\
             <p>The embedded authentication server believes everybody. It is for trying things out.</p>",
            escaped(next)
        ),
        None => "<p>Get a token from the authentication server that this service was started with, and send it to \
                 <code>POST /sessions</code>.</p>"
            .to_string(),
    };
    answer::page(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sign in</title><link rel=stylesheet href=/style.css>\
         <main><h1>Sign in</h1>{form}</main>\n"
    ))
}

/// `POST /login` with the form of the page: a token for the user, a session for the token, a cookie for the session.
pub(super) async fn sign_in(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    form: Bytes,
) -> Result<Response, Refusal> {
    if middleware::is_cross_site(&method, &uri, &headers) {
        return Err(middleware::cross_site(here!()));
    }
    let field = |name: &str| {
        let pair = form_urlencoded::parse(&form).find(|(field, _)| field == name);
        pair.map_or_else(String::new, |(_, value)| value.into_owned())
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("user", &field("user"))
        .finish();
    let token = token_for(here!(), &ctx, &app, query.into()).await?;
    let (id, _) = sessions::sign_in(here!(), &ctx, &app, &token).await?;
    let next = field("next");
    let next = next::local(&next).unwrap_or(next::HOME);
    let place = HeaderValue::from_str(next).unwrap_or(HeaderValue::from_static(next::HOME));
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response();
    sessions::set_cookie(&mut response, &id);
    Ok(response)
}

/// `POST /token` with `user=NAME` as a form or in the query: a token of the embedded authentication server, as text.
pub(super) async fn token(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    uri: Uri,
    form: Bytes,
) -> Result<Response, Refusal> {
    let form = match uri.query() {
        Some(query) if form.is_empty() => query.to_string().into(),
        _ => form,
    };
    let token = token_for(here!(), &ctx, &app, form).await?;
    Ok(answer::text(format!("{token}\n")))
}

/// A token of the embedded server, for the handler at `place`.
async fn token_for(place: Place, ctx: &bequest::Context, app: &App, form: Bytes) -> Result<String, Refusal> {
    let Some(demo) = &app.identity.demo else {
        let why = "tokens come from the authentication server";
        return Err(Refusal::new(place, Code::NotFound, why));
    };
    demo.token(ctx, form).await.map_err(|error| match error {
        FetchError::Ended(end) => Refusal::ended(place, ctx, &end),
        FetchError::Status(StatusCode::BAD_REQUEST) => Refusal::new(
            place,
            Code::BadUser,
            "user= is 1 to 64 letters, digits or one of .-_@; gender= and age= are optional",
        ),
        other => Refusal::new(place, Code::Issuer, other.to_string()),
    })
}
