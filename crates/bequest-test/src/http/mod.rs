//! Handlers and services in the vocabulary of the `http` crate, without a server: a request in memory, and what
//! became of it.
//!
//! What lives here: making the request, with its context among its extensions; running what answers it until it has
//! answered or its context has ended; collecting the body, frame by frame. What does not: sockets and protocols, which
//! are the server's.
//!
//! A client that leaves is a context that ends: what has not answered by then is polled once more, so that it is
//! *told*, and then dropped, as a server does that can write to nobody. A handler that answers in that last poll, because its
//! errors are responses as axum's are, was told too: [`Exchange::assert_unsent`] is the check for both.
//!
//! ```
//! use bequest::{Context, Reason};
//! use bequest_test::{Clock, http::{get, record}};
//! use std::time::Duration;
//!
//! async fn slow(request: http::Request<impl Sized>) -> Result<http::Response<String>, bequest::Canceled> {
//!     let ctx = request.extensions().get::<Context>().expect("the request carries its context");
//!     ctx.sleep(Duration::from_secs(1)).await?;
//!     Ok(http::Response::new("hello, world".into()))
//! }
//!
//! let clock = Clock::new();
//! let request = clock.context().with_cancel();
//! let answer = clock.run(record(&request, slow(get(&request, "/")))).expect_answer();
//! assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello, world".into()));
//!
//! let client = request.canceller();
//! clock.schedule(Duration::from_millis(5), move || client.cancel_for(Reason::ClientGone));
//! clock.run(record(&request, slow(get(&request, "/")))).assert_untouched();
//! ```

mod exchange;
mod request;

pub use exchange::{Answer, Ending, Exchange, call, record};
pub use request::{get, post, request};
