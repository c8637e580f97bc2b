//! 4b: signals. Each test has a signal of its own, since a signal goes to the whole process.

use std::process::Command;

use bequest::signal::notify;
use bequest::{Context, Kind, Reason, Signal};

use crate::poll::poll_once;

const HANGUP: Signal = Signal::HANGUP;
const USER1: Signal = Signal::from_raw(10);
const USER2: Signal = Signal::from_raw(12);
const WINDOW: Signal = Signal::from_raw(28);

fn raise(signal: Signal) {
    let (number, process) = (signal.as_raw().to_string(), std::process::id().to_string());
    let status = Command::new("kill")
        .arg(format!("-{number}"))
        .arg(process)
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn n1_the_first_listed_signal_ends_it_and_is_the_reason() {
    let (signals, line) = (notify(&Context::background(), &[USER1, WINDOW]).unwrap(), line!());
    let child = signals.with_cancel();
    raise(USER1);
    let end = child.done().await;
    assert_eq!(end, Kind::Canceled);
    assert_eq!(end.reason(), Reason::Signal(USER1));
    assert!(end.to_string().contains("signal 10 received"), "{end}");
    assert_eq!(end.scope().0, Some("signal"));
    assert_eq!((end.origin().file(), end.origin().line()), (file!(), line));
}

#[tokio::test]
async fn n2_later_signals_do_not_end_the_process() {
    let signals = notify(&Context::background(), &[USER2]).unwrap();
    raise(USER2);
    assert_eq!(signals.done().await.reason(), Reason::Signal(USER2));
    raise(USER2);
    assert_eq!(signals.again().done().await.reason(), Reason::Signal(USER2));
    // Unheard, yet caught: the default action would end this process.
    raise(USER2);
    let seen = signals.context();
    drop(signals);
    raise(USER2);
    assert_eq!(
        seen.err().unwrap().reason(),
        Reason::Signal(USER2),
        "the first event wins"
    );
}

#[tokio::test]
async fn n2_dropping_it_stops_listening() {
    let signals = notify(&Context::background(), &[WINDOW]).unwrap();
    let seen = signals.context();
    drop(signals);
    assert_eq!(seen.err().unwrap().reason(), Reason::ScopeEnded);
}

#[tokio::test]
async fn n3_the_parents_end_comes_through() {
    for before in [true, false] {
        let parent = Context::background().with_cancel();
        if before {
            parent.cancel_with("parent");
        }
        let signals = notify(&parent, &[WINDOW]).unwrap();
        if !before {
            assert!(poll_once(&mut signals.done()).is_pending());
            parent.cancel_with("parent");
        }
        let end = signals.done().await;
        assert_eq!(end, Kind::Canceled);
        assert_eq!(end.cause().unwrap().to_string(), "parent");
        assert!(signals.again().is_done());
    }
}

#[tokio::test]
async fn n4_it_prints_what_it_is() {
    let signals = notify(&Context::background(), &[WINDOW]).unwrap();
    let printed = format!("{signals:?}");
    assert!(printed.contains("background > signal "), "{printed}");
}

#[tokio::test]
async fn n5_the_signal_is_typed_and_a_second_one_is_heard() {
    let signals = notify(&Context::background(), &[HANGUP]).unwrap();
    raise(HANGUP);
    let Reason::Signal(first) = signals.done().await.reason() else {
        panic!("not a signal");
    };
    assert_eq!((first, first.to_string()), (HANGUP, "SIGHUP".into()));
    assert!(!signals.again().is_done());
    raise(HANGUP);
    assert_eq!(signals.again().done().await.reason(), Reason::Signal(HANGUP));
}

#[tokio::test]
async fn n5_a_signal_that_cannot_be_caught_is_an_error() {
    assert!(notify(&Context::background(), &[Signal::from_raw(9)]).is_err());
}
