//! The slow fetch: an answer that is built piece by piece, for as long as somebody wants it.
//!
//! Each piece is ten milliseconds of blocking work, as of a slow disk. Between two pieces the context is asked; so the
//! fetch has stopped within one piece of its end, on a thread that nobody could have interrupted.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};

/// How long one piece takes.
pub(crate) const PIECE: Duration = Duration::from_millis(10);

/// What became of the last fetch.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) key: String,
    pub(crate) pieces: u64,
    pub(crate) of: u64,
    pub(crate) state: State,
    pub(crate) elapsed: Duration,
}

/// How far a fetch has come.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Running,
    /// Complete, and written.
    Written,
    /// Stopped, and nothing written: why, and how long after the context's end the work had stopped.
    Stopped {
        end: Canceled,
        after: Option<Duration>,
    },
    /// Complete, but the store refused it.
    Failed(String),
}

/// Remembers what became of the last fetch.
#[derive(Debug, Default)]
pub(crate) struct LastFetch(Mutex<Option<Outcome>>);

impl LastFetch {
    pub(crate) fn get(&self) -> Option<Outcome> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub(crate) fn set(&self, outcome: Outcome) {
        let old = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .replace(outcome);
        drop(old);
    }
}

/// Builds the answer for `key` out of `pieces` pieces. Blocks the thread.
///
/// # Errors
///
/// The end of `ctx`, at most one piece after it came, with the number of pieces that were done by then.
pub(crate) fn build(ctx: &Context, key: &str, pieces: u64) -> Result<String, (u64, Canceled)> {
    let mut answer = format!("{key}:");
    for done in 0..pieces {
        ctx.check().map_err(|end| (done, end))?;
        // The slow device. It is deaf, which is the point: what stops the fetch is the question above.
        thread::sleep(PIECE);
        answer.push(char::from(b'a' + u8::try_from(done % 26).unwrap_or(0)));
    }
    ctx.check().map_err(|end| (pieces, end))?;
    Ok(answer)
}

/// From the end of the context to now.
pub(crate) fn since_end(end: &Canceled) -> Option<Duration> {
    Some(Instant::now().saturating_duration_since(end.at()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn builds_the_whole_answer() {
        assert_eq!(build(&Context::background(), "k", 3).unwrap(), "k:abc");
    }

    #[test]
    fn stops_where_its_context_does() {
        let scope = Context::background().with_cancel();
        let (begun, wait) = mpsc::channel();
        let worker = thread::spawn({
            let ctx = scope.context();
            move || {
                begun.send(()).unwrap();
                build(&ctx, "k", 1_000_000)
            }
        });
        wait.recv().unwrap();
        scope.cancel();
        let (done, end) = worker.join().unwrap().unwrap_err();
        assert!(done < 1_000_000);
        assert!(end.is_from(&scope));
    }
}
