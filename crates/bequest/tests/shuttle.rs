//! The tree under random schedules: programs of several threads and many steps, too large for the model checker.
//!
//! Built only with `RUSTFLAGS="--cfg shuttle"`; `ci/shuttle.sh` does that. Each run draws its programs and its schedule anew; a
//! run that fails prints its schedule, by which it can be repeated. Deadlines are on a clock that is moved by hand.

#![cfg(shuttle)]

#[path = "support/drops.rs"]
mod drops;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bequest::clock::{Alarm, Clock};
use bequest::{AfterFunc, CancelScope, Canceled, Canceller, Context, DoneOwned, Key, Reason};
use shuttle::rand::{Rng, thread_rng};
use shuttle::{check_pct, check_random, thread};

use drops::{Drops, Token};

const THREADS: usize = 4;
const STEPS: usize = 14;

/// `BEQUEST_SHUTTLE_RUNS` asks for more of them.
fn runs() -> usize {
    std::env::var("BEQUEST_SHUTTLE_RUNS").map_or(3000, |runs| runs.parse().unwrap())
}

#[test]
fn random_programs_under_random_schedules() {
    check_random(program, runs());
}

/// Schedules with few switches at unlikely places: what depends on the order of three steps is found with a known chance.
#[test]
fn random_programs_under_schedules_with_few_switches() {
    check_pct(program, runs(), 3);
}

/// What the tool is for, and that it finds it: a waiter that looks, and enters without looking again.
#[test]
#[should_panic(expected = "nobody woke")]
fn control_a_waiter_that_looks_too_early_is_found() {
    use shuttle::sync::Mutex;
    use shuttle::sync::atomic::AtomicBool;
    check_random(
        || {
            let (done, waiting) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(Mutex::new(None::<Arc<Wakes>>)),
            );
            let canceling = thread::spawn({
                let (done, waiting) = (Arc::clone(&done), Arc::clone(&waiting));
                move || {
                    done.store(true, Ordering::SeqCst);
                    if let Some(wakes) = waiting.lock().unwrap().take() {
                        wakes.wake();
                    }
                }
            });
            let wakes = Arc::new(Wakes::default());
            let saw_it = done.load(Ordering::SeqCst);
            *waiting.lock().unwrap() = Some(Arc::clone(&wakes));
            canceling.join().unwrap();
            assert!(saw_it || wakes.count() == 1, "nobody woke the waiter");
        },
        runs(),
    );
}

/// Not the tool's: it is read after all threads were joined.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A clock that is moved by hand and keeps the alarms that it was asked for.
#[derive(Clone, Debug)]
struct Hand {
    began: Instant,
    seconds: Arc<AtomicUsize>,
    alarm: Arc<std::sync::Mutex<Option<Alarm>>>,
}

impl Hand {
    fn new() -> Hand {
        Hand {
            began: Instant::now(),
            seconds: Arc::default(),
            alarm: Arc::default(),
        }
    }

    fn advance(&self) {
        self.seconds.fetch_add(1, Ordering::SeqCst);
        let alarm = self.alarm.lock().unwrap().clone();
        if let Some(alarm) = alarm {
            alarm.ring();
        }
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        self.began + Duration::from_secs(self.seconds.load(Ordering::SeqCst) as u64)
    }

    fn wake_at(&self, _at: Instant, alarm: Alarm) {
        *self.alarm.lock().unwrap() = Some(alarm);
    }
}

static TOKEN: Key<Token> = Key::new("token");

/// A wait that was pending once, and whether anybody woke it.
struct Waiter {
    wait: DoneOwned,
    wakes: Arc<Wakes>,
    context: Context,
}

impl Waiter {
    /// `None` if it was over at once.
    fn on(context: Context) -> Option<Waiter> {
        let mut waiter = Waiter {
            wait: context.clone().done_owned(),
            wakes: Arc::default(),
            context,
        };
        (!waiter.is_ready()).then_some(waiter)
    }

    fn is_ready(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut task = TaskContext::from_waker(&waker);
        matches!(std::pin::Pin::new(&mut self.wait).poll(&mut task), Poll::Ready(_))
    }
}

/// What one thread has.
struct Actor {
    hand: Hand,
    drops: Drops,
    made: Arc<AtomicUsize>,
    scopes: Vec<CancelScope>,
    contexts: Vec<Context>,
    cancellers: Vec<Canceller>,
    waiters: Vec<Waiter>,
    guards: Vec<(AfterFunc, Arc<Wakes>)>,
    detached: Vec<(Context, Arc<Wakes>)>,
    ended: Vec<(Context, Canceled)>,
}

/// What a thread leaves for the end, when nothing moves any more.
struct Left {
    contexts: Vec<Context>,
    waiters: Vec<Waiter>,
    detached: Vec<(Context, Arc<Wakes>)>,
    ended: Vec<(Context, Canceled)>,
}

impl Actor {
    fn run(mut self) -> Left {
        for _ in 0..STEPS {
            self.step();
        }
        Left {
            contexts: self.contexts,
            waiters: self.waiters,
            detached: self.detached,
            ended: self.ended,
        }
    }

    fn any_context(&self) -> Context {
        self.contexts[thread_rng().gen_range(0..self.contexts.len())].clone()
    }

    fn keep(&mut self, scope: CancelScope) {
        self.contexts.push(scope.context());
        if thread_rng().gen_range(0..3) == 0 {
            self.cancellers.push(scope.canceller());
        }
        self.scopes.push(scope);
    }

    fn step(&mut self) {
        let context = self.any_context();
        match thread_rng().gen_range(0..16) {
            0..3 => self.keep(context.with_cancel()),
            3 => {
                let seconds = thread_rng().gen_range(0..4);
                self.keep(context.with_timeout(Duration::from_secs(seconds)));
            }
            4 => self.keep(Context::any([&context, &self.any_context()])),
            5 => {
                self.made.fetch_add(1, Ordering::SeqCst);
                self.contexts.push(context.with_value(&TOKEN, self.drops.token()));
            }
            6 => self.waiters.extend(Waiter::on(context)),
            7 if !self.waiters.is_empty() => {
                let at = thread_rng().gen_range(0..self.waiters.len());
                drop(self.waiters.swap_remove(at));
            }
            8 => {
                let calls = Arc::new(Wakes::default());
                let guard = context.after_func({
                    let calls = Arc::clone(&calls);
                    move |_| calls.wake()
                });
                if thread_rng().gen_bool(0.5) {
                    guard.detach();
                    self.detached.push((context, calls));
                } else {
                    self.guards.push((guard, calls));
                }
            }
            9 => {
                if let Some((guard, calls)) = self.guards.pop() {
                    let prevented = guard.stop();
                    assert!(!prevented || calls.count() == 0, "called after it was stopped");
                }
            }
            10 | 11 => {
                if let Some(scope) = pick(&mut self.scopes) {
                    // What derives from it on this thread is known; all of it is done when the call returns.
                    let below = [scope.with_cancel(), scope.with_cancel()];
                    scope.cancel_for(Reason::Explicit);
                    assert!(scope.is_done() && below.iter().all(|child| child.is_done()));
                }
            }
            12 => {
                if let Some(canceller) = pick(&mut self.cancellers) {
                    canceller.cancel_for(Reason::Shutdown);
                }
            }
            13 => drop(pick(&mut self.scopes)),
            14 => self.hand.advance(),
            _ => {
                if let Some(end) = context.err() {
                    assert!(context.is_done());
                    self.ended.push((context, end));
                }
                if self.contexts.len() > 3 {
                    drop(pick(&mut self.contexts));
                }
            }
        }
    }
}

fn pick<T>(from: &mut Vec<T>) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(thread_rng().gen_range(0..from.len())))
}

fn program() {
    let (hand, drops, made) = (Hand::new(), Drops::default(), Arc::new(AtomicUsize::new(0)));
    let root = Context::with_clock(hand.clone()).with_cancel();
    let hot = root.with_timeout(Duration::from_secs(3));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let actor = Actor {
                hand: hand.clone(),
                drops: drops.clone(),
                made: Arc::clone(&made),
                scopes: Vec::new(),
                contexts: vec![root.context(), hot.context()],
                cancellers: vec![hot.canceller()],
                waiters: Vec::new(),
                guards: Vec::new(),
                detached: Vec::new(),
                ended: Vec::new(),
            };
            thread::spawn(move || actor.run())
        })
        .collect();
    let left: Vec<Left> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for Left { waiters, ended, .. } in &left {
        for waiter in waiters {
            let done = waiter.context.is_done();
            assert_eq!(
                done,
                waiter.wakes.count() > 0,
                "woken if it has ended, and only then"
            );
        }
        for (context, end) in ended {
            let now = context.err().expect("what has ended has ended for ever");
            assert_eq!(
                (now.reason(), now.scope()),
                (end.reason(), end.scope()),
                "the first event wins"
            );
        }
    }
    root.cancel_for(Reason::Shutdown);
    for Left {
        contexts,
        waiters,
        detached,
        ..
    } in &left
    {
        assert!(contexts.iter().all(Context::is_done));
        assert!(waiters.iter().all(|waiter| waiter.wakes.count() == 1));
        assert!(
            detached.iter().all(|(_, calls)| calls.count() == 1),
            "called once"
        );
    }
    drop((left, hot, root));
    assert_eq!(drops.count(), made.load(Ordering::SeqCst), "nothing is kept");
}
