//! The store server in its versions: the servers and stores of `examples/`, driven by a clock that stands still unless
//! it is moved, and beside them the naive ways, each of which fails the test that the server passes.

mod v1;
mod v2;
mod v3;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_test::{Clock, Recorder};

/// What one request came to.
struct Outcome {
    response: Recorder,
    /// How long the handler took.
    took: Duration,
}

/// A request whose client waits for the answer.
fn stay(clock: &Clock, handler: impl AsyncFn(&Context, &mut Recorder)) -> Outcome {
    serve(clock, &clock.context(), handler)
}

/// A request whose client leaves `after` the request has begun.
fn leave(clock: &Clock, after: Duration, handler: impl AsyncFn(&Context, &mut Recorder)) -> Outcome {
    let request = clock.context().with_cancel().named("request");
    let client = request.canceller();
    clock.schedule(after, move || client.cancel_for(Reason::ClientGone));
    serve(clock, &request, handler)
}

fn serve(clock: &Clock, ctx: &Context, handler: impl AsyncFn(&Context, &mut Recorder)) -> Outcome {
    let begun = clock.elapsed();
    let mut response = Recorder::new();
    clock.run(handler(ctx, &mut response));
    Outcome {
        response,
        took: clock.elapsed() - begun,
    }
}

/// Whether `assertion` fails: for showing that a naive way does not pass the test of the right one.
fn fails(assertion: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(assertion)).is_err()
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
