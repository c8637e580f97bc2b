//! Ours, through its public names.

use std::hint::black_box;
use std::time::Duration;

use bequest::{CancelScope, Context, Key, inspect};

use crate::awaits::{Polls, awaits, polls};
use crate::case::Case;
use crate::tree::{self, HALF_A_MINUTE, TEN_MINUTES, TEN_SECONDS, Timed, Tree, registrations};
use crate::values::{self, Store, Typed};
use crate::wakes::{self, Waited};

pub struct Bequest(CancelScope);

impl Tree for Bequest {
    #[inline(always)]
    fn root() -> Bequest {
        Bequest(Context::background().with_cancel())
    }

    #[inline(always)]
    fn child(&self) -> Bequest {
        Bequest(self.0.with_cancel())
    }

    #[inline(always)]
    fn cancel(&self) {
        self.0.cancel();
    }

    #[inline(always)]
    fn is_cancelled(&self) -> bool {
        self.0.is_done()
    }
}

impl Timed for Bequest {
    type Driver = ();
    type Limited = CancelScope;

    fn driver(_threads: usize) {}

    #[inline(always)]
    fn limited<R>(&self, after: Duration, armed: bool, work: impl FnOnce(&Bequest) -> R) -> R {
        let child = Bequest(self.0.with_timeout(after));
        if armed {
            // The first look arms.
            assert!(!black_box(&child).is_cancelled());
        }
        work(&child)
    }

    fn keep_limited(&self, after: Duration) -> CancelScope {
        let scope = self.0.with_timeout(after);
        assert!(!scope.is_done());
        scope
    }
}

impl Waited for Bequest {
    type Handle = Context;

    fn handle(&self) -> Context {
        self.0.context()
    }

    async fn wait(handle: Context) {
        drop(handle.done().await);
    }

    fn block(handle: Context) {
        drop(handle.wait());
    }
}

static KEYS: [Key<u64>; 128] = [const { Key::new("key") }; 128];

#[derive(Clone)]
pub struct Values(Context);

impl Store for Values {
    #[inline(always)]
    fn empty() -> Values {
        Values(Context::background())
    }

    #[inline(always)]
    fn with<const N: usize>(&self) -> Values {
        Values(self.0.with_value(&KEYS[N], 7))
    }

    #[inline(always)]
    fn get<const N: usize>(&self) -> bool {
        self.0.value(&KEYS[N]).is_some()
    }
}

pub fn case(name: &str) -> Option<Case> {
    match name {
        "w4_deadline" => {
            let scope = under_a_deadline();
            Case::cpu(move |count| {
                for _ in 0..count {
                    black_box(black_box(scope).is_done());
                }
                assert!(!scope.is_done());
            })
        }
        "w4_check" => {
            let scope = Bequest::root();
            Case::cpu(move |count| {
                for _ in 0..count {
                    black_box(black_box(&scope.0).check().is_ok());
                }
            })
        }
        "w5_drop1m" => drop_chain(),
        "w6_reg" => {
            let scope: &'static CancelScope = Box::leak(Box::new(Bequest::root().0));
            registrations(move || black_box(scope).done())
        }
        "w9" | "w9_inspected" => {
            if name == "w9_inspected" {
                inspect::enable();
            }
            let base = Bequest::root();
            Case::cpu(move |count| (0..count).for_each(|_| request(&base)))
        }
        "w9_2t" => {
            let base = Bequest::root();
            Case::threads(move |count| (0..count).for_each(|_| request(&base)))
        }
        "w10_ready" | "w10_3poll" => {
            let (scope, count) = (leaked(Bequest::root().0), polls(name)?);
            awaits(move || scope.run(Polls(count)))
        }
        "w10_ready_deadline" | "w10_3poll_deadline" => {
            let (scope, count) = (under_a_deadline(), polls(name)?);
            awaits(move || scope.run(Polls(count)))
        }
        "w10_ready_timeout" | "w10_3poll_timeout" => {
            let (scope, count) = (leaked(Bequest::root().0), polls(name)?);
            awaits(move || scope.timeout(TEN_SECONDS, Polls(count)))
        }
        "w1_inspected" => {
            inspect::enable();
            tree::case::<Bequest>("w1")
        }
        "switch" => Case::cpu(|count| {
            for _ in 0..count {
                black_box(inspect::is_on());
            }
        }),
        _ => tree::case::<Bequest>(name)
            .or_else(|| tree::timed_case::<Bequest>(name))
            .or_else(|| wakes::case::<Bequest>(name))
            .or_else(|| values::case::<Values>(name)),
    }
}

fn leaked(scope: CancelScope) -> &'static CancelScope {
    Box::leak(Box::new(scope))
}

/// A live context whose deadline is armed. Its parent stays, since a scope ends with that.
fn under_a_deadline() -> &'static CancelScope {
    let root = leaked(Bequest::root().0);
    let scope = root.with_timeout(TEN_MINUTES);
    assert!(!scope.is_done());
    leaked(scope)
}

/// Drops the only handle to a chain of a million, each node held by the next alone.
fn drop_chain() -> Option<Case> {
    const LENGTH: u64 = 1_000_000;
    Case::rounds(|| {
        let root = Context::background().with_cancel();
        let mut leaf = root.context();
        for _ in 0..LENGTH {
            let scope = leaf.with_cancel();
            // With a canceller made, it stays a node of its own when the scope is given up.
            drop(scope.canceller());
            leaf = scope.into_context();
        }
        let began = crate::clock::cpu();
        drop(leaf);
        (crate::clock::cpu() - began, LENGTH)
    })
}

static ONE: Key<Typed<0>> = Key::new("one");
static TWO: Key<Typed<1>> = Key::new("two");

/// W9 as it is written with contexts.
#[inline(always)]
fn request(base: &Bequest) {
    let connection = black_box(&base.0).with_cancel();
    let request = connection
        .with_cancel()
        .with_value(&ONE, Typed(1))
        .with_value(&TWO, Typed(2));
    let route = request.with_timeout(HALF_A_MINUTE);
    for _ in 0..3 {
        let step = route.with_timeout(TEN_SECONDS);
        for _ in 0..20 {
            assert!(black_box(&step).check().is_ok());
        }
        step.cancel();
    }
    connection.cancel();
}
