//! The statuses of gRPC, as headers and trailers.
//!
//! Every gRPC answer has the HTTP status 200; how the call ended stands in `grpc-status` and `grpc-message`, in trailers
//! after the messages, or in the head of an answer that has none ("trailers-only").

use bequest::{Canceled, Kind, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The codes that this crate gives or reads; the numbers are gRPC's.
pub(crate) const CANCELLED: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const DEADLINE_EXCEEDED: i32 = 4;
pub(crate) const INTERNAL: i32 = 13;
pub(crate) const UNAVAILABLE: i32 = 14;

/// How a call ended, as its peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrpcStatus {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl GrpcStatus {
    /// What a peer is told of an end: its kind and its reason, and nothing about where it came from.
    pub(crate) fn of(end: &Canceled) -> GrpcStatus {
        GrpcStatus {
            code: code(end),
            message: format!("{}: {}", end.kind(), end.reason()),
        }
    }

    /// Sets it in trailers, or in the head of an answer without messages.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, HeaderValue::from(self.code));
        headers.insert(MESSAGE, percent_encoded(&self.message));
    }

    /// The trailers that say it.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.write(&mut trailers);
        trailers
    }

    /// The head that says it, in an answer without messages.
    pub(crate) fn head(&self) -> HeaderMap {
        let mut head = self.trailers();
        let kind = HeaderValue::from_static("application/grpc");
        head.insert(header::CONTENT_TYPE, kind);
        head
    }
}

/// The status code of an end: `DEADLINE_EXCEEDED` (4) if time ran out, `UNAVAILABLE` (14) for a shutdown, which another
/// server may be asked after, and `CANCELLED` (1) otherwise.
pub(crate) fn code(end: &Canceled) -> i32 {
    match (end.kind(), end.reason()) {
        (Kind::DeadlineExceeded, _) => DEADLINE_EXCEEDED,
        (_, Reason::Shutdown | Reason::Signal(_)) => UNAVAILABLE,
        _ => CANCELLED,
    }
}

/// The status that headers or trailers say, if they say one.
#[cfg(any(feature = "grpc", test))]
pub(crate) fn read_code(headers: &HeaderMap) -> Option<i32> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether these are the headers of a gRPC request or answer. Those of gRPC-Web, which has no trailers, are not.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

/// A message as gRPC writes it: printable ASCII but for `%`, everything else as `%` and two digits.
fn percent_encoded(message: &str) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                encoded.extend([b'%', DIGITS[high], DIGITS[low]]);
            }
        }
    }
    HeaderValue::from_bytes(&encoded).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bequest::Context;

    use super::*;

    #[test]
    fn ends_have_the_code_of_their_kind() {
        let late = Context::background().with_timeout(Duration::ZERO);
        assert_eq!(code(&late.err().unwrap()), DEADLINE_EXCEEDED);
        for (reason, expected) in [
            (Reason::Limit("request"), DEADLINE_EXCEEDED),
            (Reason::Shutdown, UNAVAILABLE),
            (Reason::Explicit, CANCELLED),
            (Reason::Remote, CANCELLED),
        ] {
            let scope = Context::background().with_cancel();
            scope.cancel_for(reason);
            assert_eq!(code(&scope.err().unwrap()), expected, "{reason}");
        }
    }

    #[test]
    fn a_peer_is_told_kind_and_reason_but_no_cause() {
        let scope = Context::background().with_cancel().named("secret plan");
        scope.cancel_with("the password was wrong");
        let status = GrpcStatus::of(&scope.err().unwrap());
        assert_eq!(status.message, "context canceled: cancel called");
    }

    #[test]
    fn messages_are_percent_encoded() {
        let status = |message: &str| GrpcStatus {
            code: UNKNOWN,
            message: message.to_owned(),
        };
        let written = |message| status(message).trailers()[MESSAGE].clone();
        assert_eq!(written("100 %\r\n"), "100 %25%0D%0A");
        assert_eq!(written("가"), "%EA%B0%80");
        assert_eq!(read_code(&status("").trailers()), Some(UNKNOWN));
    }

    #[test]
    fn content_types_of_grpc() {
        let is = |kind: &str| {
            is_grpc(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                kind.parse().unwrap(),
            )]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;charset=x"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is("text/application/grpc"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
