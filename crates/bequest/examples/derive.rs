//! Deriving: what can end returns its owner, and the owner's end ends everything derived from it.
//!
//! Run it with `cargo run -p bequest --example derive`; it says nothing if every assertion holds.

use std::thread;
use std::time::{Duration, Instant};

use bequest::{Canceled, Context, Key, Kind, Reason};

static TRACE: Key<u64> = Key::new("trace");

/// The first answer of several threads; the others are told that theirs is no longer wanted.
fn first_answer(ctx: &Context, guesses: [u64; 3]) -> u64 {
    let scope = ctx.with_cancel();
    let (answer, answers) = std::sync::mpsc::channel();
    for guess in guesses {
        let (ctx, answer) = (scope.context(), answer.clone());
        thread::spawn(move || search(&ctx, guess).map(|found| answer.send(found)));
    }
    answers.recv().expect("one of them finds it")
} // `scope` is dropped here: the other searches end

/// Finds zero at once, and anything else never.
fn search(ctx: &Context, guess: u64) -> Result<u64, Canceled> {
    if guess == 0 {
        return Ok(guess);
    }
    Err(ctx.wait())
}

/// A step with a limit of its own. If the request has less left, that counts.
fn step(ctx: &Context) -> Duration {
    let step = ctx.with_timeout(Duration::from_millis(200));
    step.remaining().expect("it has a deadline")
}

/// Work that goes on when its request is over, with its values and a limit of its own.
fn in_the_background(ctx: &Context) -> Context {
    ctx.without_cancel()
        .with_timeout(Duration::from_secs(60))
        .into_context()
}

pub(crate) fn main() {
    let background = Context::background();
    assert!(!background.is_done() && !Context::todo().is_done());

    assert_eq!(first_answer(&background, [7, 0, 9]), 0);

    let scope = background.with_cancel();
    let seen = scope.context();
    drop(scope);
    assert_eq!(seen.err().unwrap().reason(), Reason::ScopeEnded);

    let scope = background.with_cancel();
    let child = scope.with_cancel();
    scope.cancel();
    scope.cancel_for(Reason::Shutdown);
    assert_eq!(
        child.err().unwrap().reason(),
        Reason::Explicit,
        "the first event wins"
    );

    let at = Instant::now() + Duration::from_secs(5);
    let request = background.with_deadline(at);
    assert_eq!(request.deadline(), Some(at));
    assert_eq!(
        request.with_timeout(Duration::MAX).deadline(),
        Some(at),
        "never later than its parent"
    );
    assert!(step(&request) <= Duration::from_millis(200));
    assert!(step(&background.with_timeout(Duration::from_millis(5))) <= Duration::from_millis(5));

    let limited = background.with_timeout(Duration::from_millis(1));
    assert_eq!(limited.wait(), Kind::DeadlineExceeded);

    let request = background.with_value(&TRACE, 7).with_cancel();
    let job = in_the_background(&request);
    request.cancel();
    assert!(!job.is_done());
    assert_eq!(job.value(&TRACE), Some(&7));
    assert!(job.remaining().unwrap() <= Duration::from_secs(60));
}
