//! The live contexts as an event stream: the state, what changes, and why it ends.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::service;
use crate::support::client::{Client, ask, get};
use crate::support::events::{Event, EventStream};
use crate::support::instance::Instance;

const EVENTS: &str = "/debug/contexts.events";
const FOLLOWERS: &str = "bequest_contexts_followers";
const LONG: &str = "/store?key=open&ms=60000";

/// The ids of the rows of this name.
fn named(event: &Event, name: &str) -> BTreeSet<u64> {
    let rows = event.rows("live").iter().filter(|row| row["name"] == name);
    rows.map(|row| row["id"].as_u64().unwrap()).collect()
}

/// A service with one request open for long, and the id of that request's context as a follower is told of it.
fn with_a_request(flags: &[&str]) -> (Instance, Client, EventStream, u64) {
    let service = service(flags);
    let mut events = EventStream::follow(service.admin);
    let before = named(&events.next().unwrap().expect("the state"), "request");
    let client = Client::begin(service.public, LONG);
    let new = |event: &Event| named(event, "request").difference(&before).next().copied();
    let change = events.until("the request", |event| {
        event.kind == "change" && new(event).is_some()
    });
    let request = new(&change).expect("it was there");
    (service, client, events, request)
}

#[test]
fn the_first_event_is_the_whole_state_in_the_words_of_the_json() {
    let service = service(&[]);
    let client = Client::begin(service.public, LONG);
    service.until_metric("bequest_requests", 1);
    let mut events = EventStream::follow(service.admin);
    assert_eq!(events.head.status, 200);
    assert_eq!(events.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(events.head.header("cache-control"), Some("no-store"));
    let first = events.next().unwrap().expect("the state");
    assert_eq!((first.kind.as_str(), first.id), ("contexts", Some(1)));
    assert_eq!(named(&first, "event stream").len(), 1, "itself");
    assert_eq!(named(&first, "request").len(), 2, "its own, and the public one");

    let members = |value: &Value| {
        let members = value.as_object().unwrap().keys().cloned();
        members.collect::<BTreeSet<_>>()
    };
    let json = service.admin("/debug/contexts.json").json();
    assert_eq!(members(&first.data), members(&json));
    assert_eq!(members(&first.rows("live")[0]), members(&json["live"][0]));
    drop(client);
}

#[test]
fn a_request_is_told_of_when_it_begins_and_when_it_ends_and_why() {
    let (_service, client, mut events, request) = with_a_request(&[]);
    drop(client);
    let mut last = 0;
    let mut is_gone = false;
    let mut reasons = BTreeSet::new();
    while !is_gone || !reasons.contains("client disconnected") {
        let event = events.next().unwrap().expect("a change");
        assert_eq!(event.kind, "change");
        let id = event.id.expect("a number");
        assert!(id > last, "{id} after {last}");
        last = id;
        is_gone |= event.rows("gone").iter().any(|id| *id == request);
        reasons.extend(
            event
                .rows("ended")
                .iter()
                .filter_map(|row| row["reason"].as_str().map(str::to_string)),
        );
    }
}

#[test]
fn a_follower_that_leaves_is_gone_with_its_context() {
    let service = service(&[]);
    let mut events = EventStream::follow(service.admin);
    events.next().unwrap().expect("the state");
    service.until_metric(FOLLOWERS, 1);
    assert!(service.admin("/debug/contexts.txt").body.contains("event stream"));
    drop(events);
    service.until_metric(FOLLOWERS, 0);
    let text = service.admin("/debug/contexts.txt").body;
    let (live, ends) = text.split_once("\nlast ends").unwrap();
    assert!(!live.contains("event stream"), "{text}");
    assert!(ends.contains("client disconnected"), "{text}");
}

#[test]
fn followers_are_limited_and_each_that_leaves_makes_room() {
    let service = service(&[]);
    let mut all = Vec::new();
    let refused = loop {
        match EventStream::open(service.admin, EVENTS, &[]).unwrap() {
            stream if stream.head.status == 200 => all.push(stream),
            refused => break refused,
        }
    };
    assert_eq!(all.len() as u64, service.metric(FOLLOWERS));
    assert_eq!(refused.head.status, 503);
    let answer = get(service.admin, EVENTS).json();
    assert_eq!(answer["Code"], "too_many_followers");
    // Everything else is still answered.
    assert_eq!(service.admin("/livez").status, 200);
    let most = all.len() as u64;
    all.pop();
    service.until_metric(FOLLOWERS, most - 1);
    assert_eq!(EventStream::follow(service.admin).head.status, 200);
}

#[test]
fn a_deadline_of_the_followers_own_is_told_as_the_end() {
    let service = service(&[]);
    let mut events =
        EventStream::open(service.admin, EVENTS, &[("connect-timeout-ms", "300")]).expect("an answer");
    let end = events.until("the end", |event| event.kind == "end");
    assert_eq!(end.data["reason"], "deadline passed");
    assert!(events.next().unwrap().is_none(), "in good order");
}

#[test]
fn a_service_that_does_not_list_says_so() {
    let service = service(&["--no-inspect"]);
    let first = EventStream::follow(service.admin)
        .next()
        .unwrap()
        .expect("the state");
    assert_eq!(
        (&first.data["listing"], &first.data["live_in_all"]),
        (&false.into(), &0.into())
    );
}

#[test]
fn the_shutdown_ends_every_stream_at_once_and_says_so() {
    let mut service = service(&["--drain", "1h"]);
    let mut all: Vec<_> = (0..8).map(|_| EventStream::follow(service.admin)).collect();
    for events in &mut all {
        events.next().unwrap().expect("the state");
    }
    service.signal("TERM");
    for events in &mut all {
        let end = events.until("the end", |event| event.kind == "end");
        assert_eq!(end.data["reason"], "shutting down");
        assert!(events.next().unwrap().is_none(), "in good order");
    }
    assert!(service.ended().success());
}

#[test]
fn the_drain_can_be_watched_to_its_end() {
    let (mut service, client, mut events, request) = with_a_request(&["--drain", "1h"]);
    service.signal("TERM");
    events.until("the signal", |event| {
        let signal = |row: &Value| row["name"] == "signal" && row["reason"] == "SIGTERM received";
        event.rows("ended").iter().any(signal)
    });
    drop(client);
    events.until("the end of the last request", |event| {
        event.rows("gone").iter().any(|id| *id == request)
    });
    let end = events.until("the end", |event| event.kind == "end");
    assert_eq!(end.data["reason"], "shutting down");
    assert!(service.ended().success());
}

#[test]
fn a_second_signal_waits_for_no_stream() {
    let (mut service, _client, mut events, _) = with_a_request(&["--drain", "1h"]);
    service.signal("TERM");
    events.until("the signal", |event| {
        event.rows("ended").iter().any(|row| row["name"] == "signal")
    });
    service.signal("TERM");
    assert_eq!(service.ended().code(), Some(1));
}

#[test]
fn a_follower_that_never_reads_holds_nothing_up() {
    let mut service = service(&["--drain", "1h"]);
    let unread = Client::begin(service.admin, EVENTS);
    service.until_metric(FOLLOWERS, 1);
    service.signal("TERM");
    assert!(service.ended().success());
    drop(unread);
}

#[test]
fn only_a_get_is_taken() {
    let service = service(&[]);
    assert_eq!(ask(service.admin, "POST", EVENTS, &[]).status, 405);
}
