//! A first-in-first-out queue of jobs, who is running, and the numbers, all under one lock.
//!
//! # Invariants
//!
//! 1. Nothing foreign runs under the lock: no job is dropped, no context looked at, nobody cancelled or woken.
//! 2. A job is in exactly one place: in `waiting`, in `running`, or counted as ended.
//! 3. Numbers grow along the queue, so a waiting job is found by binary search.
//! 4. A job that has left was never begun; a job that was begun is answered by its thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bequest::{Canceller, Context, Reason};
use tokio::sync::watch;

use crate::connection::{Engine, Report};
use crate::error::Error;
use crate::statistics::Lane;

/// A call, as a thread sees it.
pub(crate) trait Job: Send {
    /// Does the work on the thread's connection and keeps the answer.
    fn run(&mut self, engine: &mut Engine, ctx: &Context) -> Report;
    /// Hands the answer over. The numbers have been brought up to date before.
    fn answer(self: Box<Self>);
}

/// A job with its place in the queue and the context that it is run for.
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) ctx: Context,
    pub(crate) canceller: Canceller,
    pub(crate) job: Box<dyn Job>,
}

/// A queue, and who serves it.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Told when a job was added or the phase changed.
    changed: Condvar,
    /// The number of threads alive. Lowered by each when its connection is closed.
    alive: watch::Sender<usize>,
}

/// Guarded by `Queue::state`.
struct State {
    phase: Phase,
    waiting: VecDeque<Entry>,
    running: Vec<(u64, Canceller)>,
    /// Everything but `threads`, `queued` and `running`, which are counted when asked for. `accepted` is also the
    /// number of the latest job.
    numbers: Lane,
}

/// Phases follow one another in this order and never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Jobs are accepted.
    Open,
    /// Only one last job is accepted.
    Sealed,
    /// No job is accepted; threads end when there is none left.
    Finishing,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        let state = State {
            phase: Phase::Open,
            waiting: VecDeque::new(),
            running: Vec::new(),
            numbers: Lane::default(),
        };
        Queue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            alive: watch::Sender::new(0),
        }
    }

    /// Appends a job and returns its number.
    pub(crate) fn push(&self, ctx: Context, canceller: Canceller, job: Box<dyn Job>) -> Result<u64, Error> {
        self.admit(Phase::Open, Phase::Open, ctx, canceller, job)
    }

    /// Appends the last job of a sealed queue, whose threads end after it.
    pub(crate) fn push_last(
        &self,
        ctx: Context,
        canceller: Canceller,
        job: Box<dyn Job>,
    ) -> Result<u64, Error> {
        self.admit(Phase::Sealed, Phase::Finishing, ctx, canceller, job)
    }

    /// Takes a waiting job out. `None` if it is not waiting any more. The caller drops it outside the lock.
    pub(crate) fn leave(&self, number: u64) -> Option<Entry> {
        let mut state = self.lock();
        let place = state
            .waiting
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()?;
        state.numbers.abandoned += 1;
        state.waiting.remove(place)
    }

    /// The next job, for the calling thread; blocks. `None` when the thread is to end.
    pub(crate) fn next(&self) -> Option<Entry> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.waiting.pop_front() {
                state.running.push((entry.number, entry.canceller.clone()));
                return Some(entry);
            }
            if state.phase == Phase::Finishing {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a job from [`next`](Queue::next) has ended; `None` if it was never begun.
    pub(crate) fn finish(&self, number: u64, report: Option<Report>) {
        let mut state = self.lock();
        let place = state.running.iter().position(|(running, _)| *running == number);
        let canceller = place.map(|place| state.running.swap_remove(place));
        state.numbers.count(report);
        drop(state);
        drop(canceller); // outside the lock: it may be the last handle of a scope
    }

    /// Accepts nobody any more but one last job.
    pub(crate) fn seal(&self) {
        self.advance(Phase::Sealed);
    }

    /// Accepts nobody any more; the threads serve what waits, and end.
    pub(crate) fn finish_all(&self) {
        self.advance(Phase::Finishing);
    }

    /// Ends everything: what waits is dropped, which its callers hear as "closed"; what runs is cancelled.
    pub(crate) fn abort(&self) {
        let mut state = self.lock();
        state.phase = Phase::Finishing;
        let waiting = std::mem::take(&mut state.waiting);
        state.numbers.abandoned += waiting.len() as u64;
        let running: Vec<Canceller> = state
            .running
            .iter()
            .map(|(_, canceller)| canceller.clone())
            .collect();
        drop(state);
        self.changed.notify_all();
        drop(waiting);
        for canceller in running {
            canceller.cancel_for(Reason::Shutdown);
        }
    }

    /// Waits until every thread has ended.
    pub(crate) async fn ended(&self) {
        let mut alive = self.alive.subscribe();
        // An error would mean that the sender is gone; it lives in `self`.
        let _ = alive.wait_for(|threads| *threads == 0).await;
    }

    /// A thread begins to serve.
    pub(crate) fn join(&self) {
        self.alive.send_modify(|threads| *threads += 1);
    }

    /// A thread ends. When the last one does, nobody waits for an answer that can not come.
    pub(crate) fn part(&self) {
        let mut last = false;
        self.alive.send_modify(|threads| {
            *threads -= 1;
            last = *threads == 0;
        });
        if last {
            self.abort();
        }
    }

    pub(crate) fn numbers(&self) -> Lane {
        let state = self.lock();
        Lane {
            threads: *self.alive.borrow(),
            queued: state.waiting.len(),
            running: state.running.len(),
            ..state.numbers
        }
    }

    fn admit(
        &self,
        expected: Phase,
        next: Phase,
        ctx: Context,
        canceller: Canceller,
        job: Box<dyn Job>,
    ) -> Result<u64, Error> {
        let mut state = self.lock();
        if state.phase != expected {
            drop(state); // before the job, which is dropped on the way out
            return Err(Error::closed());
        }
        state.phase = next;
        state.numbers.accepted += 1;
        let number = state.numbers.accepted;
        state.waiting.push_back(Entry {
            number,
            ctx,
            canceller,
            job,
        });
        drop(state);
        if next == Phase::Finishing {
            self.changed.notify_all();
        } else {
            self.changed.notify_one();
        }
        Ok(number)
    }

    fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only this crate's own few lines run under this lock (invariant 1).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn count(&mut self, report: Option<Report>) {
        let Some(report) = report else {
            self.abandoned += 1;
            return;
        };
        match report {
            Report { panicked: true, .. } => self.panicked += 1,
            Report {
                interrupted: true, ..
            } => self.interrupted += 1,
            Report { failed: true, .. } => self.failed += 1,
            _ => self.completed += 1,
        }
        self.rolled_back += u64::from(report.rolled_back);
        self.discarded += u64::from(report.discarded);
        self.last_stop = report.stop.or(self.last_stop);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("waiting", &self.waiting.len())
            .field("running", &self.running.len())
            .field("numbers", &self.numbers)
            .finish()
    }
}
