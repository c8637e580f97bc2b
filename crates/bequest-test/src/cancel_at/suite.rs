//! All runs of a call, one after the other.

use std::env;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bequest::Context;

use super::attempt::{Attempt, Passed};
use super::executor::block_on;
use super::injection::{How, Injection};
use super::outcome::{Failure, Outcome, REPLAY, Report};
use super::time::Time;

/// Begins a test of `call` at every place where it waits: `setup` makes fresh state for each run.
///
/// The call is handed the state and a context, as a request would hand it one; what is between its polls is the
/// runs' own. See [the module](crate::cancel_at) for what is numbered and what is checked.
///
/// # Example: a bug that only a drop at the second place shows
///
/// ```
/// use bequest_test::cancel_at::{self, How};
/// use std::cell::Cell;
/// use std::time::Duration;
///
/// let failure = cancel_at::every(
///     async || Cell::new(1), // one permit
///     async |permits, ctx| {
///         ctx.sleep(Duration::from_millis(1)).await?;
///         permits.set(permits.get() - 1);
///         let answer = ctx.sleep(Duration::from_millis(1)).await;
///         permits.set(permits.get() + 1); // not if the future is dropped
///         answer
///     },
/// )
/// .check(async |permits, _outcome| assert_eq!(permits.get(), 1, "a permit is lost"))
/// .try_run()
/// .unwrap_err();
///
/// let injection = failure.injection().unwrap();
/// assert_eq!((injection.how(), injection.place()), (How::Drop, 2));
/// assert!(failure.to_string().contains("a permit is lost"));
/// assert!(failure.to_string().contains("BEQUEST_CANCEL_AT=drop@2"));
/// ```
pub fn every<S, T, Setup, Call>(setup: Setup, call: Call) -> Every<S, T, Setup, Call>
where
    Setup: AsyncFn() -> S,
    Call: AsyncFn(&S, &Context) -> T,
{
    Every {
        setup,
        call,
        types: PhantomData,
    }
}

/// A call that lacks its invariant, made by [`every`].
#[must_use = "nothing is run before it is checked and run"]
pub struct Every<S, T, Setup, Call> {
    setup: Setup,
    call: Call,
    types: PhantomData<fn() -> (S, T)>,
}

impl<S, T, Setup, Call> Every<S, T, Setup, Call>
where
    Setup: AsyncFn() -> S,
    Call: AsyncFn(&S, &Context) -> T,
{
    /// What must hold after each run, the undisturbed one included: `check` panics if it does not.
    ///
    /// It may use the state, to see whether the next user is served, for example.
    pub fn check<Check>(self, check: Check) -> CancelAt<S, T, Setup, Call, Check>
    where
        Check: AsyncFn(&S, &Outcome<T>),
    {
        CancelAt {
            every: self,
            check,
            ways: How::ALL.to_vec(),
            only: None,
            patience: PATIENCE,
        }
    }
}

/// How long a call or a check is waited for, if not set: whatever takes as long hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for what is left over where nothing runs beside the call.
const MOMENT: Duration = Duration::from_secs(1);
/// How often a run is repeated that has not come to its place.
const TRIES: usize = 3;

/// A call with its invariant, ready to be run.
#[must_use = "nothing is run before it is asked for"]
pub struct CancelAt<S, T, Setup, Call, Check> {
    every: Every<S, T, Setup, Call>,
    check: Check,
    ways: Vec<How>,
    only: Option<Injection>,
    patience: Duration,
}

impl<S, T, Setup, Call, Check> CancelAt<S, T, Setup, Call, Check>
where
    Setup: AsyncFn() -> S,
    Call: AsyncFn(&S, &Context) -> T,
    Check: AsyncFn(&S, &Outcome<T>),
{
    /// Ends the call in these ways only.
    pub fn ways(mut self, ways: &[How]) -> Self {
        self.ways = ways.to_vec();
        self
    }

    /// Runs the call undisturbed once, and then with this injection alone. The environment variable
    /// `BEQUEST_CANCEL_AT` does the same, for every call in the process: `BEQUEST_CANCEL_AT=drop@17`.
    ///
    /// ```
    /// use bequest_test::cancel_at::{self, How, Injection};
    /// use std::time::Duration;
    ///
    /// let call = cancel_at::every(async || (), async |(), ctx| ctx.sleep(Duration::from_secs(5)).await);
    /// let injection = Injection::new(How::Deadline, 1);
    /// let report = call.check(async |(), _| {}).replay(injection).run();
    /// assert_eq!(report.injected(), [injection]);
    /// ```
    pub fn replay(mut self, injection: Injection) -> Self {
        self.only = Some(injection);
        self
    }

    /// How long a call, a check, and what the call has left over are waited for on the system's clock. If not set, 20
    /// seconds.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Runs everything on this thread, on a clock that moves on when the call waits: the same every time.
    ///
    /// For calls that wait for their context, for its clock, or for what the call itself does. One that waits for a
    /// thread, a socket or a runtime is for [`drive`](CancelAt::drive): in here it would look as if it waited for ever.
    ///
    /// # Panics
    ///
    /// If a run fails, with the [`Failure`]; or if `setup` panics.
    #[track_caller]
    pub fn run(&self) -> Report {
        match self.try_run() {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// As [`run`](CancelAt::run).
    ///
    /// # Errors
    ///
    /// The first run that failed.
    ///
    /// # Panics
    ///
    /// If `setup` panics.
    pub fn try_run(&self) -> Result<Report, Failure> {
        block_on(self.all(Time::standing, self.patience.min(MOMENT)))
    }

    /// Runs everything within this task, on the system's clock, on whatever executor the call needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the call in progress.
    ///
    /// # Panics
    ///
    /// As [`run`](CancelAt::run).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use bequest_test::cancel_at;
    ///
    /// let report = cancel_at::every(
    ///     async || tokio::sync::Semaphore::new(1),
    ///     async |permits, ctx| {
    ///         let _permit = ctx.run(permits.acquire()).await;
    ///         ctx.run(tokio::task::yield_now()).await
    ///     },
    /// )
    /// .check(async |permits, _outcome| assert_eq!(permits.available_permits(), 1))
    /// .drive()
    /// .await;
    /// assert_eq!(report.places().len(), 1);
    /// # }
    /// ```
    pub async fn drive(&self) -> Report {
        match self.try_drive().await {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// As [`drive`](CancelAt::drive).
    ///
    /// # Cancel safety
    ///
    /// As [`drive`](CancelAt::drive).
    ///
    /// # Errors
    ///
    /// The first run that failed.
    ///
    /// # Panics
    ///
    /// If `setup` panics.
    pub async fn try_drive(&self) -> Result<Report, Failure> {
        self.all(Time::running, self.patience).await
    }

    async fn all(&self, time: fn() -> Time, patience: Duration) -> Result<Report, Failure> {
        let once = async |injection| {
            let attempt = Attempt {
                injection,
                time: time(),
                patience,
            };
            attempt
                .run(&self.every.setup, &self.every.call, &self.check)
                .await
        };
        let mut report = Report {
            places: once(None).await?.places,
            injected: Vec::new(),
            missed: Vec::new(),
        };
        if let Some(only) = self.only.or_else(named) {
            report.count(only, again(&once, only).await?);
            return Ok(report);
        }
        for &how in &self.ways {
            let mut next = Injection::new(how, 0);
            while next.place() <= report.places.len() {
                report.count(next, again(&once, next).await?);
                next = Injection::new(how, next.place() + 1);
            }
            // A run may wait more often than the undisturbed one did.
            while once(Some(next)).await?.was_injected {
                report.count(next, true);
                next = Injection::new(how, next.place() + 1);
            }
        }
        Ok(report)
    }
}

/// Runs until the injection is made, or often enough. Whether it was.
async fn again(
    once: &impl AsyncFn(Option<Injection>) -> Result<Passed, Failure>,
    injection: Injection,
) -> Result<bool, Failure> {
    for _ in 0..TRIES {
        if once(Some(injection)).await?.was_injected {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The injection that the environment names.
fn named() -> Option<Injection> {
    let text = env::var(REPLAY).ok()?;
    match text.parse() {
        Ok(injection) => Some(injection),
        Err(error) => panic!("{REPLAY}: {error}"),
    }
}

impl Report {
    fn count(&mut self, injection: Injection, was_injected: bool) {
        match was_injected {
            true => self.injected.push(injection),
            false => self.missed.push(injection),
        }
    }
}

impl<S, T, Setup, Call> fmt::Debug for Every<S, T, Setup, Call> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Every").finish_non_exhaustive()
    }
}

impl<S, T, Setup, Call, Check> fmt::Debug for CancelAt<S, T, Setup, Call, Check> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelAt")
            .field("ways", &self.ways)
            .field("only", &self.only)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
