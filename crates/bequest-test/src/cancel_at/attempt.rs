//! One run of a call, and what is looked at after it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bequest::{CancelScope, Context, Reason};

use super::executor::{Relay, caught, caught_in};
use super::injection::{How, Injection};
use super::outcome::{Failure, Outcome};
use super::place::{Place, RECORDER, Recorder};
use super::time::Time;
use crate::Leak;

/// How far ahead the deadline of the call's context is. Nothing that a test does takes as long.
const AHEAD: Duration = Duration::from_secs(3600);
/// A call that has waited so often without coming to its end will not.
const MOST: usize = 100_000;
/// How often what was left over is looked at.
const GLANCE: Duration = Duration::from_millis(1);

/// What is to be done in one run.
pub(super) struct Attempt {
    pub(super) injection: Option<Injection>,
    pub(super) time: Time,
    /// How long anything is waited for, on the system's clock.
    pub(super) patience: Duration,
}

/// What was seen in a run that passed.
pub(super) struct Passed {
    /// None if the run was to be disturbed.
    pub(super) places: Vec<Place>,
    /// Whether the injection was made.
    pub(super) was_injected: bool,
}

impl Attempt {
    pub(super) async fn run<S, T>(
        self,
        setup: &impl AsyncFn() -> S,
        call: &impl AsyncFn(&S, &Context) -> T,
        check: &impl AsyncFn(&S, &Outcome<T>),
    ) -> Result<Passed, Failure> {
        let leak = self.time.watch();
        let state = setup().await;
        let mut run = Run::of(&leak, &self);
        let judged = run.judge(&state, call, check).await;
        match judged {
            Ok(()) => Ok(Passed {
                was_injected: run.was_injected,
                places: run.places,
            }),
            Err(what) => Err(Failure {
                injection: self.injection.filter(|_| run.was_injected),
                place: run.at,
                what,
            }),
        }
    }
}

/// A run in progress.
struct Run<'a> {
    attempt: &'a Attempt,
    leak: &'a Leak,
    /// The call's own; `None` once it is over.
    scope: Option<CancelScope>,
    recorder: Arc<Recorder>,
    relay: Arc<Relay>,
    /// How many polls have returned pending.
    number: usize,
    places: Vec<Place>,
    /// The place of the injection.
    at: Option<Place>,
    was_injected: bool,
}

impl<'a> Run<'a> {
    fn of(leak: &'a Leak, attempt: &'a Attempt) -> Run<'a> {
        Run {
            attempt,
            leak,
            scope: Some(leak.context().with_timeout(AHEAD).named("call")),
            recorder: Arc::default(),
            relay: Relay::new(),
            number: 0,
            places: Vec::new(),
            at: None,
            was_injected: false,
        }
    }

    /// Runs the call, and says what was wrong with it.
    async fn judge<S, T>(
        &mut self,
        state: &S,
        call: &impl AsyncFn(&S, &Context) -> T,
        check: &impl AsyncFn(&S, &Outcome<T>),
    ) -> Result<(), String> {
        let output = self.conduct(state, call).await?;
        // As in production: what was derived from it ends with the call.
        self.scope = None;
        let outcome = Outcome {
            injection: self.attempt.injection.filter(|_| self.was_injected),
            output,
        };
        let checked = self.in_time(caught_in(check(state, &outcome))).await;
        checked
            .ok_or("the check does not come to its end")?
            .map_err(|panic| format!("the check failed: {panic}"))?;
        drop(outcome);
        self.nothing_is_left().await
    }

    async fn conduct<S, T>(
        &mut self,
        state: &S,
        call: &impl AsyncFn(&S, &Context) -> T,
    ) -> Result<Option<T>, String> {
        let ctx = self
            .scope()
            .context()
            .with_value(&RECORDER, Arc::clone(&self.recorder));
        let mut work = Some(Box::pin(call(state, &ctx)));
        let output = match &mut work {
            Some(work) => self.drive(work.as_mut()).await,
            None => Ok(None),
        };
        caught(|| drop(work.take())).map_err(|panic| format!("its drop panicked: {panic}"))?;
        output
    }

    /// Polls the call until it returns, or is to be dropped.
    async fn drive<F: Future>(&mut self, mut work: Pin<&mut F>) -> Result<Option<F::Output>, String> {
        loop {
            if self.is_due() {
                match self.inject() {
                    How::Drop => return Ok(None),
                    How::CancelThenDrop => return self.poll_last(work),
                    How::Cancel | How::Deadline => {}
                }
            }
            self.wait().await?;
            if let Poll::Ready(output) = self.poll(work.as_mut())? {
                return Ok(Some(output));
            }
            self.number += 1;
            if self.number > MOST {
                return Err(format!("it is woken for ever: it has waited {MOST} times"));
            }
            self.see();
        }
    }

    fn poll<F: Future>(&self, work: Pin<&mut F>) -> Result<Poll<F::Output>, String> {
        self.relay.take_woken();
        let waker = Waker::from(Arc::clone(&self.relay));
        let poll = || {
            self.recorder
                .during(|| work.poll(&mut TaskContext::from_waker(&waker)))
        };
        caught(poll).map_err(|panic| format!("it panicked: {panic}"))
    }

    fn poll_last<F: Future>(&self, work: Pin<&mut F>) -> Result<Option<F::Output>, String> {
        if !self.relay.is_woken() {
            return Ok(None);
        }
        match self.poll(work)? {
            Poll::Ready(output) => Ok(Some(output)),
            Poll::Pending => Ok(None),
        }
    }

    /// Waits until the call is woken.
    async fn wait(&self) -> Result<(), String> {
        let told = if self.was_injected {
            " after it was told"
        } else {
            ""
        };
        while !self.relay.is_woken() {
            // Once the call was told, its deadline is nothing that it might wait for in vain.
            let limit = if self.was_injected {
                None
            } else {
                self.scope().deadline()
            };
            match self.attempt.time.move_on(limit) {
                Some(true) => {}
                Some(false) => return Err(format!("it waits for ever{told}: nothing is due")),
                None => {
                    let woken = self.in_time(self.relay.woken()).await;
                    woken.ok_or(format!("it is not woken{told}: it hangs"))?;
                }
            }
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let here = |injection: Injection| injection.place() == self.number;
        !self.was_injected && self.attempt.injection.is_some_and(here)
    }

    fn inject(&mut self) -> How {
        self.was_injected = true;
        let how = self.attempt.injection.map_or(How::Drop, Injection::how);
        match how {
            How::Drop => {}
            How::Cancel | How::CancelThenDrop => self.scope().cancel_with("injected by the test"),
            How::Deadline => {
                // First the end, then the time: what else is due within the hour is to come after the deadline.
                self.scope().cancel_for(Reason::Deadline);
                self.attempt.time.jump(AHEAD);
            }
        }
        how
    }

    /// Remembers the place: all of them in an undisturbed run, and else the one at which the call is ended.
    fn see(&mut self) {
        let is_undisturbed = self.attempt.injection.is_none();
        if !is_undisturbed && !self.is_due() {
            return;
        }
        let place = Place::see(self.number, self.scope().id(), &self.leak.left(), &self.recorder);
        if is_undisturbed {
            self.places.push(place);
        } else {
            self.at = Some(place);
        }
    }

    /// Waits until what the call has derived is gone.
    async fn nothing_is_left(&self) -> Result<(), String> {
        let gone = async {
            while !self.leak.left().is_none() {
                pause().await;
            }
        };
        match self.in_time(gone).await {
            Some(()) => Ok(()),
            None => Err(format!("left over: {}", self.leak.left())),
        }
    }

    /// `work`, unless it takes longer than anybody has patience for.
    async fn in_time<F: Future>(&self, work: F) -> Option<F::Output> {
        Context::background()
            .timeout(self.attempt.patience, work)
            .await
            .ok()
    }

    fn scope(&self) -> &CancelScope {
        // Taken once the call is over, and asked for only before that.
        self.scope.as_ref().expect("the call is not over")
    }
}

/// A moment on the system's clock, for a condition that nobody announces.
async fn pause() {
    // It cannot end before its time: the background does not.
    let _ = Context::background().sleep(GLANCE).await;
}
