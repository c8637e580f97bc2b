//! 1c: causes.

use std::time::Duration;

use bequest::{CancelScope, Canceled, Context, Kind, Reason};

use crate::clock::Manual;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c30_kind_and_cause_of_a_cancel() {
    let with = Context::background().with_cancel();
    with.cancel_with("disk full");
    assert_eq!(with.err().unwrap(), Kind::Canceled);
    assert_eq!(cause(&with), Some("disk full".into()));

    let without = Context::background().with_cancel();
    without.cancel();
    assert_eq!(without.err().unwrap(), Kind::Canceled);
    assert_eq!(cause(&without), None, "the error itself says why: its reason");
    assert_eq!(without.err().unwrap().reason(), Reason::Explicit);
}

#[test]
fn c31_the_first_cancel_on_the_path_decides() {
    // Each row: who is cancelled in which order, and the causes that parent and child then have.
    type Row = (
        &'static [(Who, Option<&'static str>)],
        Option<&'static str>,
        Option<&'static str>,
    );
    let rows: [Row; 8] = [
        (&[(Who::Parent, Some("p"))], Some("p"), Some("p")),
        (&[(Who::Parent, None)], None, None),
        (
            &[(Who::Parent, Some("p")), (Who::Child, Some("c"))],
            Some("p"),
            Some("p"),
        ),
        (
            &[(Who::Child, Some("c")), (Who::Parent, Some("p"))],
            Some("p"),
            Some("c"),
        ),
        (&[(Who::Child, None), (Who::Parent, Some("p"))], Some("p"), None),
        (&[(Who::Child, Some("c")), (Who::Parent, None)], None, Some("c")),
        (&[(Who::Parent, None), (Who::Child, Some("c"))], None, None),
        (
            &[(Who::Child, Some("c")), (Who::Child, Some("again"))],
            None,
            Some("c"),
        ),
    ];
    for (number, (steps, parents, childs)) in rows.into_iter().enumerate() {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        for (who, why) in steps {
            let scope = match who {
                Who::Parent => &parent,
                Who::Child => &child,
            };
            match why {
                Some(why) => scope.cancel_with(*why),
                None => scope.cancel(),
            }
        }
        assert_eq!(cause(&parent).as_deref(), parents, "row {number}");
        assert_eq!(cause(&child).as_deref(), childs, "row {number}");
    }
}

#[derive(Clone, Copy)]
enum Who {
    Parent,
    Child,
}

#[test]
fn c31_racing_causes_agree_below_the_first() {
    for _ in 0..300 {
        let parent = Context::background().with_cancel();
        let child = parent.with_cancel();
        let grandchild = child.with_cancel();
        std::thread::scope(|threads| {
            threads.spawn(|| parent.cancel_with("p"));
            threads.spawn(|| child.cancel_with("c"));
        });
        assert_eq!(cause(&parent).as_deref(), Some("p"));
        assert_eq!(cause(&child), cause(&grandchild));
    }
}

#[test]
fn c32_the_deadlines_cause_is_used_only_when_it_fires() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let slow = || root.with_timeout(SECOND).caused_by("too slow");

    let cancelled = slow();
    cancelled.cancel();
    assert_eq!(cause(&cancelled), None);

    let named = slow();
    named.cancel_with("enough");
    assert_eq!(cause(&named), Some("enough".into()));

    let fired = slow().reason(Reason::Limit("cache"));
    assert!(!fired.is_done());
    clock.advance(SECOND);
    assert_eq!(cause(&fired), Some("too slow".into()));
    assert_eq!(
        fired.err().unwrap(),
        Kind::DeadlineExceeded,
        "whatever the reason"
    );
    assert_eq!(fired.err().unwrap().reason(), Reason::Limit("cache"));
}

#[test]
fn c32_the_parents_earlier_deadline_says_so() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let parent = root.with_timeout(SECOND).named("parent").caused_by("parent slow");
    let child = parent.with_timeout(2 * SECOND).caused_by("child slow");
    assert!(!child.is_done());
    clock.advance(5 * SECOND);
    let end = child.err().unwrap();
    assert_eq!(end.cause().unwrap().to_string(), "parent slow");
    assert_eq!(end.scope().0, Some("parent"));
    assert!(end.is_from(&parent) && !end.is_from(&child));
}

#[test]
fn c33_no_cause_while_live_nor_without_cancel() {
    let scope = Context::background().with_timeout(SECOND).caused_by("later");
    assert_eq!(cause(&scope), None);
    scope.cancel_with("now");
    assert!(scope.without_cancel().err().is_none());
}

#[test]
fn c34_a_foreign_cause_is_handed_over_whole() {
    // What another library ended with travels as the cause, by value and with its type.
    let foreign = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let parent = Context::background().with_cancel();
    let child = parent.with_cancel();
    child.canceller().cancel_with(foreign);
    parent.cancel_with("parent, later");
    let end = child.err().unwrap();
    let error = end.cause().unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn c35_the_cause_can_be_read_while_it_is_told() {
    let scope = Context::background().with_cancel();
    let (ctx, (tell, told)) = (scope.context(), std::sync::mpsc::channel());
    let _guard = scope.after_func(move |end: Canceled| {
        let read = ctx.err().unwrap();
        tell.send(read.cause().unwrap().to_string() == end.cause().unwrap().to_string())
            .unwrap();
    });
    scope.cancel_with("why");
    assert!(told.recv().unwrap());
}

fn cause(scope: &CancelScope) -> Option<String> {
    scope.err()?.cause().map(ToString::to_string)
}
