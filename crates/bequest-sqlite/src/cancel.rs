//! How SQLite learns that a context has ended: four hooks of a connection, all of which read the context of the
//! present job, and nothing else.
//!
//! There is no interrupt from outside. SQLite asks, on the thread that runs the statement, and gets its answer from
//! the context; so a late cancel has nothing to hit.
//!
//! # Invariants
//!
//! 1. A hook knows a context only between [`Watch::guard`]'s arming and its end, on the same thread. Between two jobs
//!    there is none, and every hook answers "go on".
//! 2. Whatever a hook stopped leaves `stopped` set. An answer made of a stopped statement is therefore never taken
//!    for a whole one, even if the work swallowed the error.
//! 3. A write commits in the step [`Step::Committing`] and at no other time: the commit hook turns every other commit
//!    (an autocommit after SQLite rolled back, a `COMMIT` by the work itself) into a rollback.
//! 4. In that step the progress handler is silent. It can fire after a `COMMIT` has taken effect, and would then
//!    report something done as interrupted.
//! 5. No context is looked at under the lock: a first look at a deadline may run callbacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode};

use crate::error::Step;

/// How many steps of SQLite's virtual machine pass between two looks at the context.
///
/// A thousand steps of a plain query take about 7 µs (optimised, on a machine of 2026), so dear steps leave room to
/// stop within a millisecond; what the looks cost is lost in the noise, even at one every hundred steps. More often,
/// nobody would notice the gain; less often, dear steps would.
pub(crate) const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// The pauses between two tries for a lock that another connection holds: short at first, since most locks are.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 15, 25];

/// The context that a connection's hooks read. One per connection, shared with its hooks.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// What the hooks watch; `None` between jobs. Set and cleared by [`Watch::guard`] alone.
    job: Mutex<Option<(Context, Step)>>,
    /// The end for which a hook stopped something.
    stopped: Mutex<Option<Canceled>>,
    /// The commit hook refused a commit that was not ours. Relaxed throughout: one thread reads and writes it.
    refused: AtomicBool,
}

/// What the hooks did during one step of a job.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The end of the context, if anything was stopped for it.
    pub(crate) stopped: Option<Canceled>,
    /// Whether a commit was turned down that was not ours to make.
    pub(crate) refused: bool,
}

impl Watch {
    /// Runs `work` with the hooks reading `ctx`, and says what they did.
    pub(crate) fn guard<R>(&self, ctx: &Context, step: Step, work: impl FnOnce() -> R) -> (R, Seen) {
        let armed = Armed::new(self, ctx, step);
        let answer = work();
        (answer, armed.seen())
    }

    /// Installs all hooks on `conn`.
    pub(crate) fn install(&self, conn: &mut Connection, busy_limit: Duration) -> rusqlite::Result<()> {
        let watch = self.clone();
        conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || watch.progress()))?;
        let watch = self.clone();
        conn.authorizer(Some(move |_: AuthContext<'_>| watch.prepare()))?;
        let watch = self.clone();
        conn.commit_hook(Some(move || watch.commit()))?;
        self.install_busy(conn, busy_limit)
    }

    /// Installs the busy handler, which is the one hook that work can take away: `busy_timeout` replaces it.
    pub(crate) fn install_busy(&self, conn: &mut Connection, busy_limit: Duration) -> rusqlite::Result<()> {
        let watch = self.clone();
        let mut since = Instant::now();
        conn.busy_handler(Some(move |tries: i32| {
            if tries == 0 {
                since = Instant::now();
            }
            since.elapsed() < busy_limit && watch.busy(tries)
        }))
    }

    /// Does `work` again for as long as it finds a lock, as the busy handler would: for steps in which SQLite does not ask it.
    pub(crate) fn patiently<T>(
        &self,
        busy_limit: Duration,
        mut work: impl FnMut() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let since = Instant::now();
        let mut tries = 0;
        loop {
            let answer = work();
            let found_lock =
                matches!(&answer, Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy));
            if !found_lock || since.elapsed() >= busy_limit || !self.busy(tries) {
                return answer;
            }
            tries += 1;
        }
    }

    /// The progress handler: true stops the statement.
    fn progress(&self) -> bool {
        match self.job() {
            Some((ctx, step)) if step != Step::Committing => self.is_over(&ctx),
            _ => false,
        }
    }

    /// The authorizer, asked when a statement is prepared. A loop of small statements never reaches the progress
    /// handler, since each counts its steps anew; here is where it ends.
    fn prepare(&self) -> Authorization {
        match self.job() {
            Some((ctx, step)) if step != Step::Committing && self.is_over(&ctx) => Authorization::Deny,
            _ => Authorization::Allow,
        }
    }

    /// The commit hook: true makes the commit a rollback.
    fn commit(&self) -> bool {
        match self.job() {
            // What is done with a new connection is nobody's transaction.
            Some((ctx, Step::Committing | Step::Opening)) => self.is_over(&ctx),
            Some(_) => {
                self.0.refused.store(true, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// The busy handler: waits, and says whether to try again.
    fn busy(&self, tries: i32) -> bool {
        let Some((ctx, _)) = self.job() else { return false };
        let pause = PAUSES[usize::try_from(tries).unwrap_or(0).min(PAUSES.len() - 1)];
        pause_or_end(&ctx, Duration::from_millis(pause));
        !self.is_over(&ctx)
    }

    fn is_over(&self, ctx: &Context) -> bool {
        if !ctx.is_done() {
            return false;
        }
        *lock(&self.0.stopped) = ctx.err();
        true
    }

    fn job(&self) -> Option<(Context, Step)> {
        lock(&self.0.job).clone()
    }
}

/// The time in which the hooks have a context. Ends on every way out, also by a panic.
struct Armed<'a>(&'a Watch);

impl<'a> Armed<'a> {
    fn new(watch: &'a Watch, ctx: &Context, step: Step) -> Armed<'a> {
        watch.0.refused.store(false, Ordering::Relaxed);
        *lock(&watch.0.job) = Some((ctx.clone(), step));
        Armed(watch)
    }

    fn seen(self) -> Seen {
        let shared = &self.0.0;
        Seen {
            stopped: lock(&shared.stopped).take(),
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let job = lock(&self.0.0.job).take();
        drop(job); // outside the lock: it may be the context's last handle
    }
}

/// Only moves and clones happen under these locks; they can not be left half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks for `pause` of real time, or until `ctx` ends.
///
/// Not [`Context::wait_timeout`], whose time is the context's: the lock that is waited for lives in real time, and on
/// a clock that a test moves by hand nobody would ever try again.
fn pause_or_end(ctx: &Context, pause: Duration) {
    let thread = thread::current();
    let _told = ctx.after_func(move |_| thread.unpark());
    thread::park_timeout(pause); // returning early only means an early try
}
