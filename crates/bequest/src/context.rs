//! The handle: two words, a node of the cancellation tree and a list of values.
//!
//! Everything here is thin: what ends and who waits is the tree's affair, what travels along is
//! [`key`](crate::Key)'s.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::after_func::AfterFunc;
use crate::canceled::Canceled;
use crate::clock::{Clock, SystemClock};
use crate::deadline::{Deadline, after};
use crate::done::{Done, DoneOwned, Run, RunOwned, Sleep, Timeout, block_on};
use crate::key::Key;
use crate::scope::CancelScope;
use crate::tree::{NodeRef, Timers, has_come, roughly_now};
use crate::values::Values;

/// Until when, who still wants it, and what travels along: the handle that a request hands down.
///
/// Pass it as the first parameter, `ctx: &Context`, to everything that works for the request; do not store it in
/// structs. It is two words; cloning it bumps two counts. It can be shared between threads and used on any executor
/// or none. It observes: only the owner of a [`CancelScope`], or who holds a [`Canceller`](crate::Canceller), can
/// cancel.
///
/// # Example: a request that hands its context down
///
/// ```
/// use bequest::{Canceled, Context};
/// use std::time::Duration;
///
/// fn add_up(ctx: &Context, numbers: impl Iterator<Item = u64>) -> Result<u64, Canceled> {
///     let mut sum = 0;
///     for number in numbers {
///         ctx.check()?;
///         sum += number;
///     }
///     Ok(sum)
/// }
///
/// let request = Context::background().with_timeout(Duration::from_secs(5));
/// assert_eq!(add_up(&request, 1..=4).unwrap(), 10);
/// request.cancel();
/// assert!(add_up(&request, 1..).is_err());
/// ```
#[derive(Clone)]
pub struct Context {
    /// `None` is the background: it never ends, and its clock is the system's.
    pub(crate) node: Option<NodeRef>,
    pub(crate) values: Values,
}

/// Roots.
impl Context {
    /// The root of everything: never done, no deadline, no values, the system's clock. It allocates nothing.
    ///
    /// ```
    /// # use bequest::Context;
    /// let ctx = Context::background();
    /// assert!(!ctx.is_done() && ctx.deadline().is_none());
    /// ```
    pub const fn background() -> Context {
        Context {
            node: None,
            values: Values::EMPTY,
        }
    }

    /// As [`background`](Context::background), for places where the right context is not at hand yet: it is easy to
    /// search for, and prints as `todo`.
    #[track_caller]
    pub fn todo() -> Context {
        static TODO: OnceLock<NodeRef> = OnceLock::new();
        // Outside the closure, which is not its caller's place.
        let caller = Location::caller();
        let node = TODO.get_or_init(|| {
            let node = NodeRef::root(caller, None);
            node.set_name("todo");
            node
        });
        Context {
            node: Some(node.clone()),
            values: Values::EMPTY,
        }
    }

    /// A root whose deadlines go by `clock`: that of everything derived from it.
    ///
    /// See [`clock`](crate::clock) for an example.
    #[track_caller]
    pub fn with_clock(clock: impl Clock) -> Context {
        let node = NodeRef::root(Location::caller(), Some(Timers::on(clock)));
        Context {
            node: Some(node),
            values: Values::EMPTY,
        }
    }
}

/// Deriving: what can end returns its owner.
impl Context {
    /// A scope below this context: done when the scope is cancelled or dropped, or when this context is done.
    ///
    /// ```
    /// # use bequest::{Context, Reason};
    /// let outer = Context::background().with_cancel();
    /// let inner = outer.with_cancel();
    /// let seen = inner.context();
    /// drop(inner);
    /// assert_eq!(seen.err().unwrap().reason(), Reason::ScopeEnded);
    /// assert!(!outer.is_done(), "an inner end does not go outwards");
    /// ```
    #[track_caller]
    #[inline(never)]
    pub fn with_cancel(&self) -> CancelScope {
        self.derive(None)
    }

    /// A scope that is done at `at` at the latest; if this context's deadline is earlier, that one counts.
    ///
    /// A deadline that has passed already makes a scope that is done at its first look, with
    /// [`Kind::DeadlineExceeded`](crate::Kind::DeadlineExceeded).
    #[track_caller]
    pub fn with_deadline(&self, at: impl Into<Deadline>) -> CancelScope {
        let at = at.into().on(self.clock());
        self.derive(at)
    }

    /// A scope that is done when `after` has passed, at the latest. `Duration::MAX`, and all that an [`Instant`]
    /// cannot hold, is no deadline of its own; zero is one that has passed.
    ///
    /// ```
    /// # use bequest::{Context, Kind};
    /// # use std::time::Duration;
    /// let scope = Context::background().with_timeout(Duration::from_millis(1));
    /// assert_eq!(scope.wait(), Kind::DeadlineExceeded);
    /// ```
    #[track_caller]
    pub fn with_timeout(&self, after: Duration) -> CancelScope {
        self.own(NodeRef::child_within(
            self.node.as_ref(),
            Location::caller(),
            after,
        ))
    }

    /// A scope for tidying up: it keeps the values and the clock, ignores that this context has ended or ends, and
    /// has a limit of its own, so that tidying up cannot take for ever. (`Duration::MAX` is no limit here either; say it
    /// only if you mean it.)
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// let request = Context::background().with_cancel();
    /// request.cancel();
    /// let tidy = request.cleanup(Duration::from_secs(1));
    /// assert!(tidy.check().is_ok(), "there is a second to roll back");
    /// ```
    #[track_caller]
    pub fn cleanup(&self, limit: Duration) -> CancelScope {
        self.without_cancel().with_timeout(limit)
    }

    /// A scope that is done when the first of `contexts` is, with that one's error; with the values and the clock of
    /// the first and the earliest deadline of all. Of none, it is never done unless it is cancelled.
    ///
    /// It registers with each of them and withdraws when it is dropped: one that lives for ever keeps nothing.
    ///
    /// ```
    /// # use bequest::Context;
    /// let (request, server) = (Context::background().with_cancel(), Context::background().with_cancel());
    /// let both = Context::any([&request, &server]);
    /// server.cancel();
    /// assert!(both.err().unwrap().is_from(&server));
    /// ```
    #[track_caller]
    pub fn any<C: AsRef<Context>>(contexts: impl IntoIterator<Item = C>) -> CancelScope {
        let contexts: Vec<Context> = contexts
            .into_iter()
            .map(|context| context.as_ref().clone())
            .collect();
        let nodes: Vec<_> = contexts
            .iter()
            .filter_map(|context| context.node.as_ref())
            .collect();
        let timers = contexts.first().and_then(Context::timers).cloned();
        let node = NodeRef::merge(&nodes, Location::caller(), timers);
        let values = contexts
            .first()
            .map(|context| context.values.clone())
            .unwrap_or_default();
        CancelScope::own(Context {
            node: Some(node),
            values,
        })
    }

    /// This context with one more value. A value under the same key is hidden by it.
    ///
    /// Nothing is registered anywhere. See [`Key`] for an example.
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Context {
        Context {
            node: self.node.clone(),
            values: self.values.with(key, value),
        }
    }

    /// A new root with this context's values and clock: for work that outlives the request.
    ///
    /// It never ends, so give the work a limit: `ctx.without_cancel().with_timeout(limit)`.
    ///
    /// ```
    /// # use bequest::{Context, Key};
    /// static TRACE: Key<u64> = Key::new("trace");
    /// let request = Context::background().with_value(&TRACE, 42).with_cancel();
    /// let job = request.without_cancel();
    /// request.cancel();
    /// assert!(!job.is_done());
    /// assert_eq!(job.value(&TRACE), Some(&42));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn without_cancel(&self) -> Context {
        // Outside the closure, which is not its caller's place.
        let caller = Location::caller();
        let node = self
            .timers()
            .map(|timers| NodeRef::root(caller, Some(Arc::clone(timers))));
        Context {
            node,
            values: self.values.clone(),
        }
    }
}

/// Reading: no lock.
impl Context {
    /// Whether this context has ended. Once true, always true.
    ///
    /// One load; the first look at a deadline reads the clock, and a deadline that has passed is over at that look.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.node.as_ref().is_some_and(NodeRef::is_done)
    }

    /// `Ok` while anybody wants the work; the error once the context has ended. For loops: `ctx.check()?`.
    ///
    /// # Errors
    ///
    /// The end of this context, the same at every call.
    #[inline]
    pub fn check(&self) -> Result<(), Canceled> {
        match self.err() {
            None => Ok(()),
            Some(end) => Err(end),
        }
    }

    /// The error with which this context ended, once it has.
    #[inline]
    pub fn err(&self) -> Option<Canceled> {
        self.node.as_ref()?.end()
    }

    /// When this context will be done at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.as_ref()?.deadline()
    }

    /// The time left until the deadline, exact to the clock; zero once it has passed, `None` without one.
    ///
    /// It is about time alone: a cancelled context's deadline still lies ahead.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(self.now()))
    }

    /// The present instant on this context's clock: the one that its deadlines go by, in production and under test.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// let ctx = Context::background();
    /// let began = ctx.now();
    /// let scope = ctx.with_deadline(began + Duration::from_secs(5));
    /// assert!(scope.remaining().unwrap() <= Duration::from_secs(5));
    /// ```
    pub fn now(&self) -> Instant {
        self.timers()
            .map_or_else(Instant::now, |timers| timers.clock().now())
    }

    /// As [`now`](Context::now), by the system's cheap clock: it costs a fifth, and is up to a tick of the system behind, which
    /// is 1 to 10 ms, and never ahead.
    ///
    /// For stamps that are compared with limits of seconds, where work is counted in millions. Where the system has no
    /// such clock (elsewhere than on 64-bit Linux), and on a clock of the program's own, it is the same as `now`.
    ///
    /// ```
    /// # use bequest::Context;
    /// let ctx = Context::background();
    /// let stamp = ctx.now_coarse();
    /// assert!(stamp <= ctx.now());
    /// ```
    pub fn now_coarse(&self) -> Instant {
        self.timers()
            .map_or_else(roughly_now, |timers| timers.clock().now())
    }

    /// The wall-clock time on this context's clock: for what is written down, such as when a session ends. It may jump
    /// when an administrator sets it; spans are measured with [`now`](Context::now).
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::SystemTime;
    /// let before = SystemTime::now();
    /// assert!(Context::background().wall() >= before);
    /// ```
    pub fn wall(&self) -> SystemTime {
        self.clock().wall()
    }

    /// The value under `key` that was put in last, if there is one. The cost does not grow with the depth.
    #[inline]
    pub fn value<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        self.values.get(key)
    }

    /// The values that may cross to another process, as name and text, newest first. See [`Codec`](crate::Codec).
    pub fn crossing(&self) -> Vec<(&'static str, String)> {
        self.values.crossing()
    }

    /// This context with the value that `text` stands for, as received from another process.
    ///
    /// `None` if the key does not cross, the text is longer than its limit, or it is not a value.
    #[must_use]
    pub fn with_crossed<T: Send + Sync + 'static>(
        &self,
        key: &'static Key<T>,
        text: &str,
    ) -> Option<Context> {
        Some(self.with_value(key, key.decode(text)?))
    }
}

/// Waiting: async on any executor, or blocking.
impl Context {
    /// Waits for this context to end, and says how it did.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the wait and loses nothing: the end stays readable. Once ready it stays ready.
    ///
    /// ```
    /// # use bequest::{Context, Reason};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let scope = Context::background().with_cancel();
    /// scope.cancel_for(Reason::Shutdown);
    /// assert_eq!(scope.done().await.reason(), Reason::Shutdown);
    /// # });
    /// ```
    pub fn done(&self) -> Done<'_> {
        Done::new(self)
    }

    /// As [`done`](Context::done), as a future that owns its handle: for `spawn`.
    ///
    /// # Cancel safety
    ///
    /// As [`done`](Context::done).
    pub fn done_owned(self) -> DoneOwned {
        DoneOwned::new(self)
    }

    /// Runs `work` until it is finished or this context has ended.
    ///
    /// If the context has ended before the first poll, `work` is never polled. Later, `work` is polled first: finished
    /// work wins a tie.
    ///
    /// # Errors
    ///
    /// The end of this context. `work` is dropped with the returned future, wherever it stood.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work`: as safe as `work` itself.
    ///
    /// # Panics
    ///
    /// The future panics if polled again after it has returned `Ok`.
    ///
    /// ```
    /// # use bequest::{Context, Reason};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let scope = Context::background().with_cancel();
    /// assert_eq!(scope.run(async { 7 }).await.unwrap(), 7);
    /// scope.cancel();
    /// let end = scope.run(std::future::pending::<()>()).await.unwrap_err();
    /// assert_eq!(end.reason(), Reason::Explicit);
    /// # });
    /// ```
    pub fn run<F: Future>(&self, work: F) -> Run<'_, F> {
        Run::new(self, work)
    }

    /// As [`run`](Context::run), as a future that owns its handle: for `spawn`.
    ///
    /// # Errors
    ///
    /// As [`run`](Context::run).
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Context::run).
    ///
    /// # Panics
    ///
    /// As [`run`](Context::run).
    pub fn run_owned<F: Future>(self, work: F) -> RunOwned<F> {
        RunOwned::new(self, work)
    }

    /// Runs `work` as [`run`](Context::run) does, for `limit` at most: a limit for one await, for which no scope is
    /// made. The time runs from this call.
    ///
    /// Work that is ready at its first poll wins even over a limit of zero.
    ///
    /// # Errors
    ///
    /// The end of this context, or an error of kind [`DeadlineExceeded`](crate::Kind::DeadlineExceeded) whose origin is
    /// this call. To tell the two apart, ask this context: if it is not done, the limit was yours.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Context::run).
    ///
    /// # Panics
    ///
    /// As [`run`](Context::run).
    ///
    /// ```
    /// # use bequest::{Context, Kind};
    /// # use std::time::Duration;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let request = Context::background().with_cancel();
    /// let end = request.timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
    /// assert_eq!(end, Kind::DeadlineExceeded);
    /// assert!(!request.is_done(), "only the await was limited");
    /// # });
    /// ```
    #[track_caller]
    pub fn timeout<F: Future>(&self, limit: Duration, work: F) -> Timeout<'_, F> {
        Timeout::new(self, limit, work)
    }

    /// Waits until `duration` has passed on this context's clock.
    ///
    /// # Errors
    ///
    /// The end of this context, if that comes first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the wait. The time runs from this call, so a new call starts anew.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// assert!(Context::background().sleep(Duration::from_millis(1)).await.is_ok());
    /// let scope = Context::background().with_cancel();
    /// scope.cancel();
    /// assert!(scope.sleep(Duration::MAX).await.is_err());
    /// # });
    /// ```
    #[track_caller]
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Sleep::new(self, duration)
    }

    /// Blocks this thread until the context has ended. On a context that cannot end it blocks for ever.
    pub fn wait(&self) -> Canceled {
        block_on(self.done())
    }

    /// Blocks this thread until the context has ended or `limit` has passed on its clock; `None` for the limit.
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::time::Duration;
    /// assert!(Context::background().wait_timeout(Duration::from_millis(1)).is_none());
    /// ```
    #[track_caller]
    pub fn wait_timeout(&self, limit: Duration) -> Option<Canceled> {
        block_on(self.sleep(limit)).err()
    }

    /// Calls `f` once with the end of this context, when it comes; at once, on this thread, if it has come.
    ///
    /// A cancel calls `f` on the thread that cancels, before `cancel()` returns; a deadline calls it on a thread kept
    /// for that. So `f` is to be short, like a waker: longer work awaits [`done`](Context::done). It runs outside every
    /// lock and may use any context. If it panics, the panic is caught, reported by the panic hook and counted, and
    /// skips nobody else.
    ///
    /// Dropping the returned guard prevents the call; see [`AfterFunc`].
    ///
    /// ```
    /// # use bequest::Context;
    /// # use std::sync::mpsc;
    /// let scope = Context::background().with_cancel();
    /// let (tell, told) = mpsc::channel();
    /// let _guard = scope.after_func(move |end| tell.send(end.reason()).unwrap());
    /// scope.cancel();
    /// assert_eq!(told.try_recv().unwrap(), bequest::Reason::Explicit);
    /// ```
    pub fn after_func(&self, f: impl FnOnce(Canceled) + Send + 'static) -> AfterFunc {
        AfterFunc::register(self, Box::new(f))
    }
}

impl Context {
    /// Inlined into each way of deriving, so that one without a deadline is not asked for it.
    #[track_caller]
    #[inline(always)]
    fn derive(&self, deadline: Option<Instant>) -> CancelScope {
        self.own(NodeRef::child(self.node.as_ref(), Location::caller(), deadline))
    }

    /// The owner of a new node, with this context's values.
    #[inline(always)]
    fn own(&self, node: NodeRef) -> CancelScope {
        CancelScope::own(Context {
            node: Some(node),
            values: self.values.clone(),
        })
    }

    /// The queue of this context's clock; `None` for the system's.
    pub(crate) fn timers(&self) -> Option<&Arc<Timers>> {
        self.node.as_ref()?.timers()
    }

    fn clock(&self) -> &dyn Clock {
        self.timers().map_or(&SystemClock, |timers| timers.clock())
    }

    /// Whether `at` has come on this context's clock.
    #[inline]
    pub(crate) fn has_come(&self, at: Instant) -> bool {
        match self.timers() {
            Some(timers) => at <= timers.clock().now(),
            None => has_come(at),
        }
    }

    /// `span` from now on this context's clock; `None` for a point that never comes.
    pub(crate) fn instant_after(&self, span: Duration) -> Option<Instant> {
        if span == Duration::MAX {
            None
        } else {
            after(self.now(), span)
        }
    }

    /// The derivation path, outermost first, by name or place, at most `PATH` nodes of it.
    fn path(&self) -> String {
        const PATH: usize = 16;
        let mut steps = Vec::new();
        let mut next = self.node.clone();
        while let Some(node) = next {
            if steps.len() == PATH {
                steps.push("…".to_string());
                break;
            }
            let place = node.made_at();
            steps.push(match (node.name(), node.can_end()) {
                (Some(name), true) => format!("{name} {}", node.id()),
                (Some(name), false) => name.to_string(),
                (None, true) => format!("{} at {}:{}", node.id(), place.file(), place.line()),
                (None, false) => "root".to_string(),
            });
            next = node.parents().into_iter().next();
        }
        let is_rooted = steps
            .last()
            .is_some_and(|step| step == "root" || step == "todo" || step == "…");
        if !is_rooted {
            steps.push("background".to_string());
        }
        steps.reverse();
        steps.join(" > ")
    }
}

impl AsRef<Context> for Context {
    fn as_ref(&self) -> &Context {
        self
    }
}

/// The derivation path, the end or the time left, and the names of the values; never a value.
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Context");
        out.field("path", &format_args!("{}", self.path()));
        if let Some(end) = self.node.as_ref().and_then(NodeRef::known_end) {
            out.field("ended", &format_args!("{end}"));
        } else if let Some(left) = self.remaining() {
            out.field("remaining", &left);
        }
        let names = self.values.names();
        if !names.is_empty() {
            out.field("values", &format_args!("{}", names.join(", ")));
        }
        out.finish()
    }
}
