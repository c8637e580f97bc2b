//! A context that belongs to a test: live while the test runs, ended before its tidying up.
//!
//! # Invariants
//!
//! 1. The context ends before the first cleanup function runs, whether the test passes, returns early or panics.
//! 2. Cleanup functions run in the opposite order of their registration, each with a live context of its own. A panic
//!    in one skips no other; the first is passed on once all have run, unless the test is panicking already.

use std::fmt;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe, Location};
use std::thread;
use std::time::Duration;

use bequest::{CancelScope, Context, Key, Reason};

static NAME: Key<String> = Key::new("test");

/// A context for this test, with the test's name in it.
///
/// The name is that of the thread, which is what the test harness calls it by; where there is none, on the main
/// thread, the place of this call.
#[track_caller]
pub fn test_context() -> TestContext {
    let caller = Location::caller();
    let name = match thread::current().name() {
        None | Some("main") => format!("{}:{}", caller.file(), caller.line()),
        Some(name) => name.to_owned(),
    };
    TestContext::named(name, &Context::background())
}

/// The name of the test to which `ctx` belongs, if it was derived from a [`test_context`].
///
/// ```
/// use bequest_test::{test_context, test_name};
///
/// let test = test_context();
/// assert_eq!(test_name(&test.with_cancel()), Some(test.name()));
/// assert_eq!(test_name(&bequest::Context::background()), None);
/// ```
pub fn test_name(ctx: &Context) -> Option<&str> {
    ctx.value(&NAME).map(String::as_str)
}

/// The context of a test, made by [`test_context`]: it ends when this guard drops, and then the cleanup runs.
///
/// It has no deadline; `test.with_timeout(…)` gives one. It is a [`Context`] by `Deref`.
///
/// # Example: ended before the cleanup, which has a live context of its own
///
/// ```
/// use bequest_test::{test_context, test_name};
/// use std::sync::mpsc;
///
/// let (tell, told) = mpsc::channel();
/// {
///     let mut test = test_context();
///     let ctx = test.context();
///     assert!(!ctx.is_done());
///     test.on_cleanup(move |tidy| {
///         tell.send((ctx.is_done(), tidy.is_done(), test_name(tidy).is_some())).unwrap();
///     });
/// }
/// assert_eq!(told.recv().unwrap(), (true, false, true));
/// ```
#[must_use = "the context ends when this guard drops"]
pub struct TestContext {
    /// Taken by `Drop`.
    scope: CancelScope,
    name: String,
    cleanups: Vec<Cleanup>,
}

type Cleanup = Box<dyn FnOnce(&Context)>;

/// The limit of each cleanup function's context.
const CLEANUP_LIMIT: Duration = Duration::from_secs(10);

impl TestContext {
    #[track_caller]
    fn named(name: String, parent: &Context) -> TestContext {
        let scope = parent.with_cancel().named("test").with_value(&NAME, name.clone());
        TestContext {
            scope,
            name,
            cleanups: Vec::new(),
        }
    }

    /// The name of the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle that ends with the test.
    pub fn context(&self) -> Context {
        self.scope.context()
    }

    /// A context for one part of the test, of its own: a sibling's end does not touch it, nor does it inherit this
    /// one's.
    ///
    /// ```
    /// # use bequest_test::test_context;
    /// let test = test_context();
    /// let first = test.subtest("first");
    /// let second = test.subtest("second");
    /// assert_eq!(second.name(), format!("{}/second", test.name()));
    /// drop(first);
    /// assert!(!second.is_done());
    /// drop(test);
    /// assert!(!second.is_done());
    /// ```
    #[track_caller]
    pub fn subtest(&self, name: &str) -> TestContext {
        TestContext::named(format!("{}/{name}", self.name), &Context::background())
    }

    /// Has `f` run after the test's context has ended, with a live context that keeps its values and has a limit of
    /// ten seconds.
    ///
    /// ```
    /// # use bequest_test::test_context;
    /// # use std::sync::mpsc;
    /// let (tell, told) = mpsc::channel();
    /// let mut test = test_context();
    /// for step in ["made first", "made last"] {
    ///     let tell = tell.clone();
    ///     test.on_cleanup(move |_| tell.send(step).unwrap());
    /// }
    /// drop(test);
    /// assert_eq!(told.try_iter().collect::<Vec<_>>(), ["made last", "made first"]);
    /// ```
    pub fn on_cleanup(&mut self, f: impl FnOnce(&Context) + 'static) {
        self.cleanups.push(Box::new(f));
    }

    fn run_cleanups(&mut self) -> thread::Result<()> {
        let mut outcome = Ok(());
        while let Some(cleanup) = self.cleanups.pop() {
            let tidy = self.scope.cleanup(CLEANUP_LIMIT).named("test cleanup");
            let result = panic::catch_unwind(AssertUnwindSafe(|| cleanup(&tidy)));
            outcome = outcome.and(result);
        }
        outcome
    }
}

impl Drop for TestContext {
    fn drop(&mut self) {
        if thread::panicking() {
            self.scope.cancel_for(Reason::Panicked);
        } else {
            self.scope.cancel_with(format!("test {} ended", self.name));
        }
        if let Err(payload) = self.run_cleanups() {
            // While the test unwinds, a second panic would abort; the panic hook has reported this one.
            if !thread::panicking() {
                panic::resume_unwind(payload);
            }
        }
    }
}

impl Deref for TestContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.scope
    }
}

impl AsRef<Context> for TestContext {
    fn as_ref(&self) -> &Context {
        &self.scope
    }
}

impl fmt::Debug for TestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestContext")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("cleanups", &self.cleanups.len())
            .finish()
    }
}
