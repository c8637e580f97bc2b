//! W6: from a cancel until those who wait have run.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::case::Case;
use crate::tree::Tree;

/// A tree on which tasks and threads wait.
pub trait Waited: Tree {
    type Handle: Clone + Send + Sync + 'static;
    fn handle(&self) -> Self::Handle;
    fn wait(handle: Self::Handle) -> impl Future<Output = ()> + Send + 'static;
    fn block(handle: Self::Handle);
}

/// Long enough for an idle thread to park.
const SETTLE: Duration = Duration::from_micros(200);
const TASKS: usize = 10_000;

pub fn case<T: Waited>(name: &str) -> Option<Case> {
    match name {
        "w6_ct" => {
            let runtime = current_thread();
            Case::latency(move || runtime.block_on(wake_here::<T>()))
        }
        "w6_mt" => {
            let runtime = two_threads();
            Case::latency(move || wake_there::<T>(&runtime))
        }
        "w6_thread" => wake_thread::<T>(),
        "w6_10k" => {
            let runtime = two_threads();
            Case::latency(move || runtime.block_on(runtime.spawn(crowd::<T>(false))).unwrap())
        }
        "w6_10k_ct" => {
            let runtime = current_thread();
            Case::latency(move || runtime.block_on(crowd::<T>(false)))
        }
        "w6_10k_own" => {
            let runtime = two_threads();
            Case::latency(move || runtime.block_on(runtime.spawn(crowd::<T>(true))).unwrap())
        }
        _ => None,
    }
}

pub fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

pub fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

/// When a waiter ran, in nanoseconds after `origin`; zero until then.
struct Ran {
    origin: Instant,
    at: AtomicU64,
}

impl Ran {
    fn new() -> Arc<Ran> {
        Arc::new(Ran {
            origin: Instant::now(),
            at: AtomicU64::new(0),
        })
    }

    fn now(&self) {
        self.at
            .store(self.origin.elapsed().as_nanos() as u64, Ordering::Release);
    }

    /// Nanoseconds from `began` until the waiter ran, which is waited for.
    fn after(&self, began: Instant) -> f64 {
        loop {
            match self.at.load(Ordering::Acquire) {
                0 => std::hint::spin_loop(),
                at => return at as f64 - began.duration_since(self.origin).as_nanos() as f64,
            }
        }
    }
}

async fn wake_here<T: Waited>() -> f64 {
    let (node, ran) = (T::root(), Ran::new());
    let task = tokio::spawn({
        let (ran, handle) = (Arc::clone(&ran), node.handle());
        async move {
            T::wait(handle).await;
            ran.now();
        }
    });
    tokio::task::yield_now().await;
    let began = Instant::now();
    node.cancel();
    task.await.unwrap();
    ran.after(began)
}

fn wake_there<T: Waited>(runtime: &Runtime) -> f64 {
    let (node, ran) = (T::root(), Ran::new());
    runtime.spawn({
        let (ran, handle) = (Arc::clone(&ran), node.handle());
        async move {
            T::wait(handle).await;
            ran.now();
        }
    });
    std::thread::sleep(SETTLE);
    let began = Instant::now();
    node.cancel();
    ran.after(began)
}

fn wake_thread<T: Waited>() -> Option<Case> {
    let (send, receive) = mpsc::channel::<(T::Handle, Arc<Ran>)>();
    // It ends when the case, and with it the sender, is dropped.
    std::thread::spawn(move || {
        for (handle, ran) in receive {
            T::block(handle);
            ran.now();
        }
    });
    Case::latency(move || {
        let (node, ran) = (T::root(), Ran::new());
        send.send((node.handle(), Arc::clone(&ran))).unwrap();
        std::thread::sleep(SETTLE);
        let began = Instant::now();
        node.cancel();
        ran.after(began)
    })
}

/// Many tasks wait on one node, or each on a child of its own; nanoseconds per task until the last has run. What is
/// counted is completions, not handles in order: that would reward one order of waking.
async fn crowd<T: Waited>(own: bool) -> f64 {
    let root = T::root();
    let nodes: Vec<T> = (0..TASKS)
        .map(|_| if own { root.child() } else { T::root() })
        .collect();
    let ran = Ran::new();
    let (waiting, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(TASKS)));
    for node in &nodes {
        let handle = if own { node.handle() } else { root.handle() };
        let (ran, waiting, left) = (Arc::clone(&ran), Arc::clone(&waiting), Arc::clone(&left));
        tokio::spawn(async move {
            waiting.fetch_add(1, Ordering::SeqCst);
            T::wait(handle).await;
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                ran.now();
            }
        });
    }
    while waiting.load(Ordering::SeqCst) < TASKS {
        tokio::task::yield_now().await;
    }
    // The last to be counted may not have been polled to its end yet.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    root.cancel();
    while left.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    ran.after(began) / TASKS as f64
}
