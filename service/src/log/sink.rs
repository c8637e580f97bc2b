//! Where lines go: a queue in memory and a thread that empties it into a file.
//!
//! Whoever writes a line only ever puts it into the queue: a disk that is slow, a pipe that nobody reads, a file system
//! that is full stall the thread here and no request.
//!
//! # Invariants
//!
//! 1. [`Sink::write`] does no input or output, and holds the lock for one copy.
//! 2. A line is written whole or not at all: what a failed write left over is kept and goes first at the next try.
//! 3. Each line that was accepted is written, or counted as lost and told of. The queue has a limit; so has patience at
//!    the end.
//! 4. `queue` is guarded by its mutex and nothing foreign runs under it.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bequest::{Canceled, Context};
use serde_json::json;
use tokio::sync::watch;

use super::event;

/// Opens what is written to, at the start and whenever it is to be reopened.
pub(crate) type Open = Box<dyn FnMut() -> io::Result<Box<dyn Write + Send>> + Send>;

/// A log's way out.
pub(crate) struct Sink {
    shared: Arc<Shared>,
}

/// What has become of the lines so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    /// For want of room in the queue.
    pub(crate) lost: u64,
    /// Writes and reopenings that failed.
    pub(crate) failures: u64,
}

struct Shared {
    name: &'static str,
    /// The most bytes that wait.
    most: usize,
    queue: Mutex<Queue>,
    /// Signalled when the queue is no longer empty, or something is asked of the thread.
    filled: Condvar,
    /// How many accepted lines have been written. Sent by the thread alone.
    written: watch::Sender<u64>,
    accepted: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: u64,
    reopen: bool,
    closed: bool,
}

/// What the thread took out of the queue.
struct Taken {
    lines: u64,
    reopen: bool,
    closed: bool,
}

/// The most bytes that wait in a queue.
const MOST_WAITING: usize = 4 << 20;

/// How long a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(2);

/// After a failed write, the next is tried this much later.
const AGAIN: Duration = Duration::from_millis(500);

impl Sink {
    /// Opens the log and starts its thread, which ends with [`close`](Sink::close) or the last handle.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or the system gives no thread.
    pub(crate) fn start(name: &'static str, open: Open) -> io::Result<Sink> {
        Sink::with_limit(name, open, MOST_WAITING)
    }

    fn with_limit(name: &'static str, mut open: Open, most: usize) -> io::Result<Sink> {
        let output = open()?;
        let shared = Arc::new(Shared {
            name,
            most,
            queue: Mutex::default(),
            filled: Condvar::new(),
            written: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            open,
            output,
            batch: Vec::new(),
            lines: 0,
            failing: false,
            told_lost: 0,
        };
        thread::Builder::new()
            .name(format!("{name} log"))
            .spawn(|| writer.run())?;
        Ok(Sink { shared })
    }

    /// Queues a line, its end of line included. Never waits.
    pub(crate) fn write(&self, line: &str) {
        let shared = &self.shared;
        let mut queue = shared.queue();
        if queue.closed || queue.bytes.len() + line.len() > shared.most {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes.extend_from_slice(line.as_bytes());
        queue.lines += 1;
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let was_empty = queue.lines == 1;
        drop(queue);
        if was_empty {
            shared.filled.notify_one();
        }
    }

    /// Opens the log anew before the next line is written. If that fails, the old one stays and the failure is told.
    pub(crate) fn reopen(&self) {
        self.shared.queue().reopen = true;
        self.shared.filled.notify_one();
    }

    /// Waits until every line accepted so far is written.
    ///
    /// # Errors
    ///
    /// The end of `ctx`, with lines still waiting.
    pub(crate) async fn flush(&self, ctx: &Context) -> Result<(), Canceled> {
        let target = self.shared.accepted.load(Ordering::Relaxed);
        let mut written = self.shared.written.subscribe();
        let caught_up = ctx.run(written.wait_for(|&written| written >= target)).await?;
        // The sender is in `shared`, which we hold.
        debug_assert!(caught_up.is_ok(), "the counter outlives its readers");
        Ok(())
    }

    /// Takes no more lines, waits until those that wait are written, and ends the thread.
    ///
    /// # Errors
    ///
    /// The end of `ctx`, with lines still waiting.
    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Canceled> {
        let outcome = self.flush(ctx).await;
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
        outcome
    }

    pub(crate) fn name(&self) -> &'static str {
        self.shared.name
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// The thread's side.
struct Writer {
    shared: Arc<Shared>,
    open: Open,
    output: Box<dyn Write + Send>,
    /// Taken out of the queue and not yet written (invariant 2).
    batch: Vec<u8>,
    /// Lines taken, and not yet known to be written.
    lines: u64,
    /// Whether the last try failed.
    failing: bool,
    /// How many lost lines the process has been told of.
    told_lost: u64,
}

impl Writer {
    fn run(mut self) {
        loop {
            let taken = self.take();
            self.lines += taken.lines;
            if taken.reopen {
                self.reopen();
            }
            let outcome = self.write_batch();
            match &outcome {
                Ok(()) => self.told_written(),
                Err(error) => self.tell_failed(error),
            }
            if taken.closed && (outcome.is_err() || self.shared.queue().bytes.is_empty()) {
                self.give_up();
                return;
            }
        }
    }

    /// Waits for something to do, and takes it.
    fn take(&mut self) -> Taken {
        let idle = |queue: &mut Queue| queue.bytes.is_empty() && !queue.reopen && !queue.closed;
        let queue = self.shared.queue();
        let mut queue = if self.lines == 0 {
            let filled = &self.shared.filled;
            let queue = filled
                .wait_while(queue, idle)
                .unwrap_or_else(PoisonError::into_inner);
            // Whoever queues the first line wakes this thread, which costs more than the line. Those that follow within
            // the moment are written together and wake nobody.
            let gathering = |queue: &mut Queue| !queue.reopen && !queue.closed;
            let waited = filled.wait_timeout_while(queue, GATHER, gathering);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            // Something failed to be written: new lines wait behind it, and only time or a reopening helps.
            let waiting = |queue: &mut Queue| !queue.reopen && !queue.closed;
            let waited = self.shared.filled.wait_timeout_while(queue, AGAIN, waiting);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let mut lines = 0;
        if self.batch.is_empty() {
            std::mem::swap(&mut queue.bytes, &mut self.batch);
            lines = std::mem::take(&mut queue.lines);
        }
        Taken {
            lines,
            reopen: std::mem::take(&mut queue.reopen),
            closed: queue.closed,
        }
    }

    fn reopen(&mut self) {
        match (self.open)() {
            Ok(output) => self.output = output,
            Err(error) => self.tell_failed(&error),
        }
    }

    /// Writes all of the batch, or keeps what could not be written.
    fn write_batch(&mut self) -> io::Result<()> {
        let mut done = 0;
        let outcome = loop {
            if done == self.batch.len() {
                break self.output.flush();
            }
            match self.output.write(&self.batch[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.batch.drain(..done);
        outcome
    }

    /// Lets those who wait know, and tells the process of what was lost before.
    fn told_written(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.shared.written.send_modify(|written| *written += lines);
        let counts = self.shared.counts();
        if self.failing || counts.lost > self.told_lost {
            let lost = counts.lost - self.told_lost;
            let what = if self.failing {
                "a log is written again"
            } else {
                "a log has lost lines"
            };
            event(what, &json!({ "log": self.shared.name, "lines_lost": lost }));
        }
        self.failing = false;
        self.told_lost = counts.lost;
    }

    /// Tells the process of the first failure after a success; the counter has the rest.
    fn tell_failed(&mut self, error: &io::Error) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let error = error.to_string();
            event(
                "a log cannot be written",
                &json!({ "log": self.shared.name, "error": error }),
            );
        }
    }

    /// Counts what will never be written.
    fn give_up(self) {
        let lost = self.lines + std::mem::take(&mut self.shared.queue().lines);
        if lost > 0 {
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            event(
                "a log is closed",
                &json!({ "log": self.shared.name, "lines_lost": lost }),
            );
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("name", &self.shared.name)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
