//! The store server, first version: what the store fetches is written. Nobody can say that it is no longer wanted.
//!
//! Run it with `cargo run -p bequest-test --example store_v1`; it says nothing if every assertion holds.

use std::io;

use bequest_test::{Recorder, ResponseWriter};

/// Where the data come from.
pub(crate) trait Store {
    fn fetch(&self) -> String;
}

/// Answers every request with what its store fetches.
pub(crate) struct Server<S> {
    pub(crate) store: S,
}

impl<S: Store> Server<S> {
    pub(crate) fn get(&self, response: &mut impl ResponseWriter) -> io::Result<()> {
        response.write(self.store.fetch().as_bytes())
    }
}

/// A store that has the answer at hand.
pub(crate) struct StubStore(pub(crate) &'static str);

impl Store for StubStore {
    fn fetch(&self) -> String {
        self.0.to_owned()
    }
}

fn main() -> io::Result<()> {
    let server = Server {
        store: StubStore("hello, world"),
    };
    let mut response = Recorder::new();
    server.get(&mut response)?;
    assert_eq!(response.status(), Some(200));
    assert_eq!(response.text(), "hello, world");
    Ok(())
}
