//! What the trials share.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a peer may be silent here: three seconds, as the system counts whole ones, or as many as `BEQUEST_CABLE_SECONDS` says.
pub(crate) fn limit() -> Duration {
    let seconds = std::env::var("BEQUEST_CABLE_SECONDS").map(|text| text.parse().expect("whole seconds"));
    Duration::from_secs(seconds.unwrap_or(3))
}

/// What became of a trial: how long after the pull it was noticed, and what was said.
pub(crate) struct Outcome {
    pub(crate) after: Option<Duration>,
    pub(crate) said: String,
}

/// When all that is to be noticed has been.
pub(crate) type Noticed = watch::Receiver<bool>;

impl Outcome {
    /// It was noticed at this moment.
    pub(crate) fn noticed(pulled: Instant, at: Instant, said: impl ToString) -> Outcome {
        Outcome {
            after: Some(at - pulled),
            said: said.to_string(),
        }
    }

    /// It was not noticed, or was not to be.
    pub(crate) fn unnoticed(said: impl ToString) -> Outcome {
        Outcome {
            after: None,
            said: said.to_string(),
        }
    }
}

/// Waits until all that is to be noticed has been.
pub(crate) async fn all(mut noticed: Noticed) {
    guard("the others", noticed.wait_for(|all| *all))
        .await
        .expect("told before it is dropped");
}

/// Fails a trial that hangs. Nothing is measured by it.
pub(crate) async fn guard<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit() * 4 + Duration::from_secs(20), work).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// Lets a peer's system acknowledge what has come, which it puts off for some 40 ms: nothing is on its way then, and whoever is asked
/// about a silent peer is asked by keepalive.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    guard(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
