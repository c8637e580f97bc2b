//! The workloads on a tree of cancellation, the same code for every peer that has one.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::case::Case;
use crate::clock::cpu;

pub const HALF_A_MINUTE: Duration = Duration::from_secs(30);
pub const TEN_MINUTES: Duration = Duration::from_secs(600);
pub const TEN_SECONDS: Duration = Duration::from_secs(10);

/// Something whose cancellation reaches what was derived from it. All is inlined into the workload.
pub trait Tree: Send + Sync + Sized + 'static {
    fn root() -> Self;
    fn child(&self) -> Self;
    fn cancel(&self);
    fn is_cancelled(&self) -> bool;
}

/// A tree with deadlines.
pub trait Timed: Tree {
    /// What must be alive for deadlines to work, such as a runtime.
    type Driver: Send + Sync + 'static;
    fn driver(threads: usize) -> Self::Driver;
    /// Calls `work` with a child that has a deadline; `armed`: its timer is registered before.
    fn limited<R>(&self, after: Duration, armed: bool, work: impl FnOnce(&Self) -> R) -> R;
    /// A child with an armed deadline, to be kept.
    type Limited: Send + 'static;
    fn keep_limited(&self, after: Duration) -> Self::Limited;
}

/// The workloads that need no deadline.
pub fn case<T: Tree>(name: &str) -> Option<Case> {
    match name {
        "w1" => {
            let root = T::root();
            Case::cpu(move |count| w1(&root, count))
        }
        "w1_nc" => {
            let root = T::root();
            Case::cpu(move |count| w1_nc(&root, count))
        }
        "w1_100k" => {
            let root = T::root();
            let siblings: Vec<T> = (0..100_000).map(|_| root.child()).collect();
            Case::cpu(move |count| {
                w1(&root, count);
                black_box(&siblings);
            })
        }
        "w2" => {
            let root = T::root();
            Case::threads(move |count| w1(&root, count))
        }
        "w2_nc" => {
            let root = T::root();
            Case::threads(move |count| w1_nc(&root, count))
        }
        "w4_d1" => checks(vec![T::root()]),
        "w4_d10" => checks(line::<T>(11)),
        "w4_2t" => {
            let chain = line::<T>(2);
            Case::threads(move |count| {
                let last = black_box(&chain[1]);
                for _ in 0..count {
                    black_box(black_box(last).is_cancelled());
                }
            })
        }
        "w5_1k" => cancel_many(16, || flat::<T>(1_000)),
        "w5_100k" => cancel_many(1, || flat::<T>(100_000)),
        "w5_1m" => cancel_many(1, || flat::<T>(1_000_000)),
        "w5_bin10" => cancel_many(8, || bushy::<T>(2, 10)),
        "w5_dec5" => cancel_many(1, || bushy::<T>(10, 5)),
        "w5_chain10k" => cancel_many(1, || line::<T>(10_001)),
        "w5_chain1m" => cancel_many(1, || line::<T>(1_000_001)),
        _ => None,
    }
}

fn w1<T: Tree>(root: &T, count: u64) {
    for _ in 0..count {
        let child = black_box(root).child();
        black_box(&child).cancel();
    }
}

fn w1_nc<T: Tree>(root: &T, count: u64) {
    for _ in 0..count {
        black_box(black_box(root).child());
    }
}

fn checks<T: Tree>(chain: Vec<T>) -> Option<Case> {
    Case::cpu(move |count| {
        let last = chain.last().expect("there is a node");
        for _ in 0..count {
            black_box(black_box(last).is_cancelled());
        }
    })
}

/// The root first.
fn flat<T: Tree>(children: usize) -> Vec<T> {
    let mut nodes = Vec::with_capacity(children + 1);
    nodes.push(T::root());
    for _ in 0..children {
        nodes.push(nodes[0].child());
    }
    nodes
}

/// A root and `depth` generations, each node with `width` children.
fn bushy<T: Tree>(width: usize, depth: usize) -> Vec<T> {
    let mut nodes = vec![T::root()];
    let mut generation = 0..1;
    for _ in 0..depth {
        let next = nodes.len();
        for parent in generation {
            for _ in 0..width {
                nodes.push(nodes[parent].child());
            }
        }
        generation = next..nodes.len();
    }
    nodes
}

fn line<T: Tree>(length: usize) -> Vec<T> {
    let mut nodes = Vec::with_capacity(length);
    nodes.push(T::root());
    for place in 1..length {
        nodes.push(nodes[place - 1].child());
    }
    nodes
}

/// Cancels `trees` trees under one reading of the clock; nanoseconds per node below the roots. All handles are alive.
fn cancel_many<T: Tree>(trees: usize, make: impl Fn() -> Vec<T> + 'static) -> Option<Case> {
    Case::rounds(move || {
        let trees: Vec<Vec<T>> = (0..trees).map(|_| make()).collect();
        let began = cpu();
        for tree in &trees {
            tree[0].cancel();
        }
        let took = cpu() - began;
        let mut nodes = 0;
        for mut tree in trees {
            assert!(tree.iter().all(T::is_cancelled));
            nodes += tree.len() as u64 - 1;
            // The youngest first: a peer's destructor may be recursive.
            while tree.pop().is_some() {}
        }
        (took, nodes)
    })
}

/// The workloads with deadlines.
pub fn timed_case<T: Timed>(name: &str) -> Option<Case> {
    match name {
        "w3" | "w3_armed" => {
            let armed = name == "w3_armed";
            let (driver, root) = (T::driver(1), T::root());
            Case::cpu(move |count| {
                w3(&root, armed, count);
                black_box(&driver);
            })
        }
        "w3_100k" => {
            let (driver, root) = (T::driver(1), T::root());
            let other = T::root();
            let outstanding: Vec<T::Limited> =
                (0..100_000).map(|_| other.keep_limited(TEN_MINUTES)).collect();
            Case::cpu(move |count| {
                w3(&root, true, count);
                black_box((&driver, &outstanding));
            })
        }
        "w3_2t" => {
            let (driver, root) = (T::driver(2), T::root());
            Case::threads(move |count| {
                w3(&root, true, count);
                black_box(&driver);
            })
        }
        _ => None,
    }
}

fn w3<T: Timed>(root: &T, armed: bool, count: u64) {
    for _ in 0..count {
        black_box(root).limited(HALF_A_MINUTE, armed, |child| black_box(child).cancel());
    }
}

/// Registers a waiter and withdraws it.
pub fn registrations<F: Future>(mut make: impl FnMut() -> F + 'static) -> Option<Case> {
    Case::cpu(move |count| {
        let mut task = Context::from_waker(Waker::noop());
        for _ in 0..count {
            let wait = pin!(make());
            assert!(wait.poll(&mut task).is_pending());
        }
    })
}
