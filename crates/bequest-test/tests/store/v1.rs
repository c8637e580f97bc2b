//! Version 1: a store without cancellation.

use bequest_test::{Recorder, Touch};

#[allow(dead_code, reason = "its `main` is for running it by itself")]
#[path = "../../examples/store_v1.rs"]
mod example;
use example::{Server, Store, StubStore};

#[test]
fn what_the_store_fetches_is_written() {
    let server = Server {
        store: StubStore("hello, world"),
    };
    let mut response = Recorder::new();
    server.get(&mut response).unwrap();
    assert_eq!(response.text(), "hello, world");
    assert_eq!(response.status(), Some(200));
    assert_eq!(response.touches(), [Touch::Write(b"hello, world".to_vec())]);
}

#[test]
fn the_server_is_generic_over_its_store() {
    struct Counting(std::cell::Cell<u32>);
    impl Store for Counting {
        fn fetch(&self) -> String {
            self.0.set(self.0.get() + 1);
            format!("fetch {}", self.0.get())
        }
    }
    let server = Server {
        store: Counting(std::cell::Cell::new(0)),
    };
    for expected in ["fetch 1", "fetch 2"] {
        let mut response = Recorder::new();
        server.get(&mut response).unwrap();
        assert_eq!(response.text(), expected);
    }
}
