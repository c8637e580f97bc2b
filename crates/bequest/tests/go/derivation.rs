//! 1a: derivation, propagation, cancellation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Canceller, Context, Key, Kind, Reason, ScopeId, inspect};

use crate::clock::Manual;
use crate::poll::{Wakes, poll_once, poll_with};
use crate::random::Random;

const HOUR: Duration = Duration::from_secs(3600);

static NUMBER: Key<u64> = Key::new("number");

#[test]
fn c1_background_and_todo() {
    for (ctx, name) in [(Context::background(), "background"), (Context::todo(), "todo")] {
        assert!(!ctx.is_done());
        assert!(ctx.check().is_ok() && ctx.err().is_none());
        assert!(ctx.deadline().is_none() && ctx.remaining().is_none());
        assert!(ctx.value(&NUMBER).is_none());
        assert!(poll_once(&mut ctx.done()).is_pending());
        let printed = format!("{ctx:?}");
        assert!(printed.contains(name), "{printed}");
    }
}

#[test]
fn c2_cancel_ends_all_derived_before_it_returns() {
    let root = Context::background().with_cancel();
    let other = Context::background().with_cancel();
    let chain = chain_below(&root, 100);
    let flat: Vec<_> = (0..100).map(|_| chain[50].with_cancel()).collect();
    let valued = flat[0].context().with_value(&NUMBER, 1);
    let timed = valued.with_timeout(HOUR);
    let merged = Context::any([other.context(), timed.context()]);
    root.cancel();
    for scope in chain.iter().chain(&flat).chain([&timed, &merged]) {
        assert_eq!(scope.err().unwrap(), Kind::Canceled);
        assert!(scope.err().unwrap().is_from(&root));
    }
    assert!(valued.is_done());
    assert!(!other.is_done());
}

#[test]
fn c3_siblings_and_parents_are_untouched() {
    let parent = Context::background().with_cancel();
    let (first, second) = (parent.with_cancel(), parent.with_cancel());
    first.cancel();
    assert!(first.is_done());
    assert!(!second.is_done() && !parent.is_done());
}

#[test]
fn c4_cancel_is_idempotent_and_the_first_call_wins() {
    let scope = Context::background().with_cancel();
    scope.cancel_with("first");
    scope.cancel_with("second");
    scope.cancel_for(Reason::Shutdown);
    let end = scope.err().unwrap();
    assert_eq!(end.cause().unwrap().to_string(), "first");
    assert_eq!(end.reason(), Reason::Explicit);
}

#[test]
fn c4_simultaneous_cancels_of_a_tree() {
    for seed in 0..20 {
        let mut random = Random::seeded(seed);
        let mut scopes = vec![Context::background().with_cancel()];
        while scopes.len() < 100 {
            let parent = random.below(scopes.len());
            scopes.push(scopes[parent].with_cancel());
        }
        for place in (1..scopes.len()).rev() {
            scopes.swap(place, random.below(place + 1));
        }
        let cancellers: Vec<Canceller> = scopes.iter().map(CancelScope::canceller).collect();
        let start = Barrier::new(4);
        thread::scope(|threads| {
            for part in cancellers.chunks(25) {
                let start = &start;
                threads.spawn(move || {
                    start.wait();
                    part.iter().for_each(Canceller::cancel);
                });
            }
        });
        for scope in &scopes {
            assert_eq!(scope.wait(), Kind::Canceled, "seed {seed}");
        }
    }
}

#[test]
fn c4_interlocked_cancels() {
    let parent = Context::background().with_cancel();
    let child = parent.with_cancel();
    let (up, down) = (parent.canceller(), child.canceller());
    let _one = child.after_func(move |_| up.cancel());
    let _two = parent.after_func(move |_| down.cancel());
    child.cancel();
    assert!(parent.is_done(), "cancelled from the child's notification");
}

#[test]
fn c5_err_is_none_then_one_of_two_kinds_for_ever() {
    let scope = Context::background().with_cancel();
    assert!(scope.err().is_none());
    let timeout = Context::background().with_timeout(Duration::ZERO).err().unwrap();
    assert_eq!(timeout, Kind::DeadlineExceeded);
    scope.cancel_with(timeout);
    for _ in 0..3 {
        let end = scope.err().unwrap();
        assert_eq!(end, Kind::Canceled, "the kind survives any cause");
        let cause = end.cause().unwrap().downcast_ref::<bequest::Canceled>();
        assert_eq!(*cause.unwrap(), Kind::DeadlineExceeded);
    }
}

#[test]
fn c6_err_implies_that_done_is_ready() {
    for _ in 0..200 {
        let scope = Context::background().with_cancel();
        let child = scope.with_cancel();
        let start = Barrier::new(3);
        thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    start.wait();
                    while child.err().is_none() {
                        std::hint::spin_loop();
                    }
                    assert!(poll_once(&mut child.done()).is_ready());
                });
            }
            start.wait();
            scope.cancel();
        });
    }
}

#[test]
fn c7_child_of_an_ended_parent() {
    let parent = Context::background().with_cancel();
    parent.cancel_with("over");
    let children = [
        parent.with_cancel(),
        parent.with_timeout(HOUR),
        parent.context().with_value(&NUMBER, 1).with_cancel(),
        Context::any([&parent]),
    ];
    for child in &children {
        let end = child.err().unwrap();
        assert_eq!(end, Kind::Canceled);
        assert_eq!(end.cause().unwrap().to_string(), "over");
        assert!(end.is_from(&parent));
    }
}

#[test]
fn c7_child_of_a_parent_that_ends_meanwhile() {
    for _ in 0..500 {
        let parent = Context::background().with_cancel();
        let start = Barrier::new(2);
        let child = thread::scope(|threads| {
            let deriving = threads.spawn(|| {
                start.wait();
                parent.with_cancel().into_context().with_timeout(HOUR)
            });
            start.wait();
            parent.cancel_with("over");
            deriving.join().unwrap()
        });
        assert_eq!(child.err().unwrap().cause().unwrap().to_string(), "over");
    }
}

#[test]
fn c8_an_ended_child_leaves_its_parent() {
    inspect::enable();
    let parent = Context::background().with_cancel();
    let cancelled = parent.with_cancel();
    let timed = parent.with_timeout(HOUR);
    let guard = parent.after_func(|_| {});
    let mut waiting = Box::pin(parent.context().done_owned());
    assert!(poll_once(&mut waiting).is_pending());
    assert_eq!(below(&parent), (2, 2));

    cancelled.cancel();
    drop(cancelled);
    drop(timed);
    assert_eq!(below(&parent), (0, 2));
    assert!(guard.stop());
    drop(waiting);
    assert_eq!(below(&parent), (0, 0));

    let kept = parent.with_cancel();
    parent.cancel();
    assert_eq!(below(&parent), (0, 0), "an ended parent lists nobody");
    drop(kept);
}

#[test]
fn c9_a_child_that_is_never_cancelled_is_not_kept() {
    inspect::enable();
    let immortal = Context::background().with_cancel();
    for _ in 0..1000 {
        let child = immortal.with_timeout(HOUR);
        assert!(!child.is_done());
    }
    assert_eq!(below(&immortal), (0, 0));
}

#[test]
fn c10_layers_of_values_and_cancels() {
    for seed in 0..50 {
        layers(seed, |scopes, _, random| {
            let chosen = random.below(scopes.len());
            scopes[chosen].cancel();
            (Kind::Canceled, scopes[chosen].id())
        });
    }
}

#[test]
fn c10_layers_of_values_and_timeouts() {
    for seed in 0..50 {
        layers(seed, |scopes, clock, _| {
            let timed = scopes.iter().filter(|scope| scope.deadline().is_some());
            let earliest = timed.min_by_key(|scope| scope.deadline()).unwrap().id();
            clock.advance(HOUR * 2);
            (Kind::DeadlineExceeded, earliest)
        });
    }
}

/// A random chain of values, cancels and timeouts; `end` ends the leaf and says how and by whom.
fn layers(seed: u64, end: impl Fn(&[CancelScope], &Manual, &mut Random) -> (Kind, ScopeId)) {
    static KEYS: [Key<u64>; 4] = [Key::new("a"), Key::new("b"), Key::new("c"), Key::new("d")];
    let mut random = Random::seeded(seed);
    let clock = Manual::new();
    let mut ctx = Context::with_clock(clock.clone());
    let mut scopes: Vec<CancelScope> = Vec::new();
    let mut expected = [None; 4];
    for layer in 0..40u64 {
        match random.below(3) {
            0 => {
                let key = random.below(KEYS.len());
                expected[key] = Some(layer);
                ctx = ctx.with_value(&KEYS[key], layer);
            }
            1 => ctx = push(&mut scopes, ctx.with_cancel()),
            _ => {
                let span = HOUR + Duration::from_secs(random.next() % 1000);
                ctx = push(&mut scopes, ctx.with_timeout(span));
            }
        }
    }
    scopes.push(ctx.with_timeout(HOUR + Duration::from_secs(500)));
    let leaf = scopes.last().unwrap().context();
    let check_values = |leaf: &Context| {
        let found: Vec<_> = KEYS.iter().map(|key| leaf.value(key).copied()).collect();
        assert_eq!(found, expected, "seed {seed}");
    };
    check_values(&leaf);
    assert!(!leaf.is_done());
    let (kind, by) = end(&scopes, &clock, &mut random);
    let seen = leaf.err().unwrap();
    assert_eq!(seen, kind, "seed {seed}");
    assert_eq!(seen.scope().1, by, "seed {seed}");
    check_values(&leaf);
}

fn push(scopes: &mut Vec<CancelScope>, scope: CancelScope) -> Context {
    let context = scope.context();
    scopes.push(scope);
    context
}

#[test]
fn c11_there_is_no_nil_parent() {
    // Each derivation asks for a reference, and a reference is never null: the absent one has its bit pattern.
    let _: [fn(&Context) -> CancelScope; 1] = [Context::with_cancel];
    let _: fn(&Context) -> Context = Context::without_cancel;
    assert_eq!(size_of::<Option<&Context>>(), size_of::<&Context>());
    assert!(
        Context::any::<Context>([]).err().is_none(),
        "none at all is a root"
    );
}

#[test]
fn c12_a_million_deep_on_a_small_stack() {
    let deep = || {
        let root = Context::background().with_cancel();
        let chain = chain_below(&root, 1_000_000);
        let leaf = chain.last().unwrap().context();
        root.cancel();
        assert!(leaf.is_done());
        // Handles go from the root downwards, so that the last one frees the whole chain at once.
        drop(chain);
        drop(root);
        drop(leaf);
    };
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(deep);
    thread.unwrap().join().unwrap();
}

#[test]
fn c13_everybody_is_told_once_in_no_promised_order() {
    let scope = Context::background().with_cancel();
    let told = Arc::new(Mutex::new(Vec::new()));
    let guards: Vec<_> = (0..100)
        .map(|number| {
            let told = Arc::clone(&told);
            scope.after_func(move |_| told.lock().unwrap().push(number))
        })
        .collect();
    scope.cancel();
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_unstable();
    assert!(told.into_iter().eq(0..100));
    drop(guards);
}

#[test]
fn c14_done_is_stable() {
    let scope = Context::background().with_cancel();
    let wakes = Wakes::new();
    let (mut first, mut second) = (scope.done(), scope.context().done_owned());
    assert!(poll_with(&wakes, &mut first).is_pending());
    assert!(poll_with(&wakes, &mut second).is_pending());
    scope.cancel();
    assert_eq!(wakes.count(), 2);
    for _ in 0..3 {
        assert!(poll_once(&mut first).is_ready(), "once ready, always ready");
        assert!(poll_once(&mut second).is_ready());
    }
}

#[test]
fn c15_debug_prints_a_path_and_no_value() {
    static SECRET: Key<&'static str> = Key::new("secret");
    let request = Context::background()
        .with_timeout(HOUR)
        .named("request")
        .with_value(&SECRET, "hunter2");
    let leaf = request.with_cancel().named("leaf");
    let printed = format!("{leaf:?}");
    for part in ["background > request ", " > leaf ", "remaining", "secret"] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(!printed.contains("hunter2"), "{printed}");
    leaf.cancel();
    assert!(
        format!("{leaf:?}").contains("ended: context canceled"),
        "{leaf:?}"
    );
}

/// What a foreign library may have: its own notion of being over, with listeners.
#[derive(Default)]
struct Foreign(Mutex<Vec<Canceller>>);

impl Foreign {
    fn stop(&self) {
        let listeners = std::mem::take(&mut *self.0.lock().unwrap());
        listeners.iter().for_each(Canceller::cancel);
    }
}

#[test]
fn c16_a_foreign_source_cancels_through_a_canceller() {
    inspect::enable();
    let foreign = Foreign::default();
    let parent = Context::background().with_cancel();
    let bridged = parent.with_cancel();
    foreign.0.lock().unwrap().push(bridged.canceller());
    let child = bridged.with_cancel();
    assert_eq!(below(&parent).0, 1, "one node, no thread and no task");
    foreign.stop();
    assert!(child.is_done(), "synchronously, with the whole chain");
    assert!(!parent.is_done());
    drop((child, bridged));
    assert_eq!(below(&parent).0, 0);
}

/// A type of one's own around a context.
struct Wrapper(CancelScope, Arc<AtomicUsize>);

impl AsRef<Context> for Wrapper {
    fn as_ref(&self) -> &Context {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.as_ref()
    }
}

#[test]
fn c17_a_wrapper_is_asked_for_its_own_context() {
    let asked = Arc::new(AtomicUsize::new(0));
    let wrapper = Wrapper(Context::background().with_cancel(), Arc::clone(&asked));
    let both = Context::any([&wrapper]);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "not bypassed");
    wrapper.0.cancel();
    assert!(both.err().unwrap().is_from(&wrapper.0));
}

fn chain_below(root: &Context, length: usize) -> Vec<CancelScope> {
    let mut chain = Vec::with_capacity(length);
    chain.push(root.with_cancel());
    while chain.len() < length {
        let next = chain[chain.len() - 1].with_cancel();
        chain.push(next);
    }
    chain
}

/// How many children a scope lists, and how many wait on it.
fn below(scope: &CancelScope) -> (usize, usize) {
    let live = inspect::snapshot().live;
    let row = live.iter().find(|row| row.id == scope.id()).unwrap();
    (row.children, row.waiting)
}
