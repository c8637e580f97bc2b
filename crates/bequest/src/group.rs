//! Tasks that end together: spawned into one context, waited for together, and told when one of them fails.
//!
//! What lives here: spawning, the limit, collecting results and failures. What does not: a runtime (tokio's), and
//! waiting for tasks that are not the group's.
//!
//! # Invariants
//!
//! 1. A task of the group ends before [`Group::wait`] returns; one that is dropped with the group is aborted.
//! 2. The first failure cancels the group's scope for [`Reason::Sibling`]; work that has not begun by then never does.
//! 3. A panic is a failure with its message; it is not lost and takes nobody else down.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::{CancelScope, Canceled, Context, Reason};

/// Tasks in one scope: all are waited for, and the first failure tells the rest to stop.
///
/// # Example: one fails, the other is told
///
/// ```
/// use bequest::{Context, Group, Reason};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let request = Context::background().with_cancel();
/// let mut group = Group::new(&request);
/// group.spawn(|_ctx| async { Err::<u32, _>("no such table") });
/// group.spawn(|ctx| async move {
///     let end = ctx.done().await;
///     assert_eq!(end.reason(), Reason::Sibling);
///     Ok(1)
/// });
/// let error = group.wait().await.unwrap_err();
/// assert_eq!(*error.error().unwrap(), "no such table");
/// assert!(!request.is_done(), "the request itself lives on");
/// # });
/// ```
///
/// # Example: results in the order of spawning
///
/// ```
/// use bequest::{Context, Group};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = Group::new(&Context::background()).limit(2);
/// for number in 1..=4u32 {
///     group.spawn(move |_ctx| async move { Ok::<_, std::io::Error>(number * number) });
/// }
/// assert_eq!(group.wait().await.unwrap(), [1, 4, 9, 16]);
/// # });
/// ```
#[must_use = "a dropped group aborts its tasks"]
pub struct Group<T, E> {
    scope: CancelScope,
    tasks: JoinSet<(usize, Ended<T, E>)>,
    /// Permits to run; `None` without a limit.
    permits: Option<Arc<Semaphore>>,
    /// How many tasks have failed: the rank of the next failure. Tasks are joined in another order than they fail.
    failed: Arc<AtomicUsize>,
    spawned: usize,
    made_at: &'static Location<'static>,
}

/// Why a [`Group`] failed: what its first failing task answered, and what others answered after it.
///
/// ```
/// use bequest::{Context, Group, Reason};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let request = Context::background().with_cancel();
/// let mut group: Group<u32, String> = Group::new(&request);
/// group.spawn(|ctx| async move { Err(format!("stopped: {}", ctx.done().await.reason())) });
/// group.spawn(|_ctx| async { Err("no such table".to_owned()) });
/// let error = group.wait().await.unwrap_err();
/// assert_eq!(error.error().unwrap(), "no such table");
/// assert_eq!(error.others(), ["stopped: a sibling failed"]);
///
/// // A panic is a failure, and so is an end that came before the work was begun.
/// let mut group: Group<u32, String> = Group::new(&request);
/// group.spawn(|_ctx| async { panic!("index 7") });
/// assert_eq!(group.wait().await.unwrap_err().panic(), Some("index 7"));
/// request.cancel_for(Reason::ClientGone);
/// let mut group: Group<u32, String> = Group::new(&request);
/// group.spawn(|_ctx| async { Ok(7) });
/// assert_eq!(group.wait().await.unwrap_err().canceled().unwrap().reason(), Reason::ClientGone);
/// # });
/// ```
pub struct GroupError<E> {
    first: Failure<E>,
    others: Vec<E>,
}

enum Failure<E> {
    Error(E),
    Panicked(String),
    Canceled(Canceled),
}

/// How one task ended.
enum Ended<T, E> {
    Finished(T),
    /// With its rank among the failures.
    Failed(usize, Failure<E>),
}

impl<T: Send + 'static, E: Send + 'static> Group<T, E> {
    /// A group whose tasks end when `ctx` does.
    ///
    /// # Panics
    ///
    /// Spawning panics outside a tokio runtime.
    #[track_caller]
    pub fn new(ctx: &Context) -> Group<T, E> {
        Group {
            scope: ctx.with_cancel(),
            tasks: JoinSet::new(),
            permits: None,
            failed: Arc::default(),
            spawned: 0,
            made_at: Location::caller(),
        }
    }

    /// Lets at most `most` tasks run at a time. The rest wait for their turn, and no longer than the context lives.
    ///
    /// # Panics
    ///
    /// If `most` is zero, since nothing could ever run, or after a task was spawned.
    #[track_caller]
    pub fn limit(mut self, most: usize) -> Group<T, E> {
        assert!(most > 0, "a group that may run nothing would wait for ever");
        assert_eq!(self.spawned, 0, "the limit is set before the first task");
        self.permits = Some(Arc::new(Semaphore::new(most)));
        self
    }

    /// The context of the group's tasks.
    pub fn context(&self) -> &Context {
        &self.scope
    }

    /// Spawns a task: `work` is called with the group's context once a place is free.
    ///
    /// It never blocks. If the group has failed or its context has ended before a place was free, `work` is dropped
    /// without having been called, and [`wait`](Group::wait) says so.
    ///
    /// If this task is the first to fail, the [origin](Canceled::origin) of the others' end is the line of this call.
    #[track_caller]
    pub fn spawn<W, F>(&mut self, work: W)
    where
        W: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let place = self.spawned;
        self.spawned += 1;
        let context = self.scope.context();
        let canceller = self.scope.canceller();
        let permits = self.permits.clone();
        let failed = Arc::clone(&self.failed);
        let origin = Location::caller();
        self.tasks.spawn(async move {
            let ended = match take_part(context, permits, work).await {
                Ok(result) => Ended::Finished(result),
                Err(failure) => {
                    // Relaxed: a number. It is drawn before anybody is told, so what the others answer ranks later.
                    let rank = failed.fetch_add(1, Ordering::Relaxed);
                    canceller.cancel_on_behalf(Reason::Sibling, origin);
                    Ended::Failed(rank, failure)
                }
            };
            (place, ended)
        });
    }

    /// Waits until every task has ended; their results in the order of spawning.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the group: its context ends and its tasks are aborted.
    ///
    /// # Errors
    ///
    /// The first failure in time: a task's error, a panic, or the context's end if that kept work from being begun.
    pub async fn wait(mut self) -> Result<Vec<T>, GroupError<E>> {
        let mut results: Vec<Option<T>> = (0..self.spawned).map(|_| None).collect();
        let mut failures = Vec::new();
        while let Some(joined) = self.tasks.join_next().await {
            match joined {
                Ok((place, Ended::Finished(result))) => results[place] = Some(result),
                Ok((_, Ended::Failed(rank, failure))) => failures.push((rank, failure)),
                Err(error) => failures.push(self.lost(error)),
            }
        }
        match GroupError::of(failures) {
            Some(error) => Err(error),
            None => Ok(results.into_iter().flatten().collect()),
        }
    }

    /// The failure of a task that has no answer: its work panicked while it was dropped, or its runtime has shut down.
    fn lost(&self, error: JoinError) -> (usize, Failure<E>) {
        let rank = self.failed.fetch_add(1, Ordering::Relaxed);
        // Whose task it was is lost as well.
        let canceller = self.scope.canceller();
        canceller.cancel_on_behalf(Reason::Sibling, self.made_at);
        let message = match error.try_into_panic() {
            Ok(panic) => message(&*panic),
            Err(error) => error.to_string(),
        };
        (rank, Failure::Panicked(message))
    }
}

/// A task's life: a place, then the work, with its panic caught.
async fn take_part<T, E, W, F>(
    context: Context,
    permits: Option<Arc<Semaphore>>,
    work: W,
) -> Result<T, Failure<E>>
where
    W: FnOnce(Context) -> F,
    F: Future<Output = Result<T, E>>,
{
    let permit = async {
        match permits {
            Some(permits) => permits.acquire_owned().await.ok(),
            None => None,
        }
    };
    // Asked again with the permit in hand: the failure that freed it may be what ended the context.
    let permit = match context
        .run(permit)
        .await
        .and_then(|permit| context.check().map(|()| permit))
    {
        Ok(permit) => permit,
        Err(end) => return Err(Failure::Canceled(end)),
    };
    let called = std::panic::catch_unwind(AssertUnwindSafe(|| Box::pin(work(context))));
    let answer = match called {
        Ok(work) => Unwound(work).await,
        Err(panic) => Err(panic),
    };
    drop(permit);
    match answer {
        Ok(answer) => answer.map_err(Failure::Error),
        Err(panic) => Err(Failure::Panicked(message(&*panic))),
    }
}

/// A future whose panic is its answer.
struct Unwound<F>(Pin<Box<F>>);

impl<F: Future> Future for Unwound<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(task))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a payload that is no text")
        .into()
}

impl<E> Failure<E> {
    /// Whether it only tells of an end that another failure brought about.
    fn is_weaker(&self) -> bool {
        matches!(self, Failure::Canceled(end) if end.reason() == Reason::Sibling)
    }
}

impl<E> GroupError<E> {
    /// The first failure by rank, but one that only tells of another's gives way; with the errors of the rest.
    fn of(mut failures: Vec<(usize, Failure<E>)>) -> Option<GroupError<E>> {
        failures.sort_by_key(|(rank, failure)| (failure.is_weaker(), *rank));
        let mut failures = failures.into_iter().map(|(_, failure)| failure);
        let first = failures.next()?;
        let others = failures.filter_map(|failure| match failure {
            Failure::Error(error) => Some(error),
            Failure::Panicked(_) | Failure::Canceled(_) => None,
        });
        Some(GroupError {
            first,
            others: others.collect(),
        })
    }

    /// The first task's error, if that is what failed.
    pub fn error(&self) -> Option<&E> {
        match &self.first {
            Failure::Error(error) => Some(error),
            Failure::Panicked(_) | Failure::Canceled(_) => None,
        }
    }

    /// The first task's error by value, if that is what failed.
    pub fn into_error(self) -> Option<E> {
        match self.first {
            Failure::Error(error) => Some(error),
            Failure::Panicked(_) | Failure::Canceled(_) => None,
        }
    }

    /// The errors of tasks that failed later.
    pub fn others(&self) -> &[E] {
        &self.others
    }

    /// The message of the panic, if a task panicked first.
    pub fn panic(&self) -> Option<&str> {
        match &self.first {
            Failure::Panicked(message) => Some(message),
            Failure::Error(_) | Failure::Canceled(_) => None,
        }
    }

    /// The end of the context, if that kept work from being begun.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.first {
            Failure::Canceled(end) => Some(end),
            Failure::Error(_) | Failure::Panicked(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first {
            Failure::Error(error) => write!(f, "a task of the group failed: {error}"),
            Failure::Panicked(message) => write!(f, "a task of the group panicked: {message}"),
            Failure::Canceled(end) => write!(f, "a task of the group was not begun: {end}"),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("GroupError");
        match &self.first {
            Failure::Error(error) => out.field("error", error),
            Failure::Panicked(message) => out.field("panic", message),
            Failure::Canceled(end) => out.field("canceled", end),
        };
        out.field("others", &self.others.len()).finish()
    }
}

impl<E: Error + 'static> Error for GroupError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.first {
            Failure::Error(error) => Some(error),
            Failure::Canceled(end) => Some(end),
            Failure::Panicked(_) => None,
        }
    }
}

impl<T, E> fmt::Debug for Group<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("scope", &self.scope)
            .field("spawned", &self.spawned)
            .finish_non_exhaustive()
    }
}
