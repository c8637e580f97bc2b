//! Answers: JSON, text and pages, and the one envelope in which everything that is not 200 is told.

mod accept;
mod code;
mod respond;
mod status;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::Value;

use crate::domain::duration::GoDuration;

pub(crate) use accept::wants_page;
pub(crate) use code::{Code, Counting};
pub(crate) use respond::{context_of, let_out, respond, respond_at, stand_in, way_out};
pub(crate) use status::{HandlerStatus, Refusal};

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
    fn escapes() {
        assert_eq!(
            escaped(r#"<a href="x">'&'"#),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;"
        );
    }
}
