//! Tasks on one clock, whose time passes only when all of them wait.
//!
//! What lives here: running futures on virtual time, on one thread. What does not: anything that moves by itself. A
//! future that waits for a thread, a socket or another clock looks like a deadlock in here, and is reported as one.
//!
//! # Invariants
//!
//! 1. Time moves only when nothing is runnable.
//! 2. Tasks run in the order in which they were spawned, round by round: the same program does the same every time.
//! 3. No task is borrowed while it is polled: it may spawn others.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use bequest::Context;

use crate::{Clock, Task, task};

/// Tasks on a clock of their own. A clone is another handle to the same bubble, for spawning from within.
///
/// # Example: an hour, in no time
///
/// ```
/// use bequest_test::Bubble;
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// let bubble = Bubble::new();
/// let ctx = bubble.context();
/// let ticks = Rc::new(Cell::new(0));
/// bubble.spawn({
///     let (ctx, ticks) = (ctx.clone(), Rc::clone(&ticks));
///     async move {
///         while ticks.get() < 60 && ctx.sleep(Duration::from_secs(60)).await.is_ok() {
///             ticks.set(ticks.get() + 1);
///         }
///     }
/// });
/// bubble.run(ctx.sleep(Duration::from_secs(1800))).unwrap();
/// assert_eq!(ticks.get(), 60, "the bubble waits for all of its tasks");
/// assert_eq!(bubble.clock().elapsed(), Duration::from_secs(3600));
/// ```
///
/// # Example: a deadlock is a failure, not a test that hangs
///
/// ```should_panic
/// bequest_test::Bubble::new().run(std::future::pending::<()>());
/// ```
#[derive(Clone, Debug)]
pub struct Bubble(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// Empty of those that are being polled.
    tasks: RefCell<Vec<Spawned>>,
}

type Spawned = Task<Pin<Box<dyn Future<Output = ()>>>>;

impl Bubble {
    /// A bubble with a new clock.
    pub fn new() -> Bubble {
        Bubble::on(&Clock::new())
    }

    /// A bubble on this clock, at whatever time it shows.
    ///
    /// ```
    /// # use bequest_test::{Bubble, Clock};
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(Bubble::on(&clock).clock().elapsed(), Duration::from_secs(1));
    /// ```
    pub fn on(clock: &Clock) -> Bubble {
        Bubble(Rc::new(Inner {
            clock: clock.clone(),
            tasks: RefCell::default(),
        }))
    }

    /// The bubble's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// A root whose deadlines go by the bubble's clock.
    #[track_caller]
    pub fn context(&self) -> Context {
        self.0.clock.context()
    }

    /// Adds a task. It is polled by [`run`](Bubble::run) and [`settle`](Bubble::settle).
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
        self.0.tasks.borrow_mut().push(task(work));
    }

    /// How many tasks have not finished.
    ///
    /// ```
    /// # use bequest_test::Bubble;
    /// let bubble = Bubble::new();
    /// bubble.spawn(async {});
    /// bubble.spawn(std::future::pending());
    /// bubble.settle();
    /// assert_eq!(bubble.tasks(), 1);
    /// ```
    pub fn tasks(&self) -> usize {
        self.0.tasks.borrow().len()
    }

    /// Runs the tasks until each has finished or waits. Time stands still.
    ///
    /// It is for tests that move the clock themselves, outside [`run`](Bubble::run).
    ///
    /// ```
    /// # use bequest_test::Bubble;
    /// # use std::time::Duration;
    /// let bubble = Bubble::new();
    /// let ctx = bubble.context();
    /// bubble.spawn(async move { ctx.sleep(Duration::from_secs(1)).await.unwrap() });
    /// bubble.settle();
    /// assert_eq!(bubble.tasks(), 1);
    /// bubble.clock().advance(Duration::from_secs(1));
    /// bubble.settle();
    /// assert_eq!(bubble.tasks(), 0);
    /// ```
    pub fn settle(&self) {
        while self.poll_round() {}
    }

    /// Runs `main` and all tasks to their ends: whenever all of them wait, the clock moves on to the next thing that
    /// is due.
    ///
    /// # Panics
    ///
    /// If all of them wait and nothing is due: they would wait for ever.
    #[track_caller]
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        let mut main = task(main);
        let mut output = None;
        loop {
            let mut moved = self.poll_round();
            if output.is_none() && main.is_runnable() {
                moved = true;
                if let std::task::Poll::Ready(value) = main.poll() {
                    output = Some(value);
                }
            }
            if moved {
                continue;
            }
            match output {
                Some(output) if self.tasks() == 0 => return output,
                unfinished => {
                    output = unfinished;
                    let moved = self.0.clock.advance_to_next();
                    assert!(moved, "{}", self.deadlock(output.is_some()));
                }
            }
        }
    }

    /// Polls each runnable task once; whether there was any.
    fn poll_round(&self) -> bool {
        let round = self.0.tasks.take();
        let mut moved = false;
        let mut left = Vec::new();
        for mut task in round {
            if task.is_runnable() {
                moved = true;
                if task.poll().is_ready() {
                    continue;
                }
            }
            left.push(task);
        }
        let mut tasks = self.0.tasks.borrow_mut();
        left.append(&mut tasks);
        *tasks = left;
        moved
    }

    fn deadlock(&self, is_main_over: bool) -> String {
        let main = if is_main_over { "over" } else { "waiting" };
        format!(
            "deadlock after {:?}: nothing is due, main is {main}, {} spawned tasks wait",
            self.0.clock.elapsed(),
            self.tasks()
        )
    }
}

impl Default for Bubble {
    fn default() -> Bubble {
        Bubble::new()
    }
}
