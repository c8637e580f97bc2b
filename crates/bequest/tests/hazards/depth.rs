//! A million levels on a stack of 256 KiB, which holds a few thousand frames.

use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context, Key};

const LEVELS: usize = 1_000_000;
const STACK: usize = 256 << 10;

fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(STACK).spawn(work);
    thread.unwrap().join().unwrap();
}

/// A chain in which each node is held by the next alone, and its end.
fn chain(root: &Context, levels: usize) -> Context {
    let mut leaf = root.clone();
    for _ in 0..levels {
        let scope = leaf.with_cancel();
        // A canceller was made, so that it stays a node of its own.
        drop(scope.canceller());
        leaf = scope.into_context();
    }
    leaf
}

#[test]
fn a_long_chain_is_cancelled() {
    on_a_small_stack(|| {
        let root = Context::background().with_cancel();
        let leaf = chain(&root, LEVELS);
        root.cancel();
        assert!(leaf.is_done());
        assert!(leaf.err().unwrap().is_from(&root));
    });
}

#[test]
fn a_long_chain_is_dropped() {
    on_a_small_stack(|| {
        let root = Context::background().with_cancel();
        drop(chain(&root, LEVELS));
        assert!(!root.is_done());
    });
}

#[test]
fn a_long_chain_is_dropped_after_it_was_cancelled() {
    on_a_small_stack(|| {
        let root = Context::background().with_cancel();
        let leaf = chain(&root, LEVELS);
        root.cancel();
        drop(root);
        drop(leaf);
    });
}

#[test]
fn a_long_chain_of_owners_is_dropped_from_either_end() {
    for oldest_first in [true, false] {
        on_a_small_stack(move || {
            let mut scopes: Vec<CancelScope> = vec![Context::background().with_cancel()];
            for _ in 0..LEVELS / 10 {
                let scope = scopes.last().unwrap().with_cancel();
                scopes.push(scope);
            }
            if oldest_first {
                scopes.reverse();
            }
            while scopes.pop().is_some() {}
        });
    }
}

#[test]
fn a_deadline_that_has_passed_far_above_is_found_from_below() {
    on_a_small_stack(|| {
        let clock = crate::clock::Manual::new();
        let top = Context::with_clock(clock.clone()).with_timeout(Duration::from_secs(1));
        let leaf = chain(&top, LEVELS / 10).with_cancel();
        clock.advance_in_silence(Duration::from_secs(2));
        leaf.cancel();
        let end = leaf.err().unwrap();
        assert!(end.is_timeout() && end.is_from(&top), "what came first wins");
    });
}

#[test]
fn a_long_list_of_values_is_dropped() {
    static NUMBER: Key<usize> = Key::new("number");
    on_a_small_stack(|| {
        let mut ctx = Context::background();
        for number in 0..LEVELS {
            ctx = ctx.with_value(&NUMBER, number);
        }
        assert_eq!(ctx.value(&NUMBER), Some(&(LEVELS - 1)));
        drop(ctx);
    });
}

#[test]
fn control_a_recursive_destructor_would_need_more_than_the_stack() {
    /// The obvious node, with the obvious destructor: it takes a frame for each level. It is unlinked by hand here, since
    /// an overflow would end the process.
    struct Recursive {
        lowest: *mut usize,
        below: Option<Box<Recursive>>,
    }
    impl Drop for Recursive {
        fn drop(&mut self) {
            let mark = 0_u8;
            #[allow(unsafe_code)]
            // SAFETY: it points to a number of the test below, which outlives the chain.
            unsafe {
                *self.lowest = (*self.lowest).min(std::ptr::from_ref(&mark).addr());
            }
            drop(self.below.take());
        }
    }
    const SHORT: usize = 100;
    let (top, mut lowest) = (0_u8, usize::MAX);
    let mut chain = None;
    for _ in 0..SHORT {
        let below = chain.take();
        chain = Some(Box::new(Recursive {
            lowest: &raw mut lowest,
            below,
        }));
    }
    drop(chain);
    let per_level = std::ptr::from_ref(&top).addr().abs_diff(lowest) / SHORT;
    assert!(per_level * LEVELS > STACK, "{per_level} bytes a level");
}
