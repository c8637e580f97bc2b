//! The access log: the combined log format, to the letter, and optionally a little more at its end.
//!
//! ```text
//! 127.0.0.1 - - [29/Jul/2017:19:08:30 +0900] "DELETE /my/api HTTP/1.1" 200 31 "" "Go-http-client/1.1"
//! ```
//!
//! The time is that of the request's beginning, a header that was not sent is an empty field, and what a client chose is
//! escaped as `\xHH`. The extended form goes on after the last quote: why the request ended, how many milliseconds it
//! took, how many of its budget were left (`-` without a deadline), and its id.
//!
//! ```text
//! … "curl/8.5.0" "client disconnected" 1000.312 28999.688 84c5d6dd0a3c1f10-7
//! ```

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use bequest_http::server::Finished;
use http::{HeaderValue, Version};

use super::escape::{push_number, push_quoted};
use super::request::Request;
use super::time::push_combined;

/// How the lines of the access log end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The combined log format and nothing more
    Combined,
    /// Followed by the reason of the end, milliseconds taken and left, and the request's id
    Extended,
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome<'o> {
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) reason: &'o str,
    pub(super) elapsed: Duration,
    pub(super) left: Option<Duration>,
}

/// Writes the line of an exchange that is over, with its end of line.
pub(super) fn push_line(out: &mut String, request: &Request, finished: &Finished<'_>, format: Format) {
    let extended = format == Format::Extended;
    // A text and a look at the clock for each request: only for a line that shows them.
    let reason = extended.then(|| finished.end.reason().to_string());
    let outcome = Outcome {
        status: finished.logged_status().as_u16(),
        bytes: finished.bytes,
        reason: reason.as_deref().unwrap_or_default(),
        elapsed: finished.elapsed,
        left: if extended {
            finished.context.remaining()
        } else {
            None
        },
    };
    push_line_of(out, request, &outcome, format);
}

/// Every request pays for this, so the common parts are written without the machinery of `format!`.
pub(super) fn push_line_of(out: &mut String, request: &Request, outcome: &Outcome<'_>, format: Format) {
    push_address(out, request.peer.ip().to_canonical());
    out.push_str(" - - [");
    push_combined(out, request.begun);
    out.push_str("] \"");
    push_quoted(out, request.method.as_str().as_bytes());
    out.push(' ');
    match request.uri.path_and_query() {
        Some(target) => push_quoted(out, target.as_str().as_bytes()),
        None => push_quoted(out, request.uri.to_string().as_bytes()),
    }
    out.push(' ');
    out.push_str(protocol(request.version));
    out.push_str("\" ");
    push_number(out, u64::from(outcome.status), 3);
    out.push(' ');
    push_number(out, outcome.bytes, 1);
    push_header(out, request.referer.as_ref());
    push_header(out, request.agent.as_ref());
    if format == Format::Extended {
        push_extension(out, request, outcome);
    }
    out.push('\n');
}

fn push_address(out: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push('.');
                }
                push_number(out, u64::from(octet), 1);
            }
        }
        // Writing to a string cannot fail, here and below.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn push_header(out: &mut String, value: Option<&HeaderValue>) {
    out.push_str(" \"");
    push_quoted(out, value.map_or(&[], HeaderValue::as_bytes));
    out.push('"');
}

fn push_extension(out: &mut String, request: &Request, outcome: &Outcome<'_>) {
    out.push_str(" \"");
    push_quoted(out, outcome.reason.as_bytes());
    let _ = write!(out, "\" {:.3} ", outcome.elapsed.as_secs_f64() * 1e3);
    match outcome.left {
        Some(left) => drop(write!(out, "{:.3}", left.as_secs_f64() * 1e3)),
        None => out.push('-'),
    }
    let _ = write!(out, " {}", request.id());
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
