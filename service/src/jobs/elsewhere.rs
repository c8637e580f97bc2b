//! Jobs and their ends across nodes: a cancel is asked of whichever node runs the job, by way of the database that they
//! share.
//!
//! Who is asked for the end of a job that does not run here writes that down beside the job, and waits for the row to say how
//! it ended. Each node hears of what was written, looks for what is meant for it, and cancels as if it had been asked itself.
//!
//! # Invariants
//!
//! 1. What was asked is in the database before anybody is told of it. A node that missed the word looks all the same:
//!    when it listens again, and every now and then.
//! 2. Who waits for a job's end stops when the job's node is gone: the row then says that it was interrupted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bequest::Context;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{ByNumber, Jobs, Refused};
use crate::log;
use crate::store::Error;
use crate::store::jobs::{Job, State as JobState, Wish};

/// The rests between two looks at a job that is to end: short at first, since most ends are quick.
const RESTS: [u64; 5] = [5, 10, 20, 50, 100];
/// After this many looks it is asked whether the job's node is still there, and after as many again.
const LOOKS: usize = 10;
/// Before another try, where the database was away.
const AWAY: Duration = Duration::from_secs(1);

impl Jobs {
    /// Asks for the end of a job that runs on another node, waits until it has ended, and answers what is written.
    pub(super) async fn end_elsewhere(
        &self,
        ctx: &Context,
        id: i64,
        reason: String,
        by: String,
    ) -> Result<Job, Refused> {
        let wish = Wish { job: id, reason, by };
        let asked = self.store.ask_end(ctx, wish).await;
        asked.map_err(|error| Refused::of(&error))?;
        let mut look = 0;
        loop {
            let job = self.get(ctx, id).await?;
            if job.state != JobState::Running {
                return Ok(job);
            }
            let rest = Duration::from_millis(RESTS[look.min(RESTS.len() - 1)]);
            ctx.sleep(rest).await.map_err(Refused::Ended)?;
            look += 1;
            if look % LOOKS == 0 {
                let left = self.interrupt_left(ctx).await;
                left.map_err(|error| Refused::of(&error))?;
            }
        }
    }

    /// Cancels what other nodes were asked to have ended, and runs here.
    async fn end_what_was_asked(&self, ctx: &Context) -> Result<(), Error> {
        if self.running() == 0 {
            return Ok(());
        }
        for Wish { job, reason, by } in self.store.asked_ends(ctx).await? {
            let running = self.state().running.get(&job).cloned();
            if let Some(running) = running {
                running.canceller.cancel_with(ByNumber { reason, by });
            }
        }
        Ok(())
    }
}

/// Listens for as long as the jobs are there.
pub(super) fn listen(jobs: &Arc<Jobs>) -> JoinHandle<()> {
    tokio::spawn(keep_listening(Arc::downgrade(jobs)))
}

async fn keep_listening(jobs: Weak<Jobs>) {
    let background = Context::background();
    let mut is_away = false;
    while let Some(store) = jobs.upgrade().map(|jobs| jobs.store.clone()) {
        let error = match store.hear_asked_ends(&background).await {
            Err(error) => error,
            Ok(mut ears) => loop {
                is_away = false;
                let Some(jobs) = jobs.upgrade() else { return };
                if let Err(error) = jobs.end_what_was_asked(&background).await {
                    break error;
                }
                drop(jobs);
                if let Err(error) = ears.next(&background).await {
                    break error;
                }
            },
        };
        // Told once. What is asked meanwhile is found as soon as the database is there again.
        if !std::mem::replace(&mut is_away, true) {
            log::event(
                "nobody hears what other nodes ask of jobs",
                &json!({ "error": error.to_string() }),
            );
        }
        if background.sleep(AWAY).await.is_err() {
            return;
        }
    }
}
