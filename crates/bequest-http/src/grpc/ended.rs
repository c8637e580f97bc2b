//! How a call ended, read from its status: by our own context, or by the peer's.

use std::time::Duration;

use bequest::{Canceled, Context, Reason};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::grpc::{self, CANCELLED, DEADLINE_EXCEEDED};

/// Marks, in the metadata of a status, one that was made here and not by the peer. What a peer sends under this name is
/// taken out.
pub(super) const MARK: HeaderName = HeaderName::from_static("bequest-ended-here");

/// The end of a call that was cancelled, or whose time ran out.
///
/// ```
/// use bequest::{Context, Kind, Reason};
/// use bequest_http::grpc::Ended;
/// use http::HeaderMap;
///
/// // With tonic: Ended::of(&ctx, status.code().into(), status.metadata().as_ref())
/// let ctx = Context::background().with_cancel();
/// let ended = Ended::of(&ctx, 4, &HeaderMap::new()).unwrap();
/// assert!(ended.is_remote(), "the peer had a limit of its own; ours has not passed");
/// assert_eq!(ended.canceled().kind(), Kind::DeadlineExceeded);
/// assert_eq!(ended.canceled().reason(), Reason::Remote);
///
/// assert!(Ended::of(&ctx, 5, &HeaderMap::new()).is_none(), "NOT_FOUND is an answer");
/// ```
#[derive(Clone, Debug)]
pub struct Ended {
    end: Canceled,
    is_remote: bool,
}

/// The gRPC status code for an end: 4 (DEADLINE_EXCEEDED) if time ran out, 14 (UNAVAILABLE) for a shutdown or a signal, 1
/// (CANCELLED) otherwise. For handlers that answer for themselves.
///
/// ```
/// use bequest::Context;
/// use std::time::Duration;
///
/// let end = Context::background().with_timeout(Duration::ZERO).err().unwrap();
/// assert_eq!(bequest_http::grpc::code(&end), 4);
/// // With tonic: tonic::Status::new(bequest_http::grpc::code(&end).into(), end.kind().to_string())
/// ```
pub fn code(end: &Canceled) -> i32 {
    grpc::code(end)
}

/// Why an end that was made here came about, as its mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// The caller's context ended.
    Context,
    /// The exchange took longer than the layer lets one.
    Limit,
    /// Too little time was left to begin with.
    TooLittle,
}

impl Ended {
    /// The end behind the status of a call that was made for `ctx` through a [`ClientLayer`](super::ClientLayer): its code
    /// and its metadata. `None` if it is no end, but an answer or a failure.
    pub fn of(ctx: &Context, code: i32, metadata: &HeaderMap) -> Option<Ended> {
        if let Some(here) = Here::read(metadata) {
            let end = match (ctx.err(), here) {
                (Some(end), _) => end,
                (None, Here::Limit) => passed(Reason::Limit("exchange")),
                (None, Here::Context | Here::TooLittle) => passed(Reason::Deadline),
            };
            return Some(Ended {
                end,
                is_remote: false,
            });
        }
        let end = match code {
            CANCELLED => cancelled(),
            DEADLINE_EXCEEDED => passed(Reason::Remote),
            _ => return None,
        };
        Some(Ended { end, is_remote: true })
    }

    /// The end as any other: its kind, its reason ([`Remote`](Reason::Remote) if the peer ended it), its cause.
    pub fn canceled(&self) -> &Canceled {
        &self.end
    }

    /// Whether it was the peer that cancelled, or whose time ran out, while our own context went on.
    ///
    /// A peer that was told of our deadline sees it pass a little before we do, as each side keeps something for the answer.
    /// Up to four [margins](crate::wire::Outbound::margin), and an eighth of our time at most, that counts as our own.
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }
}

impl From<Ended> for Canceled {
    fn from(ended: Ended) -> Canceled {
        ended.end
    }
}

impl Here {
    pub(super) fn mark(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Here::Context => "context",
            Here::Limit => "limit",
            Here::TooLittle => "too-little-time",
        })
    }

    fn read(metadata: &HeaderMap) -> Option<Here> {
        match metadata.get(MARK)?.as_bytes() {
            b"limit" => Some(Here::Limit),
            b"too-little-time" => Some(Here::TooLittle),
            _ => Some(Here::Context),
        }
    }
}

/// The end of a time that has passed, here or elsewhere.
fn passed(reason: Reason) -> Canceled {
    let scope = Context::background().with_timeout(Duration::ZERO).named("call");
    scope.reason(reason).err().expect("no time is left")
}

/// The end of a call that the peer cancelled.
fn cancelled() -> Canceled {
    let scope = Context::background().with_cancel().named("call");
    scope.cancel_for(Reason::Remote);
    scope.err().expect("cancelled above")
}
