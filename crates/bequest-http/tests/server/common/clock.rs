//! The kit's clock, with a way to move it while a server reacts in real time.

use std::future::Future;
use std::time::Duration;

use bequest::Context;

use super::guard;

#[derive(Clone, Debug)]
pub(crate) struct TestClock(bequest_test::Clock);

impl TestClock {
    pub(crate) fn new() -> TestClock {
        TestClock(bequest_test::Clock::new())
    }

    /// A root context on this clock.
    pub(crate) fn context(&self) -> Context {
        self.0.context()
    }

    /// How far it has been moved.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn advance(&self, step: Duration) {
        self.0.advance(step);
    }

    /// Moves it step by step until `work` is done, and says how far that was.
    ///
    /// Between two steps the server gets real time to react; how long it needs decides only how many steps are made
    /// after the event, not which event comes.
    pub(crate) async fn step_until<T>(
        &self,
        step: Duration,
        what: &str,
        work: impl Future<Output = T>,
    ) -> (T, Duration) {
        let before = self.elapsed();
        let mut work = std::pin::pin!(work);
        let value = guard(what, async {
            loop {
                match tokio::time::timeout(Duration::from_millis(5), work.as_mut()).await {
                    Ok(value) => return value,
                    Err(_) => self.advance(step),
                }
            }
        })
        .await;
        (value, self.elapsed() - before)
    }
}
