//! The four questions that a context answers: until when, is it over, why, and what travels along.
//!
//! Run it with `cargo run -p bequest --example four_methods`; it says nothing if every assertion holds.

use std::time::Duration;

use bequest::{Canceled, Context, Key, Kind, Reason};
use tokio::sync::mpsc::{self, Receiver};

static TRACE: Key<u64> = Key::new("trace");

/// Until when: what is not worth starting is not started.
fn plan(ctx: &Context) -> &'static str {
    match ctx.remaining() {
        Some(left) if left < Duration::from_millis(50) => "the short answer",
        _ => "the long answer",
    }
}

/// Is it over, and why: work that nobody could interrupt asks between two pieces.
fn add_up(ctx: &Context, numbers: impl Iterator<Item = u64>) -> Result<u64, Canceled> {
    let mut sum = 0;
    for number in numbers {
        ctx.check()?;
        sum += number;
    }
    Ok(sum)
}

/// Waiting for two things at once: the next job, or the end.
async fn next(ctx: &Context, jobs: &mut Receiver<u64>) -> Result<Option<u64>, Canceled> {
    ctx.run(jobs.recv()).await
}

/// The same with an answer of its own for each side.
async fn next_or_why(ctx: &Context, jobs: &mut Receiver<u64>) -> String {
    tokio::select! {
        end = ctx.done() => format!("no job: {}", end.reason()),
        job = jobs.recv() => format!("job {job:?}"),
    }
}

/// What travels along.
fn trace(ctx: &Context) -> Option<u64> {
    ctx.value(&TRACE).copied()
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() {
    let background = Context::background();
    assert_eq!((background.deadline(), background.remaining()), (None, None));
    assert_eq!(plan(&background), "the long answer");
    assert_eq!(
        plan(&background.with_timeout(Duration::from_millis(49))),
        "the short answer"
    );

    let request = background.with_value(&TRACE, 7).with_cancel();
    assert_eq!((trace(&request), trace(&background)), (Some(7), None));
    assert_eq!(add_up(&request, 1..=4).unwrap(), 10);

    let (jobs, mut queue) = mpsc::channel(2);
    jobs.send(1).await.unwrap();
    assert_eq!(next(&request, &mut queue).await.unwrap(), Some(1));
    jobs.send(2).await.unwrap();
    assert_eq!(next_or_why(&request, &mut queue).await, "job Some(2)");

    request.cancel_for(Reason::ClientGone);
    assert_eq!(
        add_up(&request, 1..).unwrap_err(),
        Kind::Canceled,
        "and not for ever"
    );
    assert_eq!(
        next(&request, &mut queue).await.unwrap_err().reason(),
        Reason::ClientGone
    );
    assert_eq!(
        next_or_why(&request, &mut queue).await,
        "no job: client disconnected"
    );
    assert_eq!(trace(&request), Some(7), "values outlast the end");
}
