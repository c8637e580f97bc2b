//! The rows that need tokio: C26 on its paused clock, E1 to E9 (processes), G1 to G5 (task groups) and N1 to N5 (signals).

#[path = "../support/poll.rs"]
mod poll;

#[cfg(unix)]
#[path = "../support/children.rs"]
mod children;
mod groups;
#[cfg(unix)]
mod processes;
mod signals;

use std::time::Duration;

use bequest::{Context, Kind, clock};

#[tokio::test(start_paused = true)]
async fn c26_deadlines_follow_tokios_paused_time() {
    let ctx = Context::with_clock(clock::tokio());
    let (day, hour) = (Duration::from_secs(86_400), Duration::from_secs(3_600));
    let (long, short) = (ctx.with_timeout(day), ctx.with_timeout(hour));
    let start = tokio::time::Instant::now();
    assert_eq!(short.done().await, Kind::DeadlineExceeded);
    assert!(
        start.elapsed() >= hour && start.elapsed() < 2 * hour,
        "virtual, and exact to the timer's grain"
    );
    assert!(!long.is_done());
    assert!(ctx.sleep(hour).await.is_ok());
    assert_eq!(long.done().await, Kind::DeadlineExceeded);
    assert!(start.elapsed() >= day);
}
