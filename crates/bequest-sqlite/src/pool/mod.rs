//! The threads and the queues before them: two lanes, one for reading and one for writing.
//!
//! A lane is a first-in-first-out [`Queue`] and the threads that serve it. Here is how they start and how they end;
//! nothing here knows SQL or decides what a job's end means.

mod queue;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bequest::Context;

pub(crate) use self::queue::{Job, Queue};
use crate::call::{call, last_call};
use crate::connection::{Engine, Role};
use crate::error::{Error, Step};
use crate::options::Settings;

/// All threads of a database. Dropping it ends them.
pub(crate) struct Pool {
    pub(crate) readers: Arc<Queue>,
    pub(crate) writer: Arc<Queue>,
    settings: Arc<Settings>,
    /// Written while opening, emptied by whoever joins them.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// Opens the file on the writing thread, then starts `readers` reading threads, which open it at their first call.
    pub(crate) async fn start(ctx: &Context, settings: Settings, readers: usize) -> Result<Pool, Error> {
        let pool = Pool {
            readers: Arc::new(Queue::new()),
            writer: Arc::new(Queue::new()),
            settings: Arc::new(settings),
            threads: Mutex::default(),
        };
        pool.spawn("sqlite-writer".to_owned(), Role::Writer)?;
        // The writer first: it makes the file and the log, without which a reader can not open them.
        let opening = call(&pool.writer, ctx, "sqlite open", Engine::open).await;
        opening.map_err(|error| error.during(Step::Opening))?;
        for number in 1..=readers {
            pool.spawn(format!("sqlite-reader-{number}"), Role::Reader)?;
        }
        Ok(pool)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Ends the threads: in order while `ctx` lives, at once when it ends.
    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.readers.finish_all();
        self.writer.seal();
        match ctx.run(self.wind_down(ctx)).await {
            Ok(answer) => answer,
            Err(end) => {
                self.readers.abort();
                self.writer.abort();
                Err(Error::canceled_at(Step::Closing, end))
            }
        }
    }

    /// Readers first, since the log can be emptied only when nobody reads it.
    async fn wind_down(&self, ctx: &Context) -> Result<(), Error> {
        self.readers.ended().await;
        let checkpoint = match last_call(&self.writer, ctx, "sqlite close", Engine::checkpoint).await {
            Err(error) if error.is_closed() => Ok(()), // somebody else's close sees to it
            answer => answer.map_err(|error| error.during(Step::Closing)),
        };
        self.writer.ended().await;
        self.join();
        checkpoint
    }

    fn spawn(&self, name: String, role: Role) -> Result<(), Error> {
        let queue = match role {
            Role::Reader => &self.readers,
            Role::Writer => &self.writer,
        };
        let thread = worker::spawn(name, queue, Engine::new(role, Arc::clone(&self.settings)))?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    /// Joins the threads, which have nothing left to do but return.
    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic has been reported by the panic hook, and its queue was closed by the thread on its way out.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    /// The threads end by themselves; waiting for them here would block an executor.
    fn drop(&mut self) {
        self.readers.finish_all();
        self.writer.finish_all();
    }
}
