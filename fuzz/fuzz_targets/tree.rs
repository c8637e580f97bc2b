//! The tree: any program of derivations, cancels, drops and callbacks leaves it as a naive model says.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bequest::{AfterFunc, CancelScope, Context};
use libfuzzer_sys::fuzz_target;

/// More than this makes a program slower, not meaner.
const MOST: usize = 64;

struct Node {
    ctx: Context,
    /// `None` once it was dropped or given up.
    scope: Option<CancelScope>,
    /// The naive model: whose end is this one's.
    parents: Vec<usize>,
    is_done: bool,
    /// A callback, how often it ran, and whether it was stopped in time.
    told: Option<(Option<AfterFunc>, Arc<AtomicUsize>, bool)>,
}

fuzz_target!(|program: &[u8]| {
    let root = Context::background().with_cancel();
    let mut nodes = vec![Node::of(root, Vec::new(), false)];
    for step in program.chunks_exact(3) {
        let (at, other) = (usize::from(step[1]) % nodes.len(), usize::from(step[2]) % nodes.len());
        match step[0] % 8 {
            0 | 1 if nodes.len() < MOST => {
                let scope = nodes[at].ctx.with_cancel();
                let is_done = nodes[at].is_done;
                nodes.push(Node::of(scope, vec![at], is_done));
            }
            2 if nodes.len() < MOST => {
                let scope = Context::any([&nodes[at].ctx, &nodes[other].ctx]);
                let is_done = nodes[at].is_done || nodes[other].is_done;
                nodes.push(Node::of(scope, vec![at, other], is_done));
            }
            3 if nodes.len() < MOST => {
                let scope = nodes[at].ctx.without_cancel().with_cancel();
                nodes.push(Node::of(scope, Vec::new(), false));
            }
            4 => {
                if let Some(scope) = &nodes[at].scope {
                    scope.cancel();
                    end(&mut nodes, at);
                }
            }
            5 => {
                if let Some(scope) = nodes[at].scope.take() {
                    drop(scope);
                    end(&mut nodes, at);
                }
            }
            6 => {
                if let Some(scope) = nodes[at].scope.take() {
                    nodes[at].ctx = scope.into_context();
                }
            }
            _ => nodes[at].tell_or_stop(),
        }
        for node in &nodes {
            node.check();
        }
    }
});

/// What the model says of an end: whoever has an ended parent has ended.
fn end(nodes: &mut [Node], at: usize) {
    nodes[at].is_done = true;
    // A child stands after its parents.
    for child in at + 1..nodes.len() {
        if nodes[child].parents.iter().any(|parent| nodes[*parent].is_done) {
            nodes[child].is_done = true;
        }
    }
}

impl Node {
    fn of(scope: CancelScope, parents: Vec<usize>, is_done: bool) -> Node {
        Node {
            ctx: scope.context(),
            scope: Some(scope),
            parents,
            is_done,
            told: None,
        }
    }

    /// Registers a callback, or stops the one that there is.
    fn tell_or_stop(&mut self) {
        match &mut self.told {
            None => {
                let count = Arc::new(AtomicUsize::new(0));
                let counted = count.clone();
                let guard = self.ctx.after_func(move |_| {
                    counted.fetch_add(1, Ordering::Relaxed);
                });
                self.told = Some((Some(guard), count, false));
            }
            Some((guard, _, is_stopped)) => {
                if let Some(guard) = guard.take() {
                    *is_stopped = guard.stop();
                    assert!(!(self.is_done && *is_stopped), "it had run");
                }
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.ctx.is_done(), self.is_done);
        assert_eq!(self.ctx.err().is_some(), self.is_done);
        if let Some((guard, count, is_stopped)) = &self.told {
            let ran = count.load(Ordering::Relaxed);
            match guard {
                Some(_) => assert_eq!(ran, usize::from(self.is_done), "once, and before cancel returns"),
                None => assert!(ran <= 1 && !(*is_stopped && ran == 1)),
            }
        }
    }
}
