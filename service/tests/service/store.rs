//! `/store`: written for those who stay, stopped for those who leave.

use rusqlite::Connection;

use crate::service;
use crate::support::client::{Client, ask};

/// A fetch that nobody would wait for.
const LONG: &str = "/store?key=leaves&ms=60000";

#[test]
fn a_fetch_that_is_waited_for_is_written() {
    let service = service(&[]);
    let answer = service.get("/store?key=stays&ms=30");
    assert_eq!((answer.status, answer.body.as_str()), (200, "stays:abc\n"));

    let last = service.get("/store/last").json();
    assert_eq!(last["key"], "stays");
    assert_eq!(last["state"], "written");
    assert_eq!(last["written"], true);
    assert_eq!(last["key_in_store"], true);
    assert_eq!(last["pieces"], "3 of 3, 10ms each");
}

#[test]
fn a_fetch_whose_client_left_stops_and_writes_nothing() {
    let mut service = service(&[]);
    let client = Client::begin(service.public, LONG);
    service.until_json("/store/last", |last| last["state"] == "running");
    drop(client);

    let last = service.until_json("/store/last", |last| last["state"] != "running");
    assert_eq!(last["state"], "stopped");
    assert_eq!(last["written"], false);
    assert_eq!(last["key_in_store"], false);
    assert!(
        last["why"].as_str().unwrap().contains("client disconnected"),
        "{last}"
    );
    assert!(last["stopped_after_ms"].is_number(), "{last}");
    service.assert_no_handler_was_dropped();
    let line = service.request_line(LONG);
    // Whatever the handler said was sent in case the client had closed its sending side only; the log calls it left.
    assert_eq!(line["status"], 499);
    assert_eq!(line["end"], "client disconnected");

    // Once more, past every way in which the service itself could be wrong about it.
    assert_eq!(service.get("/store?key=stays&ms=10").status, 200);
    service.signal("TERM");
    assert!(service.ended().success());
    let database = Connection::open(service.data().join("service.sqlite")).unwrap();
    let keys: Vec<String> = database
        .prepare("SELECT key FROM answers")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(keys, ["stays"]);
}

#[test]
fn the_request_limit_stops_a_fetch_and_says_so() {
    let service = service(&["--request-limit", "100ms"]);
    assert_eq!(service.get(LONG).status, 504);
    let last = service.until_json("/store/last", |last| last["state"] != "running");
    assert_eq!(
        (&last["state"], &last["written"]),
        (&"stopped".into(), &false.into())
    );
    assert!(last["why"].as_str().unwrap().contains("deadline"), "{last}");
}

#[test]
fn a_post_is_fetched_too() {
    let service = service(&[]);
    let answer = ask(service.public, "POST", "/store?key=posted&ms=10", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "posted:a\n"));
}

#[test]
fn a_key_is_needed() {
    let service = service(&[]);
    let too_long = format!("/store?key={}", "k".repeat(201));
    for target in ["/store", "/store?key=", too_long.as_str()] {
        let answer = service.get(target);
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.json()["Code"], "key");
    }
    assert_eq!(service.get("/store/last").status, 404, "nothing was begun");
}
