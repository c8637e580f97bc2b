//! Promise 2: an end says how, why, by whom, from which line and when.

use std::error::Error;
use std::panic::Location;
use std::task::Poll;
use std::time::Duration;

use bequest::clock::Clock;
use bequest::{Canceled, Context, Key, Kind, Label, Reason, inspect};

use crate::clock::Manual;
use crate::poll::poll_once;

const SECOND: Duration = Duration::from_secs(1);

fn is_here(origin: &Location<'_>, line: u32) {
    assert_eq!((origin.file(), origin.line()), (file!(), line));
}

static LABELLED: u32 = line!() + 1;
static SHARED: Label = Label::new("shared").reason(Reason::Limit("shared"));

#[test]
fn a_label_stands_in_place_of_the_line_until_more_is_said() {
    let labelled = || {
        Context::background()
            .with_timeout(Duration::ZERO)
            .labelled(&SHARED)
    };
    let scope = labelled();
    let end = scope.err().unwrap();
    assert_eq!(end.reason(), Reason::Limit("shared"));
    assert!(end.to_string().contains("(shared "), "{end}");
    is_here(end.origin(), LABELLED);

    let scope = labelled().named("own").reason(Reason::Deadline);
    let end = scope.err().unwrap();
    assert_eq!(end.reason(), Reason::Deadline);
    assert!(end.to_string().contains("(own "), "{end}");
    is_here(end.origin(), LABELLED);
}

#[test]
#[rustfmt::skip]
fn the_origin_is_the_line_of_the_call_that_cancelled() {
    let scope = Context::background().with_cancel();
    let canceller = scope.canceller();
    let at = |cancel: &dyn Fn(&bequest::CancelScope) -> u32| {
        let scope = Context::background().with_cancel();
        let line = cancel(&scope);
        is_here(scope.err().unwrap().origin(), line);
    };
    at(&|scope| { scope.cancel(); line!() });
    at(&|scope| { scope.cancel_with("why"); line!() });
    at(&|scope| { scope.cancel_for(Reason::Remote); line!() });
    at(&|scope| { scope.canceller().cancel(); line!() });
    at(&|scope| { scope.canceller().cancel_with("why"); line!() });
    at(&|scope| { scope.canceller().cancel_for(Reason::Remote); line!() });
    canceller.cancel(); let line = line!();
    is_here(scope.err().unwrap().origin(), line);
}

#[test]
#[rustfmt::skip]
fn the_origin_of_a_dropped_scope_or_a_deadline_is_the_line_that_made_it() {
    let root = Context::background();
    let (scope, line) = (root.with_cancel(), line!());
    let seen = scope.context();
    drop(scope);
    is_here(seen.err().unwrap().origin(), line);

    let ended: [(Canceled, u32); 4] = [
        (root.with_timeout(Duration::ZERO).err().unwrap(), line!()),
        (root.with_deadline(std::time::UNIX_EPOCH).err().unwrap(), line!()),
        (root.cleanup(Duration::ZERO).err().unwrap(), line!()),
        (limited(&root), line!()),
    ];
    for (end, line) in ended {
        is_here(end.origin(), line);
    }
    let (merged, line) = (Context::any([&root]), line!());
    let seen = merged.context();
    drop(merged);
    is_here(seen.err().unwrap().origin(), line);
}

#[track_caller]
fn limited(root: &Context) -> Canceled {
    let mut limited = Box::pin(root.timeout(Duration::ZERO, std::future::pending::<()>()));
    match poll_once(&mut limited) {
        Poll::Ready(answer) => answer.unwrap_err(),
        Poll::Pending => panic!("the limit is over"),
    }
}

#[test]
fn roots_are_listed_under_the_line_that_made_them() {
    inspect::enable();
    let (root, line) = (Context::with_clock(Manual::new()), line!());
    let (job, job_line) = (root.without_cancel(), line!());
    let made: Vec<_> = inspect::on_clock_of(&job)
        .live
        .iter()
        .map(|row| row.made_at)
        .collect();
    is_here(made[0], line);
    is_here(made[1], job_line);
}

#[test]
fn the_scope_says_its_name_and_number() {
    let outer = Context::background().with_cancel().named("outer");
    let inner = outer.with_cancel().named("inner");
    outer.cancel();
    let end = inner.err().unwrap();
    assert_eq!(end.scope(), (Some("outer"), outer.id()));
    assert!(end.is_from(&outer) && !end.is_from(&inner));
    assert_ne!(outer.id(), inner.id());
}

#[test]
fn the_stamp_is_on_the_clock_of_the_context() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone()).with_timeout(9 * SECOND);
    clock.advance(SECOND);
    scope.cancel();
    assert_eq!(scope.err().unwrap().at(), Some(clock.now()));
}

#[test]
fn the_kind_survives_any_reason_and_cause() {
    let clock = Manual::new();
    let scope = Context::with_clock(clock.clone())
        .with_timeout(SECOND)
        .reason(Reason::ClientGone)
        .caused_by("whatever");
    clock.advance(SECOND);
    let end = scope.err().unwrap();
    assert_eq!(end, Kind::DeadlineExceeded);
    assert!(end.is_timeout());
    assert_eq!(end.reason(), Reason::ClientGone);
}

#[test]
fn the_text_opens_with_gos_sentences_and_says_why() {
    let named = Context::background().with_cancel().named("request");
    named.cancel_for(Reason::ClientGone);
    let expected = format!("context canceled: client disconnected (request {})", named.id());
    assert_eq!(named.err().unwrap().to_string(), expected);

    let unnamed = Context::background().with_cancel();
    unnamed.cancel_with("quota");
    let text = unnamed.err().unwrap().to_string();
    assert!(
        text.starts_with("context canceled: cancel called (cancelled at "),
        "{text}"
    );
    assert!(text.contains(file!()) && text.ends_with("): quota"), "{text}");

    let late = Context::background().with_timeout(Duration::ZERO).err().unwrap();
    let text = late.to_string();
    assert!(
        text.starts_with("context deadline exceeded: deadline passed (made at "),
        "{text}"
    );
}

#[test]
fn the_cause_is_the_source() {
    let scope = Context::background().with_cancel();
    scope.cancel_with(std::io::Error::other("disk"));
    let end = scope.err().unwrap();
    let source = end.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(source.to_string(), "disk");
    assert_eq!(end.clone().cause().unwrap().to_string(), "disk");
}

#[test]
fn my_own_limit_is_told_from_an_outer_end() {
    let request = Context::background().with_cancel();
    let step = request.with_timeout(Duration::ZERO);
    assert!(step.err().unwrap().is_from(&step));
    let dead_on_arrival = request.with_timeout(SECOND).context();
    let end = dead_on_arrival.err().unwrap();
    assert_eq!(
        end.reason(),
        Reason::ScopeEnded,
        "the temporary scope is gone, and its error says so"
    );
    assert_eq!(end.origin().file(), file!());
}

/// Printed, it would give itself away.
struct Secret;

impl std::fmt::Debug for Secret {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("a value was printed")
    }
}

#[test]
fn debug_prints_names_of_keys_and_never_a_value() {
    static PLAIN: Key<Secret> = Key::new("plain");
    static HIDDEN: Key<Secret> = Key::new("hidden").sensitive();
    let scope = Context::background()
        .with_cancel()
        .with_value(&PLAIN, Secret)
        .with_value(&HIDDEN, Secret);
    let guard = scope.after_func(|_| {});
    let mut done = scope.done();
    assert!(poll_once(&mut done).is_pending());
    let printed = format!(
        "{:?} {:?} {scope:?} {:?} {guard:?} {done:?} {:?} {:?} {:?}",
        scope.context(),
        scope.context().done_owned(),
        scope.canceller(),
        scope.run(async {}),
        scope.timeout(SECOND, async {}),
        scope.sleep(SECOND),
    );
    assert!(printed.contains("plain"));
    assert!(!printed.contains("hidden"), "{printed}");
}

#[test]
fn sensitive_values_neither_cross_nor_come_in() {
    use bequest::Codec;
    const CODEC: Codec<u32> = Codec {
        encode: |number| number.to_string(),
        decode: |text| text.parse().ok(),
        limit: 3,
    };
    static OPEN: Key<u32> = Key::new("open").crossing(CODEC);
    static SECRET: Key<u32> = Key::new("secret").crossing(CODEC).sensitive();
    static HOME: Key<u32> = Key::new("home");
    let root = Context::background();
    let ctx = root
        .with_value(&OPEN, 7)
        .with_value(&SECRET, 8)
        .with_value(&HOME, 9);
    assert_eq!(ctx.crossing(), [("open", "7".into())]);
    assert_eq!(ctx.with_value(&OPEN, 1234).crossing(), [], "over the limit");
    assert!(root.with_crossed(&OPEN, "77").is_some());
    for (key, text) in [(&OPEN, "1234"), (&OPEN, "x"), (&SECRET, "8"), (&HOME, "9")] {
        assert!(root.with_crossed(key, text).is_none(), "{text}");
    }
}
