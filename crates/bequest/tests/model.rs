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

use std::panic::{AssertUnwindSafe, catch_unwind};
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
    for seed in 0..PROGRAMS {
        let outcome = catch_unwind(AssertUnwindSafe(|| Program::new(seed).run(STEPS)));
        assert!(
            outcome.is_ok(),
            "the program of seed {seed} differs from the model"
        );
    }
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
        for (_, by) in due {
            let end = End {
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

struct Program {
    random: Random,
    clock: Manual,
    root: Context,
    model: Model,
    handles: Vec<Handles>,
    callbacks: Vec<Callback>,
    waits: Vec<Wait>,
    /// No two deadlines are equal: what came first is then never a matter of taste.
    spans: u64,
}

impl Program {
    fn new(seed: u64) -> Program {
        let clock = Manual::new();
        Program {
            random: Random::seeded(seed),
            root: Context::with_clock(clock.clone()),
            clock,
            model: Model::default(),
            handles: Vec::new(),
            callbacks: Vec::new(),
            waits: Vec::new(),
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
        match self.random.below(14) {
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
            _ => self.look(place),
        }
    }

    fn derive(&mut self) {
        let parent = match self.handles.len() {
            0 => None,
            // One in eight is a new tree of its own.
            count => (self.random.below(8) > 0).then(|| self.random.below(count)),
        };
        let context = parent
            .map_or(&self.root, |parent| &self.handles[parent].observer)
            .clone();
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
    }

    /// In any order, and nothing is left behind.
    fn tear_down(mut self) {
        self.callbacks.clear();
        self.waits.clear();
        while !self.handles.is_empty() {
            let place = self.random.below(self.handles.len());
            drop(self.handles.swap_remove(place));
        }
        // What detached callbacks kept, their deadlines end.
        self.clock.advance(Duration::from_secs(60));
        assert_eq!(inspect::on_clock_of(&self.root).armed_deadlines, 0);
    }
}
