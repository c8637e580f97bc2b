//! Headers and cookies: what a client says it is, and what handlers are told.

use std::fmt;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};

use super::super::id::SessionId;
use crate::domain::session::Session;

/// Under which programs send a session's id. Page scripts can read what they send: browsers are better off with the
/// cookie.
pub(crate) const SESSION_HEADER: HeaderName = HeaderName::from_static("x-myapp-session");
/// Under which handlers, and back ends that are called with the request's headers, find the user.
pub(crate) const USER_HEADER: HeaderName = HeaderName::from_static("x-myapp-user");

/// The prefix binds it to this host and to HTTPS: no subdomain, no path and no plain connection can set it.
const COOKIE_NAME: &str = "__Host-myapp-session";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// Our own names begin like this; all of them are set here or nowhere.
const OURS: &str = "x-myapp-";
/// By which proxies tell who is asking. No proxy stands before this service that could be believed.
const FOREIGN: [&str; 11] = [
    "remote-user",
    "x-remote-user",
    "x-user",
    "x-user-id",
    "x-authenticated-user",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-auth-request-user",
    "x-auth-request-email",
];

/// What a client brought.
#[derive(Debug)]
pub(crate) struct Presented {
    /// `None` if it cannot be an id.
    pub(crate) id: Option<SessionId>,
    pub(crate) way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Header,
    Cookie,
}

/// More than one session was sent.
#[derive(Debug)]
pub(crate) struct Ambiguous;

/// Removes every header that says who is asking, but for the session's id.
pub(crate) fn strip_identity(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Tells the handler who is asking.
pub(crate) fn set_identity(headers: &mut HeaderMap, session: &Session) {
    // A user whose name is no header value is told by the context alone.
    if let Ok(user) = HeaderValue::from_str(&session.user.id) {
        headers.insert(USER_HEADER, user);
    }
}

/// Takes out what the client brought, so that it goes no further.
pub(crate) fn take_presented(headers: &mut HeaderMap) -> Result<Option<Presented>, Ambiguous> {
    let by_header = take_header(headers)?;
    let by_cookie = take_cookie(headers)?;
    match (by_header, by_cookie) {
        (Some(_), Some(_)) => Err(Ambiguous),
        (presented, None) | (None, presented) => Ok(presented),
    }
}

pub(crate) fn cookie(id: &SessionId) -> Option<HeaderValue> {
    let text = format!("{COOKIE_NAME}={}; {ATTRIBUTES}", id.expose());
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(crate) fn no_cookie() -> HeaderValue {
    HeaderValue::from_static("__Host-myapp-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    // All of them begin with one of two letters, and few other headers do.
    if !name.starts_with(['x', 'r']) {
        return false;
    }
    // Some back ends take an underscore, a dot or whatever else for a hyphen.
    let is_odd = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    if name.contains(is_odd) {
        let name = name.replace(is_odd, "-");
        return name.starts_with(OURS) || FOREIGN.contains(&name.as_str());
    }
    (name.starts_with(OURS) && name != SESSION_HEADER.as_str()) || FOREIGN.contains(&name)
}

fn take_header(headers: &mut HeaderMap) -> Result<Option<Presented>, Ambiguous> {
    let mut values = headers.get_all(SESSION_HEADER).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Ambiguous);
    }
    let id = first.to_str().ok().and_then(SessionId::parse);
    headers.remove(SESSION_HEADER);
    Ok(Some(Presented { id, way: Way::Header }))
}

fn take_cookie(headers: &mut HeaderMap) -> Result<Option<Presented>, Ambiguous> {
    if !headers.contains_key(COOKIE) {
        return Ok(None);
    }
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|&byte| byte == b';') {
            let pair = pair.trim_ascii();
            match pair
                .strip_prefix(COOKIE_NAME.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
            {
                Some(value) => ours.push(value.to_vec()),
                None => others.push(pair.to_vec()),
            }
        }
    }
    let [value] = ours.as_slice() else {
        return if ours.is_empty() { Ok(None) } else { Err(Ambiguous) };
    };
    let id = std::str::from_utf8(value).ok().and_then(SessionId::parse);
    headers.remove(COOKIE);
    // The pieces come from header values, so they make one.
    if let Ok(rest) = HeaderValue::from_bytes(&others.join(&b"; "[..]))
        && !rest.is_empty()
    {
        headers.insert(COOKIE, rest);
    }
    Ok(Some(Presented { id, way: Way::Cookie }))
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more than one session was sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_forged_identity_is_gone() {
        let mut headers = map(&[
            ("x-myapp-user", "root"),
            ("x-myapp-anything", "1"),
            ("x_myapp_user", "root"),
            ("x_myapp_session", "1"),
            ("x.myapp.user", "root"),
            ("x-myapp.session", "1"),
            ("x~forwarded+user", "root"),
            ("remote_user", "root"),
            ("x-forwarded-user", "root"),
            ("x-myapp-session", "kept"),
            ("x_request_id", "kept"),
            ("accept", "*/*"),
        ]);
        headers.append("x-myapp-user", HeaderValue::from_static("again"));
        strip_identity(&mut headers);
        let left: BTreeSet<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            left,
            BTreeSet::from(["x-myapp-session", "x_request_id", "accept"])
        );
    }

    #[test]
    fn every_name_begins_with_a_letter_that_is_looked_at() {
        for name in FOREIGN.into_iter().chain([OURS]) {
            assert!(name.starts_with(['x', 'r']), "{name}");
        }
    }

    #[test]
    fn the_id_is_taken_out_and_the_other_cookies_stay() {
        let id = "A".repeat(43);
        let mut headers = map(&[("cookie", &format!("a=1; {COOKIE_NAME}={id}")), ("cookie", "b=2")]);
        let presented = take_presented(&mut headers).unwrap().unwrap();
        assert_eq!(
            (presented.way, presented.id.unwrap().expose()),
            (Way::Cookie, id.clone())
        );
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);

        let mut headers = map(&[("x-myapp-session", &id)]);
        assert_eq!(take_presented(&mut headers).unwrap().unwrap().way, Way::Header);
        assert!(headers.is_empty());
    }

    #[test]
    fn two_answers_are_none() {
        let id = "A".repeat(43);
        let cookie = format!("{COOKIE_NAME}={id}");
        for headers in [
            [("x-myapp-session", id.as_str()), ("x-myapp-session", id.as_str())],
            [("x-myapp-session", id.as_str()), ("cookie", cookie.as_str())],
            [("cookie", cookie.as_str()), ("cookie", cookie.as_str())],
        ] {
            assert!(take_presented(&mut map(&headers)).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        let presented = take_presented(&mut map(&[("x-myapp-session", "guess")])).unwrap();
        assert!(presented.unwrap().id.is_none());
        assert!(
            take_presented(&mut map(&[("cookie", "myapp-session=1")]))
                .unwrap()
                .is_none()
        );
    }
}
