//! What may be sent, shared and moved: a table that fails to compile when it is no longer true.

use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;
use std::future::Ready;
use std::marker::PhantomPinned;

use bequest::clock::{Alarm, Clock};
use bequest::inspect::{Ended, Live, OnClock, Snapshot, Statistics};
use bequest::{
    AfterFunc, CancelScope, Canceled, Canceller, Codec, Context, Deadline, Done, DoneOwned, Key, Kind,
    Reason, Run, RunOwned, ScopeId, Signal, Sleep, Timeout,
};

fn shared<T: Send + Sync + Unpin + Debug>() {}

/// Implemented twice for a type that has the trait, so that naming the method is ambiguous then.
macro_rules! lacks {
    ($type:ty: $trait:path) => {{
        trait Probe<Marker> {
            fn probe() {}
        }
        struct Has;
        impl<T: ?Sized> Probe<()> for T {}
        impl<T: ?Sized + $trait> Probe<Has> for T {}
        <$type as Probe<_>>::probe()
    }};
}

#[test]
fn everything_is_send_sync_and_debug() {
    shared::<Context>();
    shared::<CancelScope>();
    shared::<Canceller>();
    shared::<Canceled>();
    shared::<AfterFunc>();
    shared::<Key<Cell<u8>>>();
    shared::<Codec<Cell<u8>>>();
    shared::<Deadline>();
    shared::<Kind>();
    shared::<Reason>();
    shared::<Signal>();
    shared::<ScopeId>();
    shared::<Done<'_>>();
    shared::<DoneOwned>();
    shared::<Sleep<'_>>();
    shared::<Run<'_, Ready<()>>>();
    shared::<RunOwned<Ready<()>>>();
    shared::<Timeout<'_, Ready<()>>>();
    shared::<Alarm>();
    shared::<Box<dyn Clock>>();
    shared::<Snapshot>();
    shared::<Live>();
    shared::<Ended>();
    shared::<OnClock>();
    shared::<Statistics>();
}

#[cfg(feature = "tokio")]
#[test]
fn what_tokio_adds_is_send_and_debug() {
    fn sent<T: Send + Debug>() {}
    sent::<bequest::Group<u8, std::io::Error>>();
    shared::<bequest::GroupError<std::io::Error>>();
    shared::<bequest::signal::Signals>();
    sent::<bequest::blocking::SpawnBlocking<Cell<u8>>>();
    shared::<bequest::blocking::BlockingError>();
    shared::<bequest::blocking::Running>();
    fn clock<T: Clock>(_: T) {}
    let _ = || clock(bequest::clock::tokio());
}

#[cfg(all(feature = "tokio", unix))]
#[test]
fn children_are_send_and_debug() {
    use bequest::process::{Child, Ending, Output, ProcessError, output};

    fn sendable<T: Send>(value: T) -> T {
        value
    }
    shared::<Child>();
    shared::<Ending>();
    shared::<Output>();
    shared::<ProcessError>();
    // Named, so that it is checked; not run.
    let _ = || {
        sendable(async {
            let ctx = Context::background();
            output(&ctx, std::process::Command::new("true"), Ending::default()).await
        })
    };
}

#[cfg(feature = "tokio-util")]
#[test]
fn what_tokio_util_adds_is_send_and_debug() {
    shared::<bequest::LinkedToken>();
    shared::<bequest::LinkedScope>();
}

#[test]
fn futures_are_what_their_work_is() {
    lacks!(Run<'static, PhantomPinned>: Unpin);
    lacks!(RunOwned<PhantomPinned>: Unpin);
    lacks!(Timeout<'static, PhantomPinned>: Unpin);
    lacks!(Run<'static, *const u8>: Send);
    lacks!(Run<'static, Cell<u8>>: Sync);
    lacks!(CancelScope: Clone);
    lacks!(AfterFunc: Clone);
}

#[test]
fn canceled_is_an_error_of_one_word_and_a_context_is_two() {
    fn error<T: Error + Clone + Send + Sync + 'static>() {}
    error::<Canceled>();
    assert_eq!(size_of::<Option<Canceled>>(), size_of::<usize>());
    assert_eq!(size_of::<Context>(), 2 * size_of::<usize>());
}
