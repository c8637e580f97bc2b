//! The session of each request: read what the client brought, check it, hand it down in the context.
//!
//! # Invariants
//!
//! 1. An identity header that a handler sees was set here. Whatever came from outside under such a name is gone.
//! 2. The id itself goes no further than this module.
//! 3. A cookie, which a browser sends along whoever asked it to, signs in no request that changes something and was
//!    made by another site.
//! 4. A request that brings two different answers to the question who it is gets none: it is refused.

pub(crate) mod extract;
mod headers;

use std::sync::Arc;

use axum::response::Response;
use bequest::Context;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use self::headers::{Ambiguous, Presented, Way};
use super::id::SessionId;
use super::{SessionError, Sessions};
use crate::answer::{Code, Refusal};
use crate::domain::session;
use crate::log::{self, Place, here};

pub(crate) use self::headers::SESSION_HEADER;

/// What is left to do for the client's session when its request has been answered.
#[derive(Clone, Copy, Debug)]
#[must_use = "a cookie that has become useless is taken back with the answer"]
pub(crate) struct Parting {
    /// The browser brought a cookie whose session does not stand.
    forget: bool,
}

/// Finds out who is asking, and lets the request's context carry the session. A request without one, or with one that
/// has ended, goes on without.
///
/// # Cancel safety
///
/// As [`Sessions::read`].
///
/// # Errors
///
/// The answer that the request gets without being handled.
pub(crate) async fn identify<B>(
    sessions: &Arc<Sessions>,
    request: &mut Request<B>,
) -> Result<Parting, Refusal> {
    headers::strip_identity(request.headers_mut());
    let presented = match headers::take_presented(request.headers_mut()) {
        Ok(Some(presented)) => presented,
        Ok(None) => return Ok(Parting { forget: false }),
        Err(Ambiguous) => {
            return Err(Refusal::new(
                here!(),
                Code::AmbiguousSession,
                Ambiguous.to_string(),
            ));
        }
    };
    let by_cookie = presented.way == Way::Cookie;
    if by_cookie && is_cross_site(request.method(), request.uri(), request.headers()) {
        return Err(cross_site(here!()));
    }
    let known = sign_in(sessions, request, presented).await?;
    Ok(Parting {
        forget: by_cookie && !known,
    })
}

impl Parting {
    /// Completes the answer.
    pub(crate) fn part(self, response: &mut Response) {
        if self.forget && !response.headers().contains_key(header::SET_COOKIE) {
            response
                .headers_mut()
                .insert(header::SET_COOKIE, headers::no_cookie());
        }
    }
}

/// The cookie that makes a browser bring `id` from now on.
pub(crate) fn cookie(id: &SessionId) -> Option<HeaderValue> {
    headers::cookie(id)
}

/// The cookie that makes a browser forget its id.
pub(crate) fn no_cookie() -> HeaderValue {
    headers::no_cookie()
}

/// Whether another site made a browser send this request, which would change something.
///
/// As Go's `http.CrossOriginProtection`: browsers say so in `Sec-Fetch-Site`, older ones in `Origin`; what sends neither
/// is no browser, and has no cookies that it did not mean to send.
pub(crate) fn is_cross_site(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_none_or(|(_, authority)| Some(authority) != host)
}

pub(crate) fn cross_site(place: Place) -> Refusal {
    Refusal::new(place, Code::CrossSite, Code::CrossSite.title())
}

/// The answer when it is not known whether a session stands.
pub(crate) fn refusal(place: Place, ctx: &Context, error: &SessionError) -> Refusal {
    match error.canceled() {
        Some(end) => Refusal::ended(place, ctx, end).with("step", error.to_string()),
        None => Refusal::new(place, Code::SessionsUnavailable, error.to_string()),
    }
}

/// Puts the session into the request's context, if it stands. Whether it does.
async fn sign_in<B>(
    sessions: &Arc<Sessions>,
    request: &mut Request<B>,
    presented: Presented,
) -> Result<bool, Refusal> {
    let Some(ctx) = request.extensions().get::<Context>().cloned() else {
        return Err(Refusal::new(
            here!(),
            Code::Internal,
            "no context in this request",
        ));
    };
    let Some(id) = presented.id else {
        return Ok(false);
    };
    let found = sessions.read(&ctx, id.hash()).await;
    let found = found.map_err(|error| refusal(here!(), &ctx, &error))?;
    // The last step's answer may have come together with the end: the handler is not begun then.
    ctx.check().map_err(|end| Refusal::ended(here!(), &ctx, &end))?;
    let Some(found) = found else {
        return Ok(false);
    };
    headers::set_identity(request.headers_mut(), &found);
    log::identify(&ctx, Arc::clone(&found));
    let ctx = session::new_context(&ctx, found);
    match request.extensions_mut().get_mut::<Context>() {
        Some(place) => *place = ctx,
        None => drop(request.extensions_mut().insert(ctx)),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::cache::memory::MemoryCache;
    use crate::session::sessions::Lifetime;
    use crate::torture::Scratch;
    use crate::torture::stores::user;
    use std::time::Duration;

    /// What a handler sees of who is asking: header by header, every one that is an identity by our or anybody's name.
    fn seen(headers: &HeaderMap) -> Vec<String> {
        let telling = |name: &str| {
            let name = name.replace(['_', '.'], "-");
            ["myapp", "user", "remote", "forwarded", "auth", "cookie"]
                .iter()
                .any(|part| name.contains(part))
        };
        let headers = headers.iter().filter(|(name, _)| telling(name.as_str()));
        let mut seen: Vec<_> = headers
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        seen.sort();
        seen
    }

    /// Whatever comes from outside in the name of an identity, a handler sees what was set here and nothing else; and the
    /// session in the context is the one that was checked.
    #[tokio::test]
    async fn a_handler_sees_the_identity_that_was_checked_and_no_other() {
        let (ctx, scratch) = (Context::background(), Scratch::new().unwrap());
        let database = Arc::new(scratch.database(&ctx).await.unwrap());
        let cache = Arc::new(MemoryCache::new(Duration::from_secs(60), 10));
        let lifetime = Lifetime {
            idle: Duration::from_secs(60),
            absolute: Duration::from_secs(60),
        };
        let sessions = Sessions::open(&ctx, database, cache, lifetime).await.unwrap();
        let (id, session) = sessions.begin(&ctx, user(), None).await.unwrap();
        let forged = [
            ("x-myapp-user", "root"),
            ("X-Myapp-User", "root"),
            ("x_myapp_user", "root"),
            ("X-MyApp-Role", "admin"),
            ("x-forwarded-user", "root"),
            ("X-Auth-Request-Email", "root@example.test"),
            ("Remote-User", "root"),
            ("remote_user", "root"),
            ("X.Authenticated.User", "root"),
        ];
        let cookie = format!("a=1; __Host-myapp-session={}", id.expose());
        let by_header = id.expose();
        for (way, left) in [
            (None, vec![]),
            (
                Some(("x-myapp-session", by_header.as_str())),
                vec!["x-myapp-user: ann"],
            ),
            (
                Some(("cookie", cookie.as_str())),
                vec!["cookie: a=1", "x-myapp-user: ann"],
            ),
        ] {
            let mut request = Request::get("/").extension(ctx.clone());
            for (name, value) in forged.into_iter().chain(way).chain(forged) {
                request = request.header(name, value);
            }
            let mut request = request.body(()).unwrap();
            let parting = identify(&sessions, &mut request).await.unwrap();
            assert!(!parting.forget);
            assert_eq!(seen(request.headers()), left, "{way:?}");
            let known = request
                .extensions()
                .get::<Context>()
                .and_then(session::from_context);
            assert_eq!(known, way.is_some().then_some(&session));
        }
        sessions.drain().await;
    }

    fn is_refused(method: &Method, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|&(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        is_cross_site(method, &Uri::from_static("/sessions"), &headers)
    }

    #[test]
    fn what_another_site_asked_for_is_refused() {
        let host = ("host", "bequest.example");
        for (headers, refused) in [
            (vec![host, ("sec-fetch-site", "same-origin")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
            (vec![host, ("sec-fetch-site", "same-site")], true),
            (vec![host, ("sec-fetch-site", "cross-site")], true),
            (vec![host, ("origin", "https://bequest.example")], false),
            (vec![host, ("origin", "https://evil.example")], true),
            (vec![host, ("origin", "null")], true),
            (vec![host], false),
        ] {
            assert_eq!(is_refused(&Method::DELETE, &headers), refused, "{headers:?}");
            assert_eq!(is_refused(&Method::POST, &headers), refused, "{headers:?}");
            assert!(!is_refused(&Method::GET, &headers), "it changes nothing");
        }
    }
}
