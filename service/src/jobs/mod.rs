//! Background work: started by a request, finished without it, waited for by the shutdown.
//!
//! A job's context takes the values of the request that started it, its session and its trace among them, and not its
//! end. It ends at the job's own limit, when somebody cancels it by its number, or when the shutdown has waited long
//! enough. Whichever node is asked, the job's own node cancels it: [`elsewhere`].
//!
//! # Invariants
//!
//! 1. A job that was acknowledged is in the database: its row is written before its number is known to anybody.
//! 2. A row says `running` only while its job runs, or if the process was gone before it: then the next start says so.
//! 3. A job holds its place from before its row is written until after its end is.
//! 4. A job that somebody began who was signed in is theirs: to anybody else there is no such job.
//! 5. `state` is guarded by its mutex; nothing is awaited, cancelled or dropped under it.

mod elsewhere;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bequest::{CancelScope, Canceled, Canceller, Context, Reason};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::domain::{session, userip};
use crate::log::{self, request};
use crate::store::jobs::{Ending, Job, Starter, State as JobState};
use crate::store::{Error, Store};

/// The jobs of this process.
#[derive(Debug)]
pub(crate) struct Jobs {
    /// Ends every job that the shutdown no longer waits for.
    all: CancelScope,
    limits: Limits,
    places: Arc<Semaphore>,
    store: Store,
    /// Other nodes may use the same database.
    is_shared: bool,
    state: Mutex<State>,
}

/// What bounds the jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long one may take.
    pub(crate) time: Duration,
    /// How many may run.
    pub(crate) running: usize,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<i64, Running>,
    /// Taken by the shutdown; afterwards no job is begun.
    tasks: Option<JoinSet<()>>,
    /// Hears what other nodes were asked; `None` where there are none.
    listening: Option<JoinHandle<()>>,
}

/// A job that runs.
#[derive(Clone, Debug)]
struct Running {
    canceller: Canceller,
    passages: Arc<AtomicU32>,
    begun: Instant,
    /// Ends when the job's end has been written.
    over: Context,
}

/// Why no job was begun, or none was cancelled.
#[derive(Debug)]
pub(crate) enum Refused {
    TooMany(usize),
    ShuttingDown,
    Unknown,
    /// It has ended already, like this.
    Over(JobState),
    /// The request ended first.
    Ended(Canceled),
    Store(String),
}

/// A cancel by number, as the cause of a job's end.
#[derive(Debug)]
struct ByNumber {
    reason: String,
    by: String,
}

/// How long the end of a job may take to write.
const RECORDING: Duration = Duration::from_secs(5);

impl Jobs {
    /// The jobs of this database, which other nodes may use as well if it `is_shared`. Those that processes left behind
    /// which are gone are marked as interrupted.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn open(
        ctx: &Context,
        limits: Limits,
        store: Store,
        is_shared: bool,
    ) -> Result<Arc<Jobs>, Error> {
        let state = State {
            tasks: Some(JoinSet::new()),
            ..State::default()
        };
        let jobs = Arc::new(Jobs {
            all: ctx.without_cancel().with_cancel().named("jobs"),
            limits,
            places: Arc::new(Semaphore::new(limits.running)),
            store,
            is_shared,
            state: Mutex::new(state),
        });
        jobs.interrupt_left(ctx).await?;
        if is_shared {
            let listening = elsewhere::listen(&jobs);
            jobs.state().listening = Some(listening);
        }
        Ok(jobs)
    }

    /// Starts a job for the request whose context `ctx` is; its number.
    ///
    /// # Cancel safety
    ///
    /// If the request ends before the row is written, there is no job. If it ends afterwards, the job goes on.
    ///
    /// # Errors
    ///
    /// If too many run, if the service is shutting down, if the request ended, or if the row cannot be written.
    pub(crate) async fn start(self: &Arc<Self>, ctx: &Context) -> Result<i64, Refused> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Refused::TooMany(self.limits.running))?;
        let (tell, told) = oneshot::channel();
        let job = Arc::clone(self).whole_life(ctx.clone(), place, tell);
        {
            let mut state = self.state();
            let tasks = state.tasks.as_mut().ok_or(Refused::ShuttingDown)?;
            while tasks.try_join_next().is_some() {}
            tasks.spawn(job);
        }
        let id = told.await.map_err(|_| Refused::ShuttingDown)?;
        id.map_err(|error| Refused::of(&error))
    }

    /// The job of this number, with its progress if it runs, for whoever is signed in on `ctx`.
    pub(crate) async fn get(&self, ctx: &Context, id: i64) -> Result<Job, Refused> {
        let job = self
            .store
            .job(ctx, id)
            .await
            .map_err(|error| Refused::of(&error))?;
        let job = job.filter(|job| job.starter.user.is_none() || job.starter.user == user(ctx));
        job.map(|job| self.with_progress(job)).ok_or(Refused::Unknown)
    }

    /// The newest jobs first, at most `most` of them, of whoever is signed in on `ctx` and of nobody in particular.
    pub(crate) async fn list(&self, ctx: &Context, most: u32) -> Result<Vec<Job>, Refused> {
        let jobs = self
            .store
            .jobs(ctx, user(ctx), most)
            .await
            .map_err(|error| Refused::of(&error))?;
        Ok(jobs.into_iter().map(|job| self.with_progress(job)).collect())
    }

    /// Cancels a job, on whichever node it runs, waits until it has ended and its end is written, and answers what is
    /// written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job has been told all the same, or its node will be.
    ///
    /// # Errors
    ///
    /// If there is no such job, if it has ended already, or if `ctx` ends first.
    pub(crate) async fn cancel(
        &self,
        ctx: &Context,
        id: i64,
        reason: String,
        by: String,
    ) -> Result<Job, Refused> {
        let job = self.get(ctx, id).await?;
        let running = self.state().running.get(&id).cloned();
        let Some(running) = running else {
            // It may have ended since it was read.
            let is_stale = job.state == JobState::Running;
            let job = if is_stale { self.get(ctx, id).await? } else { job };
            if self.is_shared && job.state == JobState::Running {
                return self.end_elsewhere(ctx, id, reason, by).await;
            }
            return Err(Refused::Over(job.state));
        };
        running.canceller.cancel_with(ByNumber { reason, by });
        ctx.run(running.over.done()).await.map_err(Refused::Ended)?;
        self.get(ctx, id).await
    }

    /// How many jobs run.
    pub(crate) fn running(&self) -> usize {
        self.state().running.len()
    }

    /// Begins no more jobs and waits for those that run: for `patience` as they are, then told of the shutdown. How many
    /// had to be told.
    pub(crate) async fn shut_down(&self, patience: Duration) -> usize {
        let Some(mut tasks) = self.state().tasks.take() else {
            return 0;
        };
        let everyone = async { while tasks.join_next().await.is_some() {} };
        let waited = self.all.timeout(patience, everyone).await;
        let told = self.running();
        if waited.is_err() {
            self.all.cancel_for(Reason::Shutdown);
            // They check their context at every passage and every statement, and writing their end has a limit.
            while tasks.join_next().await.is_some() {}
        }
        let listening = self.state().listening.take();
        if let Some(listening) = listening {
            listening.abort();
        }
        told
    }

    /// Marks as interrupted what processes left running that are gone.
    async fn interrupt_left(&self, ctx: &Context) -> Result<(), Error> {
        let left = self.store.interrupt_jobs(ctx).await?;
        if !left.is_empty() {
            log::event("jobs were interrupted", &json!({ "jobs": left }));
        }
        Ok(())
    }

    /// From the row to its end.
    async fn whole_life(
        self: Arc<Self>,
        request: Context,
        place: OwnedSemaphorePermit,
        tell: oneshot::Sender<Result<i64, Error>>,
    ) {
        let id = match self.store.begin_job(&request, starter(&request)).await {
            Ok(id) => id,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let kept = Context::any([&request.without_cancel(), &self.all]).named("background");
        drop(request);
        let scope = kept
            .with_timeout(self.limits.time)
            .named("job")
            .caused_by("the limit of a job");
        let over = Context::background().with_cancel().named("job's record");
        let running = Running {
            canceller: scope.canceller(),
            passages: Arc::default(),
            begun: Instant::now(),
            over: over.context(),
        };
        let passages = Arc::clone(&running.passages);
        self.state().running.insert(id, running);
        // Nobody may be there to hear of it any more; the job goes on.
        tell.send(Ok(id)).ok();
        self.run(&scope, id, passages).await;
        let ended = self.state().running.remove(&id);
        drop((ended, place, over));
    }

    /// Works, and writes how it ended.
    async fn run(self: &Arc<Self>, scope: &CancelScope, id: i64, passages: Arc<AtomicU32>) {
        let (store, ctx, done) = (self.store.clone(), scope.context(), Arc::clone(&passages));
        // A task of its own, so that a panic ends the work and not its record.
        let work = tokio::spawn(async move {
            let digest = work::digest(&ctx, &done).await.map_err(|end| ended(&end))?;
            let passages = done.load(Ordering::Relaxed);
            let finished = store.finish_job(&ctx, id, digest, passages).await;
            finished.map_err(|error| error.canceled().map_or_else(|| failed(error.to_string()), ended))
        });
        let outcome = work.await.unwrap_or_else(|panic| Err(failed(panic.to_string())));
        let Err(mut ending) = outcome else { return };
        ending.passages = passages.load(Ordering::Relaxed);
        let request = request::of(scope);
        log::event(
            "a job has not finished",
            &json!({
                "job": id,
                "state": ending.state.as_str(),
                "detail": ending.detail,
                "user": request.and_then(|request| request.session()).map(|session| &session.user.id),
                "request_id": request.map(|request| request.id().to_string()),
                "trace_id": request.map(|request| request.trace_id()),
            }),
        );
        let recording = scope.cleanup(RECORDING).named("a job's end");
        if let Err(error) = self.store.end_job(&recording, id, ending).await {
            // The row still says `running`; the next start will say that it was interrupted.
            log::event(
                "a job's end was not written",
                &json!({ "job": id, "error": error.to_string() }),
            );
        }
    }

    fn with_progress(&self, mut job: Job) -> Job {
        if job.state == JobState::Running
            && let Some(running) = self.state().running.get(&job.id)
        {
            job.passages = running.passages.load(Ordering::Relaxed);
            job.detail = format!("for {}", crate::answer::go(running.begun.elapsed()));
        }
        job
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is signed in.
fn user(ctx: &Context) -> Option<String> {
    session::from_context(ctx).map(|session| session.user.id.clone())
}

/// Whose request it is, and which, as its context says.
fn starter(request: &Context) -> Starter {
    let known = request::of(request);
    Starter {
        address: userip::from_context(request).map(|ip| ip.to_string()),
        user: user(request),
        request_id: known.map(|known| known.id().to_string()),
        trace_id: known.map(|known| known.trace_id()),
    }
}

fn ended(end: &Canceled) -> Ending {
    let by_number = end.cause().and_then(|cause| cause.downcast_ref::<ByNumber>());
    let state = if by_number.is_some() {
        JobState::Cancelled
    } else {
        JobState::Ended
    };
    let reason = by_number.map_or_else(|| end.reason().to_string(), |cancel| cancel.reason.clone());
    Ending {
        state,
        detail: end.to_string(),
        reason: Some(reason),
        origin: Some(format!("{}:{}", end.origin().file(), end.origin().line())),
        passages: 0,
    }
}

fn failed(error: String) -> Ending {
    Ending {
        state: JobState::Failed,
        detail: error,
        reason: None,
        origin: None,
        passages: 0,
    }
}

impl Refused {
    fn of(error: &Error) -> Refused {
        match error.canceled() {
            Some(end) => Refused::Ended(end.clone()),
            None => Refused::Store(error.to_string()),
        }
    }
}

impl fmt::Display for ByNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, says {}", self.reason, self.by)
    }
}

impl std::error::Error for ByNumber {}

#[cfg(test)]
mod tests;
