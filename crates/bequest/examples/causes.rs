//! Causes: the kind says how a context ended, the reason and the cause say why, the scope says whose end it was.
//!
//! Run it with `cargo run -p bequest --example causes`; it says nothing if every assertion holds.

use std::fmt;
use std::time::Duration;

use bequest::{Canceled, Context, Kind, Reason};

#[derive(Debug, PartialEq, Eq)]
struct QuotaUsedUp {
    tenant: u32,
}

impl fmt::Display for QuotaUsedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quota of tenant {} used up", self.tenant)
    }
}

impl std::error::Error for QuotaUsedUp {}

/// The cause by its type, if that is what it is.
fn quota(ctx: &Context) -> Option<&'static str> {
    let end = ctx.err()?;
    end.cause()?
        .downcast_ref::<QuotaUsedUp>()
        .map(|_| "come back tomorrow")
}

/// Asks the cache with a limit of its own, and the database if that limit, and no other, has passed.
fn look_up(ctx: &Context, cache: impl Fn(&Context) -> Result<u32, Canceled>) -> Result<u32, Canceled> {
    let step = ctx
        .with_timeout(Duration::from_millis(20))
        .named("cache")
        .caused_by("cache: 20 ms");
    match cache(&step) {
        Err(end) if end.is_from(&step) => ask_database(ctx),
        answer => answer,
    }
}

fn ask_database(ctx: &Context) -> Result<u32, Canceled> {
    ctx.check().map(|()| 42)
}

pub(crate) fn main() {
    let request = Context::background().with_cancel().named("request");
    let query = request.with_timeout(Duration::from_secs(5));
    assert_eq!(quota(&query), None, "it lives");
    request.cancel_with(QuotaUsedUp { tenant: 7 });
    assert_eq!(quota(&query), Some("come back tomorrow"));

    let end = query.err().unwrap();
    assert_eq!(end, Kind::Canceled, "the kind survives any cause");
    assert!(end.is_from(&request));
    assert_eq!(end.scope(), (Some("request"), request.id()));
    assert_eq!(end.origin().file(), file!());
    assert_eq!(
        end.to_string(),
        format!(
            "context canceled: cancel called (request {}): quota of tenant 7 used up",
            request.id()
        )
    );

    let step = Context::background()
        .with_timeout(Duration::ZERO)
        .caused_by("cache: 20 ms")
        .reason(Reason::Limit("cache"));
    let end = step.err().unwrap();
    assert_eq!(end, Kind::DeadlineExceeded);
    assert_eq!(end.reason(), Reason::Limit("cache"));
    assert_eq!(end.cause().unwrap().to_string(), "cache: 20 ms");

    let request = Context::background().with_cancel();
    let slow_cache = |step: &Context| Err(step.wait());
    assert_eq!(
        look_up(&request, slow_cache).unwrap(),
        42,
        "my own limit is a failure to be mended"
    );
    let gone = |step: &Context| {
        request.cancel_for(Reason::ClientGone);
        Err(step.wait())
    };
    let end = look_up(&request, gone).unwrap_err();
    assert_eq!(end.reason(), Reason::ClientGone, "an outer end is not");
}
