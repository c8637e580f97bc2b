//! Background work: started by a request, finished without it, waited for by the shutdown.
//!
//! A job's context takes the values of the request that started it and not its end. It ends at the job's own limit, or
//! when the shutdown has waited long enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bequest::{CancelScope, Canceled, Context, Reason};
use tokio::task::JoinSet;

use crate::domain::userip;
use crate::search::corpus;
use crate::store::Store;

/// The jobs of this process.
#[derive(Debug)]
pub(crate) struct Jobs {
    /// Ends every job that the shutdown no longer waits for.
    all: CancelScope,
    limit: Duration,
    store: Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: i64,
    known: BTreeMap<i64, Job>,
    /// Taken by the shutdown; afterwards no job is begun.
    tasks: Option<JoinSet<()>>,
}

/// What is known of a job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Whose request started it, from the context that it kept.
    pub(crate) started_by: Option<String>,
    pub(crate) begun: Instant,
    pub(crate) passages: usize,
    pub(crate) progress: Progress,
}

#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Running,
    Finished { digest: String, took: Duration },
    Ended(Canceled),
    Failed(String),
}

/// Why no job was begun.
#[derive(Debug)]
pub(crate) enum Refused {
    TooMany(usize),
    ShuttingDown,
}

/// Jobs that may run at a time, and that are remembered once they have ended.
const MOST_RUNNING: usize = 16;
const MOST_REMEMBERED: usize = 256;

/// How long a job rests after each passage. It is a gentle job; and one can watch it.
const REST: Duration = Duration::from_millis(10);

impl Jobs {
    pub(crate) fn new(ctx: &Context, limit: Duration, store: Store) -> Arc<Jobs> {
        let state = State {
            tasks: Some(JoinSet::new()),
            ..State::default()
        };
        let all = ctx.without_cancel().with_cancel().named("jobs");
        Arc::new(Jobs {
            all,
            limit,
            store,
            state: Mutex::new(state),
        })
    }

    /// Starts a job that digests the corpus, for the request whose context `ctx` is; its number.
    pub(crate) fn start(self: &Arc<Self>, ctx: &Context) -> Result<i64, Refused> {
        let kept = Context::any([&ctx.without_cancel(), &self.all]).named("background");
        let mut state = self.state();
        let State { last, known, tasks } = &mut *state;
        let Some(tasks) = tasks else {
            return Err(Refused::ShuttingDown);
        };
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MOST_RUNNING {
            return Err(Refused::TooMany(MOST_RUNNING));
        }
        *last += 1;
        let id = *last;
        let started_by = userip::from_context(&kept).map(|ip| ip.to_string());
        known.insert(
            id,
            Job {
                started_by,
                begun: Instant::now(),
                passages: 0,
                progress: Progress::Running,
            },
        );
        let jobs = Arc::clone(self);
        tasks.spawn(async move {
            let scope = kept
                .with_timeout(jobs.limit)
                .named("job")
                .caused_by("the limit of a job");
            let progress = jobs.run(&scope, id).await;
            jobs.update(id, |job| job.progress = progress);
        });
        Ok(id)
    }

    /// What is known of a job.
    pub(crate) fn get(&self, id: i64) -> Option<Job> {
        self.state().known.get(&id).cloned()
    }

    /// How many jobs run.
    pub(crate) fn running(&self) -> usize {
        self.state()
            .known
            .values()
            .filter(|job| matches!(job.progress, Progress::Running))
            .count()
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
            // They check their context at every passage and every statement.
            while tasks.join_next().await.is_some() {}
        }
        told
    }

    async fn run(&self, ctx: &Context, id: i64) -> Progress {
        let begun = Instant::now();
        let (mut words, mut longest) = (0, "");
        for passage in corpus::passages() {
            if let Err(end) = ctx.sleep(REST).await {
                return Progress::Ended(end);
            }
            words += passage.text.split_whitespace().count();
            if passage.title.chars().count() > longest.chars().count() {
                longest = passage.title;
            }
            self.update(id, |job| job.passages += 1);
        }
        let digest = format!("{words} words; the longest title is {longest:?}");
        match self.store.put_digest(ctx, id, digest.clone()).await {
            Ok(()) => Progress::Finished {
                digest,
                took: begun.elapsed(),
            },
            Err(error) => match error.canceled() {
                Some(end) => Progress::Ended(end.clone()),
                None => Progress::Failed(error.to_string()),
            },
        }
    }

    fn update(&self, id: i64, change: impl FnOnce(&mut Job)) {
        let mut state = self.state();
        if let Some(job) = state.known.get_mut(&id) {
            change(job);
        }
        while state.known.len() > MOST_REMEMBERED {
            let oldest = state
                .known
                .iter()
                .find(|(_, job)| !matches!(job.progress, Progress::Running));
            let Some((&oldest, _)) = oldest else { break };
            state.known.remove(&oldest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
