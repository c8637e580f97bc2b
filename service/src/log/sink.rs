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
            self.shared
                .filled
                .wait_while(queue, idle)
                .unwrap_or_else(PoisonError::into_inner)
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
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// What was written, and a gate before each write: the next message says what becomes of it.
    struct Gated {
        written: Arc<Mutex<Vec<u8>>>,
        next: mpsc::Receiver<Verdict>,
    }

    enum Verdict {
        /// Everything from now on.
        Open,
        /// This many bytes, and then an error.
        FailAfter(usize),
    }

    /// A sink whose writes wait for verdicts.
    fn gated(most: usize) -> (Sink, mpsc::Sender<Verdict>, Arc<Mutex<Vec<u8>>>) {
        let (tell, next) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut once = Some(Gated {
            written: Arc::clone(&written),
            next,
        });
        let open = move || match once.take() {
            Some(gated) => Ok(Box::new(gated) as Box<dyn Write + Send>),
            None => Err(io::Error::other("there is only one")),
        };
        (
            Sink::with_limit("test", Box::new(open), most).unwrap(),
            tell,
            written,
        )
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.written.lock().unwrap();
            match self.next.recv() {
                Ok(Verdict::FailAfter(0)) => Err(io::ErrorKind::StorageFull.into()),
                Ok(Verdict::FailAfter(some)) => {
                    let some = some.min(bytes.len());
                    written.extend_from_slice(&bytes[..some]);
                    Ok(some)
                }
                // The sender is gone or says so: all is well.
                Ok(Verdict::Open) | Err(_) => {
                    written.extend_from_slice(bytes);
                    Ok(bytes.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_slow_disk_stalls_nobody_and_loses_nothing() {
        let ctx = Context::background();
        let (sink, verdict, written) = gated(1 << 20);
        for number in 0..1000 {
            sink.write(&format!("line {number}\n"));
        }
        // Nothing is let through yet, and all of them have been taken.
        assert_eq!(
            sink.counts(),
            Counts {
                accepted: 1000,
                ..Counts::default()
            }
        );
        let impatient = ctx.with_timeout(Duration::from_millis(20));
        assert!(sink.flush(&impatient).await.unwrap_err().is_from(&impatient));
        drop(verdict);
        sink.flush(&ctx).await.unwrap();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(text, expected);
    }

    /// The control: who writes the file itself waits for it.
    #[test]
    fn control_a_direct_write_waits_for_the_disk() {
        let (verdict, next) = mpsc::channel();
        let mut gate = Gated {
            written: Arc::default(),
            next,
        };
        let (done, is_done) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let request = thread::spawn(move || {
            begun.send(()).unwrap();
            gate.write_all(b"line\n").unwrap();
            done.send(()).unwrap();
        });
        has_begun.recv().unwrap();
        assert!(
            is_done.try_recv().is_err(),
            "no request gets past a disk that does not answer"
        );
        verdict.send(Verdict::Open).unwrap();
        request.join().unwrap();
        is_done.recv().unwrap();
    }

    #[tokio::test]
    async fn a_torn_line_is_completed_and_the_failure_counted() {
        let ctx = Context::background();
        let (sink, verdict, written) = gated(1 << 20);
        verdict.send(Verdict::FailAfter(3)).unwrap();
        verdict.send(Verdict::FailAfter(0)).unwrap();
        sink.write("first\n");
        while sink.counts().failures == 0 {
            tokio::task::yield_now().await;
        }
        sink.write("second\n");
        // Whoever made room may say so with a SIGHUP; otherwise it is tried again by itself.
        sink.reopen();
        drop(verdict);
        sink.flush(&ctx).await.unwrap();
        assert_eq!(*written.lock().unwrap(), b"first\nsecond\n");
        let counts = sink.counts();
        assert_eq!((counts.accepted, counts.lost), (2, 0));
        assert_eq!(
            counts.failures, 2,
            "the write, and the reopening that found nothing"
        );
    }

    #[tokio::test]
    async fn a_full_queue_loses_lines_and_counts_them() {
        let ctx = Context::background();
        let (sink, verdict, written) = gated(64);
        for _ in 0..100 {
            sink.write("0123456789\n");
        }
        let counts = sink.counts();
        assert_eq!(counts.accepted + counts.lost, 100);
        assert!(counts.lost >= 85, "{counts:?}");
        drop(verdict);
        sink.close(&ctx).await.unwrap();
        let lines = written.lock().unwrap().len() as u64 / 11;
        assert_eq!(lines, counts.accepted);
        sink.write("too late\n");
        assert_eq!(sink.counts().lost, counts.lost + 1, "a closed log takes nothing");
    }
}
