//! A thread that owns a connection and serves a queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::queue::{Entry, Queue};
use crate::connection::{Engine, Report};
use crate::error::Error;

/// Starts a thread that serves `queue` with `engine`, until the queue is finished.
pub(crate) fn spawn(name: String, queue: &Arc<Queue>, engine: Engine) -> Result<JoinHandle<()>, Error> {
    // Counted before the thread runs, so that whoever waits for the end of all threads misses none.
    let serving = Serving::new(queue);
    let thread = Builder::new().name(name).spawn(move || serve(&serving, engine));
    thread.map_err(|error| Error::system("starting a thread", error))
}

fn serve(serving: &Serving, mut engine: Engine) {
    let queue = &serving.0;
    while let Some(entry) = queue.next() {
        // What may still panic here is not the work but a destructor: of an answer that nobody waits for, or of what
        // the work had captured. The panic hook has reported it; the thread goes on with a fresh connection.
        if catch_unwind(AssertUnwindSafe(|| serve_one(queue, &mut engine, entry))).is_err() {
            engine.discard();
        }
    }
    // The connection is closed here, before `serving` says that the thread has ended.
}

fn serve_one(queue: &Queue, engine: &mut Engine, entry: Entry) {
    let Entry {
        number, ctx, mut job, ..
    } = entry;
    let mut running = Running {
        queue,
        number,
        report: None,
    };
    if ctx.is_done() {
        return; // never begun: its caller has left, or is about to
    }
    running.report = Some(Report {
        panicked: true,
        ..Report::default()
    }); // unless it says otherwise
    running.report = Some(job.run(engine, &ctx));
    drop(running);
    job.answer();
}

/// A job between its start and the moment at which the numbers say that it has ended.
struct Running<'a> {
    queue: &'a Queue,
    number: u64,
    report: Option<Report>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.queue.finish(self.number, self.report.take());
    }
}

/// A thread's membership in its queue; ends with the thread, also by a panic.
struct Serving(Arc<Queue>);

impl Serving {
    fn new(queue: &Arc<Queue>) -> Serving {
        queue.join();
        Serving(Arc::clone(queue))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.part();
    }
}
