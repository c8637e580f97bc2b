//! Random programs on contexts, compared step by step with a naive model that has no tree.
//!
//! The model is a flat list in which each entry knows its parents and its deadline; an end is spread by going over the
//! whole list. Time moves only by hand, so both know exactly what came first. A failure names the seed of its program.

#[path = "support/clock.rs"]
mod clock;
#[path = "support/poll.rs"]
mod poll;
#[path = "support/random.rs"]
mod random;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bequest::clock::Clock;
use bequest::{
    AfterFunc, CancelScope, Canceled, Canceller, Context, DoneOwned, Key, Kind, Reason, ScopeId, inspect,
};

use clock::Manual;
use poll::{Wakes, poll_with};
use random::Random;

const PROGRAMS: u64 = 2000;
const STEPS: usize = 250;
const KEYS: usize = 12;

static KEY: [Key<u64>; KEYS] = [const { Key::new("key") }; KEYS];

#[test]
fn random_programs_agree_with_the_model() {
    // `BEQUEST_TEST_SEED` begins elsewhere, for one more hour of it.
    let first = std::env::var("BEQUEST_TEST_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + PROGRAMS {
        let outcome = catch_unwind(AssertUnwindSafe(|| Program::new(seed).run(STEPS)));
        assert!(
            outcome.is_ok(),
            "the program of seed {seed} differs from the model"
        );
    }
}

#[test]
fn control_a_model_whose_limits_never_pass_is_caught() {
    let outcome = catch_unwind(|| {
        for seed in 0..20 {
            let mut program = Program::new(seed);
            program.limits_never_pass = true;
            program.run(STEPS);
        }
    });
    assert!(outcome.is_err());
}

#[test]
fn control_a_model_that_forgets_to_spread_the_end_is_caught() {
    let outcome = catch_unwind(|| {
        for seed in 0..20 {
            let mut program = Program::new(seed);
            program.model.forgets_to_spread = true;
            program.run(STEPS);
        }
    });
    assert!(outcome.is_err());
}

/// How the model says that something ended.
#[derive(Clone, Debug, PartialEq)]
struct End {
    kind: Kind,
    reason: Reason,
    cause: Option<String>,
    /// The place at which it began.
    by: usize,
    /// When it was cancelled; of a deadline, when it was due.
    at: Instant,
}

struct Entry {
    parents: Vec<usize>,
    /// Effective, and whether it is its own.
    deadline: Option<(Instant, bool)>,
    values: [Option<u64>; KEYS],
    end: Option<End>,
}

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    forgets_to_spread: bool,
}

impl Model {
    fn derive(&mut self, parents: &[usize], own: Option<Instant>) -> usize {
        let inherited = parents
            .iter()
            .filter_map(|&parent| self.entries[parent].deadline)
            .map(|(at, _)| at)
            .min();
        let deadline = match (own, inherited) {
            (Some(own), Some(inherited)) => Some((own.min(inherited), own < inherited)),
            (Some(own), None) => Some((own, true)),
            (None, inherited) => inherited.map(|at| (at, false)),
        };
        self.entries.push(Entry {
            parents: parents.to_vec(),
            deadline,
            values: parents
                .first()
                .map_or([None; KEYS], |&first| self.entries[first].values),
            end: parents
                .iter()
                .find_map(|&parent| self.entries[parent].end.clone()),
        });
        self.entries.len() - 1
    }

    fn end(&mut self, place: usize, end: End) {
        if self.entries[place].end.is_some() {
            return;
        }
        self.entries[place].end = Some(end);
        if self.forgets_to_spread {
            return;
        }
        // Parents come before their children, so one pass reaches everything below.
        for below in place + 1..self.entries.len() {
            if self.entries[below].end.is_none() {
                let parents = self.entries[below].parents.clone();
                self.entries[below].end = parents
                    .iter()
                    .find_map(|&parent| self.entries[parent].end.clone());
            }
        }
    }

    /// Ends what is due at `now`, the earliest first.
    fn pass(&mut self, now: Instant) {
        let mut due: Vec<(Instant, usize)> = (0..self.entries.len())
            .filter_map(|place| match self.entries[place].deadline {
                Some((at, true)) if at <= now => Some((at, place)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        for (at, by) in due {
            let end = End {
                at,
                kind: Kind::DeadlineExceeded,
                reason: Reason::Deadline,
                cause: Some(format!("deadline of {by}")),
                by,
            };
            self.end(by, end);
        }
    }
}

/// The handles that the program has on one context. All but the observer may go during the program.
struct Handles {
    id: ScopeId,
    observer: Context,
    owner: Option<CancelScope>,
    canceller: Option<Canceller>,
}

struct Callback {
    place: usize,
    guard: Option<AfterFunc>,
    calls: Arc<Mutex<Vec<Canceled>>>,
    /// Prevented before its context ended.
    stopped: bool,
}

struct Wait {
    place: usize,
    future: DoneOwned,
    wakes: Arc<Wakes>,
    was_pending: bool,
}

/// Work in a race with a context and perhaps a limit of its own.
struct Work {
    place: usize,
    span: Option<Duration>,
    /// From the first poll: a limit that comes before the context's own deadline.
    limit: Option<Instant>,
    is_sleep: bool,
    future: Pin<Box<dyn Future<Output = Result<u32, Canceled>>>>,
    /// The work is ready when this is set; nobody is woken for it.
    is_ready: Arc<AtomicBool>,
    wakes: Arc<Wakes>,
    has_begun: bool,
    was_pending: bool,
}

const OUTPUT: u32 = 7;

/// What is to come of a poll.
#[derive(Debug)]
enum Expected {
    Pending,
    Output,
    Outer(End),
    OwnLimit,
}

struct Program {
    random: Random,
    clock: Manual,
    /// Above everything. It ends last, and with it what detached callbacks keep.
    root: CancelScope,
    model: Model,
    handles: Vec<Handles>,
    callbacks: Vec<Callback>,
    waits: Vec<Wait>,
    works: Vec<Work>,
    /// For a control.
    limits_never_pass: bool,
    /// No two deadlines are equal: what came first is then never a matter of taste.
    spans: u64,
}

impl Program {
    fn new(seed: u64) -> Program {
        let clock = Manual::new();
        Program {
            random: Random::seeded(seed),
            root: Context::with_clock(clock.clone()).with_cancel(),
            clock,
            model: Model::default(),
            handles: Vec::new(),
            callbacks: Vec::new(),
            waits: Vec::new(),
            works: Vec::new(),
            limits_never_pass: false,
            spans: 0,
        }
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            // Rarely, since every look arms a timer.
            if self.random.below(16) == 0 {
                self.compare_all();
            }
        }
        self.compare_all();
        self.tear_down();
    }

    fn step(&mut self) {
        if self.handles.is_empty() {
            return self.derive();
        }
        let place = self.random.below(self.handles.len());
        match self.random.below(19) {
            0..=3 => self.derive(),
            4 => self.merge(),
            5 => self.cancel(place),
            6 => self.drop_owner(place),
            7 => self.give_up(place),
            8 => self.advance(),
            9 => self.register(place),
            10 => self.stop(),
            11 => self.begin_to_wait(place),
            12 => self.poll(),
            13 => self.tidy(place),
            14..=15 => self.begin_to_work(place),
            16..=17 => self.work(),
            _ => self.look(place),
        }
    }

    fn derive(&mut self) {
        let parent = match self.handles.len() {
            0 => None,
            // One in eight is a new tree of its own.
            count => (self.random.below(8) > 0).then(|| self.random.below(count)),
        };
        let context = match parent {
            Some(parent) => self.handles[parent].observer.clone(),
            None => self.root.context(),
        };
        let own = (self.random.below(2) == 0).then(|| self.some_span());
        let scope = match own {
            Some(span) => context.with_timeout(span),
            None => context.with_cancel(),
        };
        let parents: Vec<usize> = parent.into_iter().collect();
        let place = self
            .model
            .derive(&parents, own.map(|span| self.clock.now() + span));
        let mut scope = scope.caused_by(format!("deadline of {place}"));
        if self.random.below(3) == 0 {
            let (key, value) = (self.random.below(KEYS), self.random.next());
            self.model.entries[place].values[key] = Some(value);
            scope = scope.with_value(&KEY[key], value);
        }
        self.adopt(scope);
    }

    fn some_span(&mut self) -> Duration {
        self.spans += 1;
        Duration::from_millis(1 + self.random.next() % 5000) + Duration::from_nanos(self.spans)
    }

    fn merge(&mut self) {
        let parents: Vec<usize> = (0..1 + self.random.below(3))
            .map(|_| self.random.below(self.handles.len()))
            .collect();
        let scope = Context::any(parents.iter().map(|&parent| &self.handles[parent].observer));
        self.model.derive(&parents, None);
        self.adopt(scope);
    }

    /// A context for tidying up: the values, no parent, a limit of its own.
    fn tidy(&mut self, place: usize) {
        let span = self.some_span();
        let scope = self.handles[place].observer.cleanup(span);
        let below = self.model.derive(&[], Some(self.clock.now() + span));
        self.model.entries[below].values = self.model.entries[place].values;
        self.adopt(scope.caused_by(format!("deadline of {below}")));
    }

    fn adopt(&mut self, scope: CancelScope) {
        let canceller = (self.random.below(4) == 0).then(|| scope.canceller());
        self.handles.push(Handles {
            id: scope.id(),
            observer: scope.context(),
            owner: Some(scope),
            canceller,
        });
    }

    fn cancel(&mut self, place: usize) {
        let cause = (self.random.below(2) == 0).then(|| self.random.next().to_string());
        let handles = &self.handles[place];
        match (&handles.owner, &handles.canceller, &cause) {
            (Some(owner), _, Some(cause)) => owner.cancel_with(cause.clone()),
            (Some(owner), _, None) => owner.cancel(),
            (None, Some(canceller), Some(cause)) => canceller.cancel_with(cause.clone()),
            (None, Some(canceller), None) => canceller.cancel(),
            (None, None, _) => return,
        }
        let end = End {
            kind: Kind::Canceled,
            reason: Reason::Explicit,
            cause,
            by: place,
            at: self.clock.now(),
        };
        self.model.end(place, end);
        self.look(place);
    }

    fn drop_owner(&mut self, place: usize) {
        if self.handles[place].owner.take().is_some() {
            let end = End {
                kind: Kind::Canceled,
                reason: Reason::ScopeEnded,
                cause: None,
                by: place,
                at: self.clock.now(),
            };
            self.model.end(place, end);
        }
    }

    /// The owner becomes an observer; it may be another node then, but it ends in the same way.
    fn give_up(&mut self, place: usize) {
        if let Some(owner) = self.handles[place].owner.take() {
            self.handles[place].observer = owner.into_context();
        }
    }

    fn advance(&mut self) {
        let span = Duration::from_millis(self.random.next() % 3000);
        self.clock.advance(span);
        self.model.pass(self.clock.now());
    }

    fn register(&mut self, place: usize) {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let guard = self.handles[place].observer.after_func({
            let calls = Arc::clone(&calls);
            move |end| calls.lock().unwrap().push(end)
        });
        let guard = if self.random.below(4) == 0 {
            guard.detach();
            None
        } else {
            Some(guard)
        };
        self.callbacks.push(Callback {
            place,
            guard,
            calls,
            stopped: false,
        });
    }

    fn stop(&mut self) {
        if self.callbacks.is_empty() {
            return;
        }
        let place = self.random.below(self.callbacks.len());
        let callback = &mut self.callbacks[place];
        let has_ended = self.model.entries[callback.place].end.is_some();
        match callback.guard.take() {
            Some(guard) if self.random.below(2) == 0 => {
                let prevented = guard.stop();
                // On what has become a root no callback is kept, so there is none to prevent.
                assert!(!prevented || !has_ended);
                callback.stopped = !has_ended;
            }
            Some(guard) => {
                drop(guard);
                callback.stopped = !has_ended;
            }
            None => {}
        }
    }

    fn begin_to_wait(&mut self, place: usize) {
        self.waits.push(Wait {
            place,
            future: self.handles[place].observer.clone().done_owned(),
            wakes: Wakes::new(),
            was_pending: false,
        });
    }

    fn poll(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let place = self.random.below(self.waits.len());
        if self.random.below(8) == 0 {
            drop(self.waits.swap_remove(place));
            return;
        }
        let wait = &mut self.waits[place];
        match (
            poll_with(&wait.wakes, &mut wait.future),
            &self.model.entries[wait.place].end,
        ) {
            (Poll::Pending, None) => wait.was_pending = true,
            (Poll::Ready(_), Some(_)) => {}
            (poll, end) => panic!("{poll:?} where the model says {end:?}"),
        }
    }

    fn begin_to_work(&mut self, place: usize) {
        let is_ready = Arc::new(AtomicBool::new(false));
        let ready = Arc::clone(&is_ready);
        let inner = poll_fn(move |_| match ready.load(Ordering::SeqCst) {
            true => Poll::Ready(OUTPUT),
            false => Poll::Pending,
        });
        let ctx = self.handles[place].observer.clone();
        let kind = self.random.below(3);
        let span = (kind > 0).then(|| self.some_span());
        let future: Pin<Box<dyn Future<Output = Result<u32, Canceled>>>> = match (kind, span) {
            // Made within the first poll, when the handle has its place; so the time runs from there.
            (1, Some(span)) => Box::pin(async move { ctx.timeout(span, inner).await }),
            (2, Some(span)) => Box::pin(async move { ctx.sleep(span).await.map(|()| OUTPUT) }),
            _ => Box::pin(ctx.run_owned(inner)),
        };
        self.works.push(Work {
            place,
            span,
            limit: None,
            is_sleep: kind == 2,
            future,
            is_ready,
            wakes: Wakes::new(),
            has_begun: false,
            was_pending: false,
        });
    }

    fn work(&mut self) {
        if self.works.is_empty() {
            return;
        }
        let place = self.random.below(self.works.len());
        match self.random.below(6) {
            0 => {
                drop(self.works.swap_remove(place));
                return;
            }
            1 => self.works[place].is_ready.store(true, Ordering::SeqCst),
            _ => {}
        }
        self.begin(place);
        let expected = self.expected(&self.works[place]);
        let work = &mut self.works[place];
        let poll = poll_with(&work.wakes, &mut work.future);
        work.has_begun = true;
        match (poll, expected) {
            (Poll::Pending, Expected::Pending) => work.was_pending = true,
            (Poll::Ready(Ok(OUTPUT)), Expected::Output) => drop(self.works.swap_remove(place)),
            (Poll::Ready(Err(end)), Expected::Outer(outer)) => {
                self.compare(Some(&end), Some(&outer));
                drop(self.works.swap_remove(place));
            }
            (Poll::Ready(Err(end)), Expected::OwnLimit) => {
                assert_eq!(
                    (end.kind(), end.reason()),
                    (Kind::DeadlineExceeded, Reason::Deadline)
                );
                assert!(self.handles.iter().all(|handles| handles.id != end.scope().1));
                drop(self.works.swap_remove(place));
            }
            (poll, expected) => panic!("{poll:?} where the model says {expected:?}"),
        }
    }

    fn begin(&mut self, place: usize) {
        let work = &mut self.works[place];
        if !work.has_begun {
            let deadline = self.handles[work.place].observer.deadline();
            let at = work.span.map(|span| self.clock.now() + span);
            work.limit = at.filter(|at| deadline.is_none_or(|outer| *at < outer));
        }
    }

    fn expected(&self, work: &Work) -> Expected {
        let end = &self.model.entries[work.place].end;
        let passed = work
            .limit
            .filter(|limit| *limit <= self.clock.now() && !self.limits_never_pass);
        match (end, passed) {
            (Some(end), _) if !work.has_begun && !work.is_sleep => Expected::Outer(end.clone()),
            _ if !work.is_sleep && work.is_ready.load(Ordering::SeqCst) => Expected::Output,
            // Of two that have come, the earlier one.
            (Some(end), Some(limit)) if end.at <= limit => Expected::Outer(end.clone()),
            (_, Some(_)) if work.is_sleep => Expected::Output,
            (_, Some(_)) => Expected::OwnLimit,
            (Some(end), None) => Expected::Outer(end.clone()),
            (None, None) => Expected::Pending,
        }
    }

    fn look(&self, place: usize) {
        let (seen, entry) = (&self.handles[place].observer, &self.model.entries[place]);
        let end = seen.err();
        assert_eq!(seen.is_done(), end.is_some());
        self.compare(end.as_ref(), entry.end.as_ref());
        if let (Some(end), Some((at, true))) = (&end, entry.deadline) {
            let is_its_own = end.is_timeout() && entry.end.as_ref().is_some_and(|end| end.by == place);
            assert!(
                !is_its_own || end.at().unwrap() >= at,
                "never noticed before it came"
            );
        }
        if self.handles[place].owner.is_some() {
            assert_eq!(seen.deadline(), entry.deadline.map(|(at, _)| at));
        }
        for (key, value) in KEY.iter().zip(&entry.values) {
            assert_eq!(seen.value(key), value.as_ref());
        }
    }

    fn compare(&self, seen: Option<&Canceled>, expected: Option<&End>) {
        let by = |id| self.handles.iter().position(|handles| handles.id == id).unwrap();
        let seen = seen.map(|seen| End {
            kind: seen.kind(),
            reason: seen.reason(),
            cause: seen.cause().map(ToString::to_string),
            by: by(seen.scope().1),
            // When it was noticed, which may be later than it was due; `look` compares that.
            at: expected.map_or_else(|| self.clock.now(), |expected| expected.at),
        });
        assert_eq!(seen.as_ref(), expected);
    }

    fn compare_all(&self) {
        for place in 0..self.handles.len() {
            self.look(place);
        }
        for callback in &self.callbacks {
            let calls = callback.calls.lock().unwrap();
            match &self.model.entries[callback.place].end {
                Some(end) if !callback.stopped => {
                    assert_eq!(calls.len(), 1, "called once");
                    self.compare(calls.first(), Some(end));
                }
                _ => assert!(calls.is_empty()),
            }
        }
        for wait in &self.waits {
            let expected = wait.was_pending && self.model.entries[wait.place].end.is_some();
            assert_eq!(wait.wakes.count(), usize::from(expected), "woken once");
        }
        for work in &self.works {
            let has_ended = self.model.entries[work.place].end.is_some();
            let has_passed = work.limit.is_some_and(|limit| limit <= self.clock.now());
            match work.was_pending && (has_ended || has_passed) {
                true => assert!(
                    (1..=2).contains(&work.wakes.count()),
                    "woken by either, once each"
                ),
                false => assert_eq!(work.wakes.count(), 0, "woken for nothing"),
            }
        }
    }

    /// In any order, and nothing is left behind.
    fn tear_down(mut self) {
        self.callbacks.clear();
        self.waits.clear();
        self.works.clear();
        while !self.handles.is_empty() {
            let place = self.random.below(self.handles.len());
            drop(self.handles.swap_remove(place));
        }
        // Those for tidying up are not below the root; they end with their limits.
        self.clock.advance(Duration::from_secs(60));
        self.root.cancel();
        assert_eq!(inspect::on_clock_of(&self.root).armed_deadlines, 0);
    }
}
