//! What a handler writes into its signature if it needs a session.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bequest::Context;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::answer::{self, Code, Refusal};
use crate::domain::session::{self, Session};
use crate::log::{Place, here};
use crate::session::next;
use crate::session::settings::NoSessionStatus;

/// The session of the request, as an argument of a handler. Without one the handler is not called: 403, or for a
/// browser that wants to see a page, the way to the login page and back. A [`NoSessionStatus`] in the extensions of the
/// request says if it is to be another status.
#[derive(Clone, Debug)]
pub(crate) struct SignedIn(pub(crate) Arc<Session>);

/// Nobody is signed in.
#[derive(Debug)]
pub(crate) enum NoSession {
    /// To the login page.
    Login(HeaderValue),
    Refused(Place, NoSessionStatus),
}

/// What a 401 has to say (RFC 9110, 15.5.2). There is no registered scheme for a header or a cookie of one's own.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Session realm=\"POST /sessions makes one\"");

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<SignedIn, NoSession> {
        let session = parts.extensions.get::<Context>().and_then(session::from_context);
        session.cloned().map(SignedIn).ok_or_else(|| no_session(parts))
    }
}

fn no_session(parts: &Parts) -> NoSession {
    let looks = parts.method == Method::GET || parts.method == Method::HEAD;
    let status = parts.extensions.get().copied();
    let refused = NoSession::Refused(here!(), status.unwrap_or(NoSessionStatus::Forbidden));
    if !(looks && answer::wants_page(&parts.headers)) {
        return refused;
    }
    let here = parts.uri.path_and_query().map_or("", |here| here.as_str());
    let next = next::local(here).unwrap_or(next::HOME);
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("next", next)
        .finish();
    HeaderValue::from_str(&format!("/login?{query}")).map_or(refused, NoSession::Login)
}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        match self {
            NoSession::Login(place) => {
                let headers = [
                    (header::LOCATION, place),
                    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                ];
                (StatusCode::SEE_OTHER, headers).into_response()
            }
            NoSession::Refused(place, status) => {
                let why = "this needs a session: POST /sessions makes one";
                let refusal = Refusal::new(place, Code::NoSession, why);
                match status {
                    NoSessionStatus::Forbidden => refusal.into_response(),
                    NoSessionStatus::Unauthorized => {
                        let refusal = refusal.with_status(StatusCode::UNAUTHORIZED);
                        ([(header::WWW_AUTHENTICATE, CHALLENGE)], refusal).into_response()
                    }
                }
            }
        }
    }
}
