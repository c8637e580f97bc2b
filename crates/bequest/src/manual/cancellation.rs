//! The tree: who may end what, what is true when a cancel returns, and how a piece of work hears of it.
//!
//! # A tree of ends
//!
//! Each context but the background has one above it, and ends with it at the latest. An end goes downwards and never up:
//! a request that gives a step up is not given up itself.
//!
//! ```
//! use bequest::{Context, Reason};
//!
//! let server = Context::background().with_cancel().named("server");
//! let request = server.with_cancel().named("request");
//! let step = request.with_cancel().named("step");
//!
//! step.cancel();
//! assert!(!request.is_done());
//! server.cancel_for(Reason::Shutdown);
//! assert_eq!(request.err().unwrap().reason(), Reason::Shutdown);
//! assert_eq!(step.err().unwrap().reason(), Reason::Explicit, "the first event wins, for ever");
//! ```
//!
//! # Who may end it
//!
//! A [`Context`](crate::Context) observes, and is what is passed down. The right to cancel is a thing of its own: the
//! [`CancelScope`](crate::CancelScope), of which there is one, or a [`Canceller`](crate::Canceller), to be given away. Code
//! that gets `&Context` cannot end its caller, which needs no convention and no review. A scope that is dropped ends what
//! was derived from it: what a function began is over when the function is, on every path out of it.
//!
//! ```
//! use bequest::Context;
//!
//! fn first_of_two(ctx: &Context) -> Context {
//!     let scope = ctx.with_cancel();
//!     let helper = scope.context();
//!     // Whatever is returned here, early or late, the helper is told.
//!     helper
//! }
//! assert!(first_of_two(&Context::background()).is_done());
//! ```
//!
//! # When a cancel returns
//!
//! Every context below reads as done, even one that is derived at that instant on another thread, and whichever of several
//! callers this is. The first of them has also woken who waits and called the callbacks. Nothing has *stopped* yet: work
//! stops when it looks. To know that it has, wait for the work and not for its context: a `Group` (feature `tokio`), a
//! join handle, a thread.
//!
//! # How work hears of it
//!
//! | the work | how |
//! |---|---|
//! | a loop | [`check`](crate::Context::check): one load, so in every turn |
//! | an await on something that knows no contexts | [`run`](crate::Context::run) around it: it is dropped where it stands |
//! | an await of a crate that takes a context | hands `&ctx` on; the error is the context's |
//! | a `select!` of its own | [`done`](crate::Context::done) as a branch |
//! | a thread that sleeps | [`wait_timeout`](crate::Context::wait_timeout) in place of `sleep` |
//! | a thread that blocks in a call | nothing can stop it: [`after_func`](crate::Context::after_func) closes the socket, interrupts the statement, kills the child |
//! | blocking work whose caller should not wait | `spawn_blocking` (feature `tokio`): the caller is answered, the work is on a list |
//!
//! The thread that sleeps, and the call that has to be interrupted from outside:
//!
//! ```
//! use bequest::Context;
//! use std::net::{Shutdown, TcpListener, TcpStream};
//! use std::io::Read;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let request = Context::background().with_cancel();
//! let sleeper = std::thread::spawn({
//!     let ctx = request.context();
//!     // `None` is the full time; an end comes at once.
//!     move || ctx.wait_timeout(Duration::from_secs(60)).is_some()
//! });
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut silent = TcpStream::connect(listener.local_addr()?)?;
//! let socket = silent.try_clone()?;
//! let _guard = request.after_func(move |_| drop(socket.shutdown(Shutdown::Both)));
//! let reader = std::thread::spawn(move || silent.read(&mut [0; 1]));
//!
//! request.cancel();
//! assert!(sleeper.join().unwrap());
//! assert_eq!(reader.join().unwrap()?, 0, "the read has come back");
//! # Ok(()) }
//! ```
//!
//! # Why it ended
//!
//! [`Kind`](crate::Kind) is what Go's two errors are, and survives everything; [`Reason`](crate::Reason) is what programs
//! branch on; the cause is an error of yours; origin and scope say where and which. They travel with the end to each
//! context below, so a statement in a database can say that a client disconnected. Return the error as it is, or with it as
//! the source of yours: [`is_from`](crate::Canceled::is_from) then still tells whose end it was.
//!
//! ```
//! use bequest::{Context, Kind};
//!
//! let request = Context::background().with_cancel().named("request");
//! let query = request.with_cancel().named("query");
//! request.cancel_with("the user pressed stop");
//! let end = query.err().unwrap();
//! assert_eq!(end, Kind::Canceled);
//! assert_eq!(end.cause().unwrap().to_string(), "the user pressed stop");
//! assert!(end.is_from(&request) && !end.is_from(&query));
//! assert_eq!(end.origin().file(), file!());
//! ```
//!
//! # Work that is not to end with its request
//!
//! - **Tidying up**: [`cleanup`](crate::Context::cleanup). It keeps the values, has a limit of its own, and ignores that the
//!   request has ended, which is when it is needed.
//! - **A job that outlives its request**: [`without_cancel`](crate::Context::without_cancel), and a limit. It keeps the
//!   values, so that its log lines say for whom it runs. Somebody has to wait for it at shutdown.
//! - **One question for many who ask**: the work gets a context of its own, and ends when the last of them has left; a
//!   single one that leaves fails nobody.
//!
//! # Two that must both live
//!
//! [`Context::any`](crate::Context::any) ends with the first of several: a request on a connection, a job in a service that
//! shuts down. It has the values of the first, the earliest deadline of all, and says whose end it was.
//!
//! # What it costs
//!
//! A check is one load, at any depth. Deriving, cancelling and dropping are a few locked instructions each, and touch the
//! parent alone. A cancel visits what is below, in a loop, whatever the shape; those who wait are woken outside every lock.
//! Nothing is kept of what was dropped, however long the parent lives.
