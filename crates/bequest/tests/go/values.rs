//! 1d: values, `without_cancel`, callbacks.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bequest::Key;
use bequest::{CancelScope, Context, Kind, Reason};

use crate::clock::Manual;
use crate::drops::Drops;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c40_the_nearest_value_under_the_same_key_wins() {
    static FIRST: Key<u32> = Key::new("same name");
    static SECOND: Key<u32> = Key::new("same name");
    static MAYBE: Key<Option<&str>> = Key::new("maybe");
    let outer = Context::background()
        .with_value(&FIRST, 1)
        .with_value(&MAYBE, Some("here"));
    let inner = outer.with_value(&FIRST, 2).with_value(&MAYBE, None);
    assert_eq!(outer.value(&FIRST), Some(&1));
    assert_eq!(inner.value(&FIRST), Some(&2));
    assert_eq!(
        inner.value(&SECOND),
        None,
        "equal type and name do not make an equal key"
    );
    assert_eq!(
        inner.value(&MAYBE),
        Some(&None),
        "a later nothing hides an earlier something"
    );
    assert_eq!(inner.with_cancel().value(&FIRST), Some(&2));
}

/// Neither comparable nor hashable nor printable.
struct Opaque(fn(f64) -> f64);

#[test]
fn c41_every_key_is_valid() {
    // Keys are told apart by a number of their own: there is nothing to compare, so nothing can panic.
    static OPAQUE: Key<Opaque> = Key::new("");
    static NESTED: Key<Vec<Box<dyn Fn() -> u8 + Send + Sync>>> = Key::new("");
    let ctx = Context::background()
        .with_value(&OPAQUE, Opaque(f64::sqrt))
        .with_value(&NESTED, vec![Box::new(|| 7)]);
    assert_eq!((ctx.value(&OPAQUE).unwrap().0)(4.0).to_bits(), 2.0_f64.to_bits());
    assert_eq!(ctx.value(&NESTED).unwrap()[0](), 7);
}

#[test]
fn c42_lookup_at_any_depth() {
    static OLDEST: Key<u32> = Key::new("oldest");
    static MISSING: Key<u32> = Key::new("missing");
    static FILLER: [Key<usize>; 40] = [const { Key::new("filler") }; 40];
    let mut ctx = Context::background().with_value(&OLDEST, 7);
    for depth in 0..10_000 {
        ctx = ctx.with_value(&FILLER[depth % FILLER.len()], depth);
        assert_eq!(ctx.value(&OLDEST), Some(&7));
        assert_eq!(ctx.value(&MISSING), None);
        assert_eq!(ctx.value(&FILLER[depth % FILLER.len()]), Some(&depth));
    }
    for (place, key) in FILLER.iter().enumerate() {
        assert_eq!(ctx.value(key), Some(&(10_000 - FILLER.len() + place)));
    }
}

#[test]
fn c42_hidden_values_are_let_go_of() {
    static COUNTED: Key<crate::drops::Token> = Key::new("counted");
    let drops = Drops::default();
    let mut ctx = Context::background();
    for _ in 0..1000 {
        ctx = ctx.with_value(&COUNTED, drops.token());
    }
    assert!(drops.count() > 980, "a chain of shadows does not grow");
    drop(ctx);
    assert_eq!(drops.count(), 1000);
}

#[test]
fn c43_without_cancel_keeps_values_and_nothing_else() {
    static USER: Key<&str> = Key::new("user");
    let clock = Manual::new();
    let drops = Drops::default();
    let request = Context::with_clock(clock.clone())
        .with_timeout(SECOND)
        .caused_by(drops.token())
        .with_value(&USER, "ann");
    let live = request.without_cancel();
    request.cancel_with("over");
    let dead = request.without_cancel();
    for job in [&live, &dead] {
        assert!(job.err().is_none() && job.deadline().is_none());
        assert_eq!(job.value(&USER), Some(&"ann"));
        let fresh = job.with_timeout(3 * SECOND);
        assert!(!fresh.is_done());
        assert_eq!(fresh.remaining(), Some(3 * SECOND), "on the same clock");
    }
    drop(request);
    assert_eq!(drops.count(), 1, "the chain above is not kept alive");
}

#[test]
fn c44_callbacks_run_after_a_cancel_a_deadline_and_at_once() {
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let (tell, told) = mpsc::channel();
    let register = |scope: &CancelScope| {
        let tell = tell.clone();
        scope.after_func(move |end| tell.send(end.kind()).unwrap())
    };
    let cancelled = root.with_cancel();
    let (_one, _two) = (register(&cancelled), register(&cancelled));
    let expiring = root.with_timeout(SECOND);
    let _three = register(&expiring);
    assert!(told.try_recv().is_err());
    cancelled.cancel();
    assert_eq!(
        told.try_iter().collect::<Vec<_>>(),
        [Kind::Canceled; 2],
        "independent of each other"
    );
    clock.advance(SECOND);
    assert_eq!(told.try_recv(), Ok(Kind::DeadlineExceeded));
    let _four = register(&cancelled);
    assert_eq!(told.try_recv(), Ok(Kind::Canceled), "at once");
    assert!(told.try_recv().is_err(), "and each once");
}

#[test]
fn c44_a_callback_hears_of_a_real_deadline() {
    let scope = Context::background().with_timeout(Duration::from_millis(1));
    let (tell, told) = mpsc::channel();
    let _guard = scope.after_func(move |end| tell.send(end.kind()).unwrap());
    assert_eq!(told.recv(), Ok(Kind::DeadlineExceeded));
}

#[test]
fn c45_stop_is_true_only_for_the_call_that_prevented() {
    let scope = Context::background().with_cancel();
    let calls = Arc::new(AtomicUsize::new(0));
    let register = || {
        let calls = Arc::clone(&calls);
        scope.after_func(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (stopped, dropped, kept) = (register(), register(), register());
    assert!(stopped.stop());
    drop(dropped);
    scope.cancel();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(!kept.stop(), "it has run");
    assert!(!register().stop(), "it ran at once");
    assert!(
        !Context::background().after_func(|_| {}).stop(),
        "it can never come"
    );
}

#[test]
fn c45_stop_does_not_wait_for_a_running_callback() {
    let scope = Context::background().with_cancel();
    let (inside, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let guard = scope.after_func({
        let (inside, leave) = (Arc::clone(&inside), Arc::clone(&leave));
        move |_| {
            inside.wait();
            leave.wait();
        }
    });
    let canceller = scope.canceller();
    let thread = thread::spawn(move || canceller.cancel());
    inside.wait();
    assert!(!guard.stop(), "it has started");
    leave.wait();
    thread.join().unwrap();
}

#[test]
fn c46_cancel_returns_after_the_callbacks() {
    let scope = Context::background().with_cancel();
    let here = thread::current().id();
    let (tell, told) = mpsc::channel();
    let _guard = scope.after_func(move |_| tell.send(thread::current().id()).unwrap());
    scope.cancel();
    assert_eq!(told.try_recv(), Ok(here));
}

#[test]
fn c46_a_panic_in_a_callback_is_caught() {
    let scope = Context::background().with_cancel();
    let calls = Arc::new(AtomicUsize::new(0));
    let _guards: Vec<_> = (0..4)
        .map(|number| {
            let calls = Arc::clone(&calls);
            scope.after_func(move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                assert!(number % 2 == 0, "a callback that panics, on purpose");
            })
        })
        .collect();
    let before = bequest::inspect::statistics().panicked_callbacks;
    assert!(catch_unwind(AssertUnwindSafe(|| scope.cancel())).is_ok());
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(bequest::inspect::statistics().panicked_callbacks >= before + 2);
}

#[test]
fn c47_a_callback_wakes_a_condition_variable() {
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let scope = Context::background().with_cancel();
    let _guard = scope.after_func({
        let pair = Arc::clone(&pair);
        move |_| {
            *pair.0.lock().unwrap() = true;
            pair.1.notify_all();
        }
    });
    thread::scope(|threads| {
        let waiting = threads.spawn(|| {
            let over = pair.0.lock().unwrap();
            drop(pair.1.wait_while(over, |over| !*over).unwrap());
        });
        scope.cancel();
        waiting.join().unwrap();
    });
}

#[test]
fn c47_a_callback_unblocks_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_server, _) = listener.accept().unwrap();
    let scope = Context::background().with_cancel();
    let socket = client.try_clone().unwrap();
    let _guard = scope.after_func(move |_| socket.shutdown(Shutdown::Both).unwrap());
    thread::scope(|threads| {
        let reading = threads.spawn(|| client.read(&mut [0; 1]));
        scope.cancel_for(Reason::ClientGone);
        match reading.join().unwrap() {
            Ok(0) => {}
            Ok(_) => panic!("nobody wrote anything"),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock),
        }
    });
}

#[test]
fn c47_a_merge_keeps_deadline_and_kind() {
    static USER: Key<&str> = Key::new("user");
    let clock = Manual::new();
    let root = Context::with_clock(clock.clone());
    let first = root.with_value(&USER, "ann").with_cancel();
    let second = root.with_timeout(SECOND).caused_by("second slow");
    let both = Context::any([&first, &second]);
    assert_eq!(both.value(&USER), Some(&"ann"));
    assert_eq!(both.deadline(), second.deadline());
    clock.advance(SECOND);
    let end = both.err().unwrap();
    assert_eq!(end, Kind::DeadlineExceeded);
    assert!(end.is_from(&second));
    assert!(!first.is_done());
}
