//! The storm: places that all threads share, and what each of them does there at random.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Canceller, Context, Key, Reason, inspect};

use crate::drops::{Drops, Token};
use crate::random::Random;
use crate::records::{Call, HANGS, Wait, same, soon};

const PLACES: usize = 48;
/// How many records a thread keeps before it lets the oldest go.
const KEPT: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);

static KEYS: [Key<u64>; 12] = [const { Key::new("key") }; 12];
static COUNTED: Key<Token> = Key::new("counted");

/// What a control does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Keeps a context beyond the round.
    KeptScope,
    /// Holds a callback for one that was never registered.
    LostCallback,
    /// Calls a callback's counter a second time.
    SecondCall,
    /// Forgets the waker that was handed in.
    LostWake,
}

/// One round: it begins with nothing, and nothing is to be left.
pub(crate) struct Storm {
    seed: u64,
    threads: usize,
    /// Above everything, so that its end ends what detached callbacks keep.
    root: CancelScope,
    places: Vec<Mutex<Option<Held>>>,
    drops: Drops,
    made: AtomicU64,
}

/// What is at a place. All of it may go at any time, on any thread.
struct Held {
    scope: Option<CancelScope>,
    ctx: Context,
    canceller: Option<Canceller>,
    /// What it was derived from, some of which may be needed to check it.
    parents: Vec<Context>,
}

/// What a thread remembers to check.
#[derive(Default)]
struct Memory {
    calls: Vec<Call>,
    waits: Vec<Wait>,
}

impl Storm {
    pub(crate) fn new(seed: u64, threads: usize) -> Storm {
        Storm {
            seed,
            threads,
            root: Context::background().with_cancel(),
            places: (0..PLACES).map(|_| Mutex::new(None)).collect(),
            drops: Drops::default(),
            made: AtomicU64::new(0),
        }
    }

    /// Runs `steps` steps on each thread, checks all, takes all apart, and checks that nothing is left.
    pub(crate) fn round(&self, steps: usize, fault: Option<Fault>) -> u64 {
        let within = match fault {
            None => HANGS,
            Some(_) => Duration::from_millis(500),
        };
        let mut memories: Vec<Memory> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| {
                    let random = Random::seeded(self.seed.wrapping_mul(1 << 8).wrapping_add(number as u64));
                    scope.spawn(move || self.act(random, steps))
                })
                .collect();
            let memories = threads.into_iter().map(|thread| thread.join());
            memories
                .collect::<Result<_, _>>()
                .expect("a thread of the storm has failed")
        });
        let kept = fault.and_then(|fault| self.put_in(fault, &mut memories));
        self.check(&memories, within);
        self.root.cancel();
        drop(memories);
        for place in &self.places {
            drop(take(place));
        }
        self.check_nothing_left(within, kept.is_some());
        (steps * self.threads) as u64
    }

    fn act(&self, mut random: Random, steps: usize) -> Memory {
        let mut memory = Memory::default();
        for _ in 0..steps {
            self.step(&mut random, &mut memory);
        }
        memory
    }

    fn step(&self, random: &mut Random, memory: &mut Memory) {
        match random.below(22) {
            0..=4 => self.derive(random),
            5 => self.merge(random),
            6 => self.tidy(random),
            7..=8 => self.cancel(random),
            9 => drop(take(self.place(random))),
            10 => self.give_up(random),
            11..=12 => self.register(random, memory),
            13 => stop(random, memory),
            14..=15 => self.wait(random, memory),
            16 => poll(random, memory),
            17 => self.race(random),
            18 => self.block(random),
            19 => self.derive_below_and_cancel(random),
            _ => self.look(random),
        }
    }

    fn place(&self, random: &mut Random) -> &Mutex<Option<Held>> {
        &self.places[random.below(PLACES)]
    }

    /// A context that is there, or the root.
    fn some_context(&self, random: &mut Random) -> Context {
        let place = self.place(random);
        let held = place.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .map_or_else(|| self.root.context(), |held| held.ctx.clone())
    }

    fn put(&self, random: &mut Random, scope: CancelScope, parents: Vec<Context>) {
        self.made.fetch_add(1, Ordering::SeqCst);
        let scope = scope.with_value(&COUNTED, self.drops.token());
        let held = Held {
            ctx: scope.context(),
            canceller: (random.below(3) == 0).then(|| scope.canceller()),
            scope: Some(scope),
            parents,
        };
        let place = self.place(random);
        let old = place.lock().unwrap_or_else(PoisonError::into_inner).replace(held);
        // Outside the lock, as every drop here: others are to come in between.
        drop(old);
    }

    fn derive(&self, random: &mut Random) {
        let parent = self.some_context(random);
        let scope = match random.below(4) {
            0 => parent.with_timeout(Duration::from_micros(random.next() % 3_000)),
            1 => parent.with_timeout(HOUR),
            _ => parent.with_cancel(),
        };
        let scope = match random.below(3) {
            0 => scope.with_value(&KEYS[random.below(KEYS.len())], random.next()),
            _ => scope,
        };
        self.put(random, scope, vec![parent]);
    }

    fn merge(&self, random: &mut Random) {
        let parents: Vec<Context> = (0..1 + random.below(3))
            .map(|_| self.some_context(random))
            .collect();
        let scope = Context::any(&parents);
        self.put(random, scope, parents);
    }

    fn tidy(&self, random: &mut Random) {
        let limit = Duration::from_micros(random.next() % 5_000);
        let scope = self.some_context(random).cleanup(limit);
        self.put(random, scope, Vec::new());
    }

    fn cancel(&self, random: &mut Random) {
        let taken = {
            let held = self.place(random).lock().unwrap_or_else(PoisonError::into_inner);
            held.as_ref()
                .map(|held| (held.ctx.clone(), held.canceller.clone()))
        };
        if let Some((ctx, Some(canceller))) = taken {
            match random.below(3) {
                0 => canceller.cancel(),
                1 => canceller.cancel_with(random.next().to_string()),
                _ => canceller.cancel_for(Reason::Shutdown),
            }
            same(
                &ctx.err().expect("cancelled"),
                &ctx.err().expect("cancelled for ever"),
            );
        }
    }

    fn give_up(&self, random: &mut Random) {
        let place = self.place(random);
        let scope = {
            let mut held = place.lock().unwrap_or_else(PoisonError::into_inner);
            held.as_mut().and_then(|held| held.scope.take())
        };
        drop(scope.map(CancelScope::into_context));
    }

    fn register(&self, random: &mut Random, memory: &mut Memory) {
        let mut call = Call::on(&self.some_context(random));
        if random.below(3) == 0 {
            call.detach();
        }
        if memory.calls.len() == KEPT {
            let oldest = memory.calls.swap_remove(random.below(KEPT));
            drop(oldest);
        }
        memory.calls.push(call);
    }

    fn wait(&self, random: &mut Random, memory: &mut Memory) {
        let mut wait = Wait::on(&self.some_context(random));
        if !wait.poll() {
            if memory.waits.len() == KEPT {
                drop(memory.waits.swap_remove(random.below(KEPT)));
            }
            memory.waits.push(wait);
        }
    }

    /// Work in a race with a context and a limit, polled a few times and dropped wherever it stands.
    fn race(&self, random: &mut Random) {
        let ctx = self.some_context(random);
        let limit = Duration::from_micros(random.next() % 200);
        let mut left = random.below(4);
        let work = std::future::poll_fn(move |_| match left {
            0 => Poll::Ready(7),
            _ => {
                left -= 1;
                Poll::Pending
            }
        });
        let mut task = TaskContext::from_waker(Waker::noop());
        let mut work = Box::pin(ctx.timeout(limit, ctx.run(work)));
        for _ in 0..random.below(6) {
            match work.as_mut().poll(&mut task) {
                Poll::Ready(Ok(Ok(output))) => return assert_eq!(output, 7),
                Poll::Ready(Ok(Err(_))) => return assert!(ctx.is_done()),
                Poll::Ready(Err(end)) => return assert!(end.is_timeout() || ctx.is_done()),
                Poll::Pending => {}
            }
        }
    }

    fn block(&self, random: &mut Random) {
        let ctx = self.some_context(random);
        let limit = Duration::from_micros(random.next() % 300);
        if let Some(end) = ctx.wait_timeout(limit) {
            same(&end, &ctx.err().expect("the wait said so"));
        }
    }

    /// What this thread derives below what it then cancels has ended when the call returns.
    fn derive_below_and_cancel(&self, random: &mut Random) {
        let scope = self.some_context(random).with_cancel();
        let children: Vec<CancelScope> = (0..random.below(8))
            .map(|number| match number % 2 {
                0 => scope.with_cancel(),
                _ => scope.with_timeout(HOUR),
            })
            .collect();
        let grandchildren: Vec<CancelScope> = children.iter().map(|child| child.with_cancel()).collect();
        scope.cancel();
        let ended = |scopes: &[CancelScope]| {
            scopes
                .iter()
                .all(|scope| scope.is_done() && scope.err().is_some())
        };
        assert!(scope.is_done() && ended(&children) && ended(&grandchildren));
        if random.below(2) == 0 {
            // The parents first: the others become orphans for a moment.
            drop(scope);
            drop(children);
            drop(grandchildren);
        }
    }

    fn look(&self, random: &mut Random) {
        let ctx = self.some_context(random);
        let (done, end) = (ctx.is_done(), ctx.err());
        assert!(!done || end.is_some(), "done, and no error to read");
        for key in &KEYS {
            let _ = ctx.value(key);
        }
        drop(format!("{ctx:?}"));
    }

    /// With all threads at rest: what is to have ended has, and all were told.
    fn check(&self, memories: &[Memory], within: Duration) {
        for place in &self.places {
            let held = place.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(held) = held.as_ref() else { continue };
            for parent in &held.parents {
                if parent.is_done() {
                    // A deadline's walk may be on its way.
                    soon("a child of an ended parent has ended", HANGS, || {
                        held.ctx.is_done()
                    });
                }
            }
        }
        for memory in memories {
            memory.calls.iter().for_each(|call| call.check(within));
            memory.waits.iter().for_each(|wait| wait.check(within));
        }
    }

    /// With everything dropped: no deadline is armed, and every value has been dropped.
    fn check_nothing_left(&self, within: Duration, is_kept: bool) {
        let within = if is_kept { within } else { HANGS };
        soon("no deadline is armed any more", within, || {
            inspect::statistics().armed_deadlines == 0
        });
        let made = self.made.load(Ordering::SeqCst);
        soon("every value was dropped", within, || {
            self.drops.count() as u64 == made
        });
    }

    /// Does wrong what `fault` says; what is to be kept meanwhile.
    fn put_in(&self, fault: Fault, memories: &mut [Memory]) -> Option<CancelScope> {
        let scope = Context::background().with_cancel();
        match fault {
            Fault::KeptScope => {
                self.made.fetch_add(1, Ordering::SeqCst);
                return Some(scope.with_value(&COUNTED, self.drops.token()));
            }
            Fault::LostCallback => {
                let mut call = Call::on(&Context::background());
                call.ctx = scope.context();
                memories[0].calls.push(call);
            }
            Fault::SecondCall => {
                let call = Call::on(&scope);
                call.calls.fetch_add(1, Ordering::SeqCst);
                memories[0].calls.push(call);
            }
            Fault::LostWake => {
                let mut wait = Wait::on(&scope);
                assert!(!wait.poll());
                wait.forget_wakes();
                memories[0].waits.push(wait);
            }
        }
        scope.cancel();
        None
    }
}

fn take(place: &Mutex<Option<Held>>) -> Option<Held> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn stop(random: &mut Random, memory: &mut Memory) {
    if memory.calls.is_empty() {
        return;
    }
    let place = random.below(memory.calls.len());
    match random.below(3) {
        0 => memory.calls[place].stop(),
        1 => memory.calls[place].drop_guard(),
        _ => drop(memory.calls.swap_remove(place)),
    }
}

fn poll(random: &mut Random, memory: &mut Memory) {
    if memory.waits.is_empty() {
        return;
    }
    let place = random.below(memory.waits.len());
    if random.below(4) == 0 || memory.waits[place].poll() {
        drop(memory.waits.swap_remove(place));
    }
}
