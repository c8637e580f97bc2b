//! Version 2: a store that has `cancel()` and knows nothing of contexts.

use std::cell::RefCell;
use std::rc::Rc;

use bequest::Context;
use bequest_test::{Bubble, Clock, Recorder, ResponseWriter, task};

use super::{fails, leave, ms, stay};

#[allow(dead_code, reason = "its `main` is for running it by itself")]
#[path = "../../examples/store_v2.rs"]
mod example;
use example::{Server, SpyStore, Store};

const HELLO: &str = "hello, world";

impl SpyStore {
    #[track_caller]
    fn assert_was_told_to_cancel(&self) {
        assert!(self.cancelled.get(), "the store was not told to cancel");
    }

    #[track_caller]
    fn assert_was_not_told_to_cancel(&self) {
        assert!(!self.cancelled.get(), "the store was told to cancel");
    }
}

#[test]
fn a_client_that_waits_is_answered_and_nothing_is_cancelled() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(&clock, HELLO));
    let outcome = stay(&clock, async |ctx, response| server.get(ctx, response).await);
    assert_eq!(outcome.response.text(), HELLO);
    assert_eq!(outcome.took, ms(120));
    server.store.assert_was_not_told_to_cancel();
    assert!(server.log.borrow().is_empty());
}

#[test]
fn a_client_that_leaves_cancels_the_store_and_is_written_nothing() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(&clock, HELLO));
    let outcome = leave(&clock, ms(5), async |ctx, response| {
        server.get(ctx, response).await
    });
    server.store.assert_was_told_to_cancel();
    outcome.response.assert_untouched();
    assert_eq!(outcome.took, ms(5));
    let log = server.log.borrow();
    assert_eq!(log.len(), 1);
    assert!(
        log[0].starts_with("GET /: context canceled: client disconnected (request "),
        "{log:?}"
    );
}

#[test]
fn an_abandoned_fetch_stops_where_it_stands() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(&clock, HELLO));
    leave(&clock, ms(25), async |ctx, response| {
        server.get(ctx, response).await
    });
    assert_eq!(server.store.built.get(), 2);
    clock.advance(ms(1000));
    assert_eq!(server.store.built.get(), 2, "nothing goes on afterwards");
}

#[test]
fn a_client_that_has_left_before_costs_nothing() {
    let clock = Clock::new();
    let server = Server::new(SpyStore::new(&clock, HELLO));
    let request = clock.context().with_cancel();
    request.cancel();
    let mut response = Recorder::new();
    task(server.get(&request, &mut response)).assert_ready();
    response.assert_untouched();
    assert_eq!(server.store.built.get(), 0);
}

/// Negative control: who cancels whatever happens passes the test of the client that leaves, as long as that asks for
/// the flag alone. The test of the client that waits is what tells.
#[test]
fn control_cancelling_in_any_case_fails_the_happy_path() {
    let clock = Clock::new();
    let naive = async |store: &SpyStore, response: &mut Recorder| {
        store.cancel();
        let data = store.fetch().await;
        response.write(data.as_bytes()).unwrap();
    };

    let store = SpyStore::new(&clock, HELLO);
    let left = leave(&clock, ms(5), async |_, response| naive(&store, response).await);
    store.assert_was_told_to_cancel();
    assert!(fails(|| left.response.assert_untouched()));

    let store = SpyStore::new(&clock, HELLO);
    let stayed = stay(&clock, async |_, response| naive(&store, response).await);
    assert_eq!(stayed.response.text(), HELLO);
    assert!(fails(|| store.assert_was_not_told_to_cancel()));
}

/// Negative control: a fetch that was started as a task of its own goes on although nobody waits for its result.
#[test]
fn control_a_fetch_in_a_task_of_its_own_runs_to_its_end() {
    let bubble = Bubble::new();
    let clock = bubble.clock().clone();
    let store = Rc::new(SpyStore::new(&clock, HELLO));
    let request = clock.context().with_cancel();
    let client = request.canceller();
    clock.schedule(ms(25), move || client.cancel());

    let slot = Rc::new(RefCell::new(None));
    bubble.spawn({
        let (store, slot) = (Rc::clone(&store), Rc::clone(&slot));
        async move { *slot.borrow_mut() = Some(store.fetch().await) }
    });
    let mut response = Recorder::new();
    bubble.run(first_of_slot_or_end(&request, &slot, &store, &mut response));

    response.assert_untouched();
    store.assert_was_told_to_cancel();
    assert_eq!(slot.borrow().as_deref(), Some(HELLO), "built for nobody");
    assert_eq!(store.built.get(), HELLO.len());
    assert_eq!(clock.elapsed(), ms(120));
}

/// The server of that control: it looks into the slot every millisecond until there is a result or the end.
async fn first_of_slot_or_end(
    ctx: &Context,
    slot: &RefCell<Option<String>>,
    store: &SpyStore,
    response: &mut Recorder,
) {
    while slot.borrow().is_none() {
        if ctx.sleep(ms(1)).await.is_err() {
            return store.cancel();
        }
    }
    let data = slot.borrow().clone().unwrap_or_default();
    response.write(data.as_bytes()).unwrap();
}
