//! Answers: JSON, text and pages, and the one envelope in which everything that went wrong is told.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bequest::{Canceled, Context, Kind, Reason};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::domain::budget::TooLittleTime;
use crate::domain::duration::GoDuration;

/// An answer other than success: `{"Status":…,"Code":…,"Result":{…}}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// A word that programs may branch on.
    code: &'static str,
    result: Map<String, Value>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        let mut result = Map::new();
        result.insert("message".into(), message.into().into());
        Refusal { status, code, result }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Refusal {
        self.result.insert(name.into(), value.into());
        self
    }

    /// The answer to work that ended with its context: `request` tells whether the request's own has ended too.
    ///
    /// A deadline is a 504 that says whose it was. A client that has left gets nothing, so what is made here is never
    /// sent. A part that was cancelled while the request lives is our own fault: 500.
    pub(crate) fn ended(request: &Context, end: &Canceled) -> Refusal {
        let (status, code) = match (end.kind(), end.reason()) {
            (Kind::DeadlineExceeded, _) => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
            (_, Reason::Shutdown) => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            _ if request.is_done() => (bequest_http::server::client_closed_request(), "client_gone"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "canceled"),
        };
        let refusal = Refusal::new(status, code, end.to_string()).with("reason", end.reason().to_string());
        let refusal = match end.cause() {
            Some(cause) => refusal.with("cause", cause.to_string()),
            None => refusal,
        };
        match end.scope() {
            (Some(name), _) => refusal.with("set_by", name),
            (None, _) => refusal.with(
                "set_by",
                format!("{}:{}", end.origin().file(), end.origin().line()),
            ),
        }
    }
}

impl From<TooLittleTime> for Refusal {
    fn from(little: TooLittleTime) -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_little_time",
            little.to_string(),
        )
        .with("left", go(little.left))
        .with("least", go(little.least))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "Status": self.status.as_u16(), "Code": self.code, "Result": self.result });
        let mut response = json_response(self.status, &body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, kind, format!("{body}\n")).into_response()
}

pub(crate) fn text(body: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        body,
    )
        .into_response()
}

/// A page. It may load scripts and styles from this origin alone.
pub(crate) fn page(body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// `text` with the five characters escaped that mean something in HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Whether the client asks for a page rather than for JSON: what it names first of the two.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let place = |kind: &str| accept.find(kind).unwrap_or(usize::MAX);
    place("text/html") < place("application/json")
}

/// A span as Go prints it, to the microsecond.
pub(crate) fn go(span: Duration) -> String {
    GoDuration::from_std(Duration::from_micros(
        u64::try_from(span.as_micros()).unwrap_or(u64::MAX),
    ))
    .to_string()
}

/// A span in milliseconds, to the microsecond.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_504_that_says_whose() {
        let request = Context::background().with_cancel();
        let limit = request.with_timeout(Duration::ZERO).named("timeout=1us");
        let refusal = Refusal::ended(&request, &limit.err().unwrap());
        assert_eq!(refusal.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(refusal.result["set_by"], "timeout=1us");
    }

    #[test]
    fn a_cancelled_part_of_a_live_request_is_our_fault() {
        let request = Context::background().with_cancel();
        let part = request.with_cancel();
        part.cancel();
        assert_eq!(
            Refusal::ended(&request, &part.err().unwrap()).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        request.cancel_for(Reason::ClientGone);
        assert_eq!(
            Refusal::ended(&request, &request.err().unwrap()).status.as_u16(),
            499
        );
    }

    #[test]
    fn pages_are_for_those_who_name_them_first() {
        let accepts =
            |text: &'static str| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))]);
        assert!(wants_page(&accepts("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(!wants_page(&accepts("*/*")));
        assert!(!wants_page(&accepts("application/json, text/html")));
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn escapes() {
        assert_eq!(
            escaped(r#"<a href="x">'&'"#),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;"
        );
    }
}
