//! The store server, second version: the store knows nothing of contexts, but has a `cancel()`.
//!
//! The server runs the fetch beside the request's context. If the context ends first, the fetch is dropped, so that it
//! stops where it stands; the store is told; nothing is written; and the log says why.
//!
//! Run it with `cargo run -p bequest-test --example store_v2`; it says nothing if every assertion holds.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_test::{Clock, Recorder, ResponseWriter};

/// Where the data come from, slowly.
pub(crate) trait Store {
    async fn fetch(&self) -> String;
    fn cancel(&self);
}

/// Answers every request with what its store fetches.
pub(crate) struct Server<S> {
    pub(crate) store: S,
    pub(crate) log: RefCell<Vec<String>>,
}

impl<S: Store> Server<S> {
    pub(crate) fn new(store: S) -> Server<S> {
        let log = RefCell::default();
        Server { store, log }
    }

    pub(crate) async fn get(&self, ctx: &Context, response: &mut impl ResponseWriter) {
        if let Err(error) = self.answer(ctx, response).await {
            self.log.borrow_mut().push(format!("GET /: {error}"));
        }
    }

    async fn answer(&self, ctx: &Context, response: &mut impl ResponseWriter) -> Result<(), Box<dyn Error>> {
        let fetched = ctx.run(self.store.fetch()).await;
        let data = fetched.inspect_err(|_| self.store.cancel())?;
        Ok(response.write(data.as_bytes())?)
    }
}

const PIECE: Duration = Duration::from_millis(10);

/// A store that takes 10 ms for each character, and remembers what was done to it.
pub(crate) struct SpyStore {
    pub(crate) time: Context,
    pub(crate) data: &'static str,
    pub(crate) built: Cell<usize>,
    pub(crate) cancelled: Cell<bool>,
}

impl SpyStore {
    pub(crate) fn new(clock: &Clock, data: &'static str) -> SpyStore {
        SpyStore {
            time: clock.context(),
            data,
            built: Cell::default(),
            cancelled: Cell::default(),
        }
    }
}

impl Store for SpyStore {
    async fn fetch(&self) -> String {
        let mut reply = String::new();
        for character in self.data.chars() {
            self.time.sleep(PIECE).await.expect("a root never ends");
            reply.push(character);
            self.built.set(self.built.get() + 1);
        }
        reply
    }

    fn cancel(&self) {
        self.cancelled.set(true);
    }
}

fn main() {
    let clock = Clock::new();
    let request = clock.context().with_cancel();
    let server = Server::new(SpyStore::new(&clock, "hello, world"));

    let mut response = Recorder::new();
    clock.run(server.get(&request, &mut response));
    assert!(response.text() == "hello, world" && !server.store.cancelled.get());

    let client = request.canceller();
    clock.schedule(PIECE / 2, move || client.cancel_for(Reason::ClientGone));
    let mut response = Recorder::new();
    clock.run(server.get(&request, &mut response));
    response.assert_untouched();
    assert!(server.store.cancelled.get() && server.store.built.get() == 12);
    assert!(server.log.borrow()[0].starts_with("GET /: context canceled: client disconnected"));
}
