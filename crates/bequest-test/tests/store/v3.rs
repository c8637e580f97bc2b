//! Version 3: a store that is handed the context.

use std::cell::Cell;

use bequest::{Context, Kind};
use bequest_test::{Clock, Leak, Recorder, ResponseWriter, Touch};

use super::{fails, leave, ms, stay};

#[allow(dead_code, reason = "its `main` is for running it by itself")]
#[path = "../../examples/store_v3.rs"]
mod example;
use example::{Error, Server, SpyStore, Store};

const HELLO: &str = "hello, world";

/// A store that has its answer, or its failure, at hand.
struct StubStore(Result<&'static str, &'static str>);

impl Store for StubStore {
    async fn fetch(&self, _ctx: &Context) -> Result<String, Error> {
        Ok(self.0?.to_owned())
    }
}

/// A store whose work on each character takes 10 ms during which nothing can interrupt it; it asks before each.
struct BusyStore {
    clock: Clock,
    built: Cell<usize>,
}

impl Store for BusyStore {
    async fn fetch(&self, ctx: &Context) -> Result<String, Error> {
        let mut reply = String::new();
        for character in HELLO.chars() {
            ctx.check()?;
            self.clock.advance(ms(10));
            reply.push(character);
            self.built.set(self.built.get() + 1);
        }
        Ok(reply)
    }
}

#[test]
fn a_client_that_waits_is_answered() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(HELLO));
    let outcome = stay(&clock, async |ctx, response| server.get(ctx, response).await);
    assert_eq!(outcome.response.text(), HELLO);
    assert_eq!(outcome.response.status(), Some(200));
    assert_eq!(outcome.took, ms(120));
    assert!(server.log.borrow().is_empty());
}

#[test]
fn a_client_that_leaves_is_written_nothing() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(HELLO));
    let outcome = leave(&clock, ms(5), async |ctx, response| {
        server.get(ctx, response).await
    });
    outcome.response.assert_untouched();
    assert_eq!(outcome.took, ms(5));
    assert_eq!(server.store.built.get(), 0);
    let log = server.log.borrow();
    assert!(
        log[0].starts_with("GET /: context canceled: client disconnected (request "),
        "{log:?}"
    );
}

/// At whatever instant the client leaves, the store has built what it had time for, and not one character more.
#[test]
fn a_store_that_waits_stops_at_once() {
    for after in 0..120 {
        let clock = Clock::new();
        let server = Server::new(SpyStore::new(HELLO));
        let outcome = leave(&clock, ms(after), async |ctx, response| {
            server.get(ctx, response).await
        });
        outcome.response.assert_untouched();
        assert_eq!(outcome.took, ms(after));
        clock.advance(ms(1000));
        let built = server.store.built.get() as u64;
        // At the instant at which a character is finished, finished work and end tie.
        assert!(built == after / 10 || built + 1 == after / 10 && after % 10 == 0);
    }
}

#[test]
fn a_store_that_is_busy_stops_within_one_character() {
    for after in 1..120 {
        let clock = Clock::new();
        let store = BusyStore {
            clock: clock.clone(),
            built: Cell::new(0),
        };
        let server = Server::new(store);
        let outcome = leave(&clock, ms(after), async |ctx, response| {
            server.get(ctx, response).await
        });
        if after <= 110 {
            outcome.response.assert_untouched();
            assert_eq!(server.store.built.get() as u64, after.div_ceil(10));
        } else {
            // It left during the last character, after the last question.
            assert_eq!(outcome.response.text(), HELLO);
        }
        assert!(outcome.took < ms(after + 10));
    }
}

#[test]
fn any_error_of_the_store_writes_nothing_and_is_logged() {
    let clock = Clock::new();
    let server = Server::new(StubStore(Err("the disk is full")));
    let outcome = stay(&clock, async |ctx, response| server.get(ctx, response).await);
    outcome.response.assert_untouched();
    assert_eq!(*server.log.borrow(), ["GET /: the disk is full"]);
}

#[test]
fn an_empty_answer_is_an_answer() {
    let clock = Clock::new();
    let server = Server::new(StubStore(Ok("")));
    let outcome = stay(&clock, async |ctx, response| server.get(ctx, response).await);
    assert_eq!(outcome.response.touches(), [Touch::Write(vec![])]);
    assert!(fails(|| outcome.response.assert_untouched()));
}

#[test]
fn a_deadline_is_an_error_of_the_store_like_any_other() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(HELLO));
    let outcome = stay(&clock, async |ctx, response| {
        let limited = ctx.with_timeout(ms(45));
        server.get(&limited, response).await;
        assert_eq!(limited.err().unwrap(), Kind::DeadlineExceeded);
    });
    outcome.response.assert_untouched();
    assert_eq!((outcome.took, server.store.built.get()), (ms(45), 4));
    assert!(server.log.borrow()[0].starts_with("GET /: context deadline exceeded: "));
}

#[test]
fn nothing_is_left_of_a_request() {
    let clock = Clock::new();
    let leak = Leak::watch_on(clock.clone());
    let server = Server::new(SpyStore::new(HELLO));
    for after in [5, 50, 500] {
        let request = leak.context().with_cancel();
        let client = request.canceller();
        clock.schedule(ms(after), move || client.cancel());
        clock.run(server.get(&request, &mut Recorder::new()));
        clock.advance(ms(500));
    }
    leak.assert_none();
}

/// A handler that waits for its store whatever happens to the request.
async fn ignorant(store: &SpyStore, ctx: &Context, response: &mut Recorder) {
    let data = store.fetch(&ctx.without_cancel()).await.unwrap();
    response.write(data.as_bytes()).unwrap();
}

/// Negative control: a handler that ignores the context passes the happy path, and no other test.
#[test]
fn control_ignoring_the_context_fails_every_other_test() {
    let clock = Clock::new();
    let store = SpyStore::new(HELLO);
    let stayed = stay(&clock, async |ctx, response| {
        ignorant(&store, ctx, response).await
    });
    assert_eq!(stayed.response.text(), HELLO);

    let store = SpyStore::new(HELLO);
    let left = leave(&clock, ms(5), async |ctx, response| {
        ignorant(&store, ctx, response).await
    });
    assert!(fails(|| left.response.assert_untouched()));
    assert!(fails(|| assert_eq!(left.took, ms(5))));
    assert_eq!(store.built.get(), HELLO.len(), "built for nobody");
}

/// Negative control: a recorder that keeps status, headers and body takes a handler that writes an empty answer into
/// the void for one that writes nothing. Ours does not.
#[test]
fn control_a_recorder_of_results_cannot_tell() {
    #[derive(Debug, Default, PartialEq)]
    struct Results {
        status: Option<u16>,
        headers: bequest_test::Headers,
        body: Vec<u8>,
    }
    impl ResponseWriter for Results {
        fn set_status(&mut self, status: u16) {
            self.status = Some(status);
        }
        fn headers_mut(&mut self) -> &mut bequest_test::Headers {
            &mut self.headers
        }
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.body.extend_from_slice(bytes);
            Ok(())
        }
    }
    /// Answers with what there was when the client left: nothing.
    fn write_what_there_is(response: &mut impl ResponseWriter) {
        response.headers_mut();
        response.write(b"").unwrap();
    }

    let mut results = Results::default();
    write_what_there_is(&mut results);
    assert_eq!(results, Results::default());

    let mut recorder = Recorder::new();
    write_what_there_is(&mut recorder);
    assert!(fails(|| recorder.assert_untouched()));
}
