//! The store server, third version: the store is handed the context, and answers with an error when it stops.
//!
//! The server has nothing left to do about leaving clients: any error of the store writes nothing and is logged.
//!
//! Run it with `cargo run -p bequest-test --example store_v3`; it says nothing if every assertion holds.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_test::{Clock, Recorder, ResponseWriter};

/// Whatever a store fails with; the end of a context is one such error.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where the data come from, slowly.
pub(crate) trait Store {
    async fn fetch(&self, ctx: &Context) -> Result<String, Error>;
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

    async fn answer(&self, ctx: &Context, response: &mut impl ResponseWriter) -> Result<(), Error> {
        let data = self.store.fetch(ctx).await?;
        Ok(response.write(data.as_bytes())?)
    }
}

/// A store that takes 10 ms for each character, and counts those that it has built.
pub(crate) struct SpyStore {
    pub(crate) data: &'static str,
    pub(crate) built: Cell<usize>,
}

impl SpyStore {
    pub(crate) fn new(data: &'static str) -> SpyStore {
        let built = Cell::new(0);
        SpyStore { data, built }
    }
}

impl Store for SpyStore {
    async fn fetch(&self, ctx: &Context) -> Result<String, Error> {
        let mut reply = String::new();
        for character in self.data.chars() {
            ctx.sleep(Duration::from_millis(10)).await?;
            reply.push(character);
            self.built.set(self.built.get() + 1);
        }
        Ok(reply)
    }
}

fn main() {
    let clock = Clock::new();
    let request = clock.context().with_cancel();
    let server = Server::new(SpyStore::new("hello, world"));

    let mut response = Recorder::new();
    clock.run(server.get(&request, &mut response));
    assert_eq!(response.text(), "hello, world");
    assert_eq!(clock.elapsed(), Duration::from_millis(120));

    let client = request.canceller();
    clock.schedule(Duration::from_millis(25), move || {
        client.cancel_for(Reason::ClientGone)
    });
    let mut response = Recorder::new();
    clock.run(server.get(&request, &mut response));
    response.assert_untouched();
    assert_eq!(
        server.store.built.get(),
        12 + 2,
        "the third character was not built"
    );
    assert_eq!(clock.elapsed(), Duration::from_millis(145), "it stopped at once");
    assert!(server.log.borrow()[0].starts_with("GET /: context canceled: client disconnected"));
}
