//! The end: drained, then told, and never a connection that is left hanging.

use std::io::ErrorKind;

use crate::service;
use crate::support::client::{Answer, Client};
use crate::support::instance::Instance;
use crate::support::until;

/// How many requests are open when the signal comes.
const OPEN: usize = 200;

/// Opens all of them and waits until the service works on each, or has answered it.
fn open(service: &Instance, target: impl Fn(usize) -> String) -> Vec<Client> {
    let clients = (0..OPEN)
        .map(|n| Client::begin(service.public, &target(n)))
        .collect();
    until("all requests to have begun", || {
        let begun = service.metric("bequest_requests") + service.metric("bequest_requests_answered_total");
        (begun >= OPEN as u64).then_some(())
    });
    clients
}

/// What each client got: an answer, or a closed connection.
fn outcomes(clients: Vec<Client>) -> Vec<Option<Answer>> {
    let outcome = |mut client: Client| match client.answer() {
        Ok(answer) => Some(answer),
        Err(error)
            if error.kind() == ErrorKind::UnexpectedEof || error.kind() == ErrorKind::ConnectionReset =>
        {
            None
        }
        Err(error) => panic!("neither answered nor closed: {error}"),
    };
    clients.into_iter().map(outcome).collect()
}

#[test]
fn open_requests_are_answered_within_the_drain() {
    let mut service = service(&["--drain", "1h"]);
    let clients = open(&service, |n| format!("/store?key={n}&ms=1000"));
    service.signal("TERM");
    let answered = outcomes(clients)
        .into_iter()
        .flatten()
        .filter(|answer| answer.status == 200)
        .count();
    assert_eq!(answered, OPEN);
    assert!(service.ended().success());
    let details = &service.event("stopped")["details"];
    assert_eq!(
        (&details["told_of_shutdown"], &details["dropped"]),
        (&0.into(), &0.into())
    );
    assert_eq!(details["why"], "SIGTERM received");
    let logged = service.logged();
    let last = logged.lines().last().unwrap();
    assert!(
        last.contains("\"stopped\""),
        "nothing is written after it: {last}"
    );
}

#[test]
fn requests_that_outlast_the_drain_are_told() {
    let mut service = service(&["--drain", "100ms"]);
    let clients = open(&service, |n| format!("/store?key={n}&ms=60000"));
    service.signal("TERM");
    for answer in outcomes(clients).into_iter().flatten() {
        assert_eq!(
            (answer.status, &answer.json()["Code"]),
            (503, &"shutting_down".into())
        );
    }
    assert!(service.ended().success());
    let lines = service.request_lines();
    let told = lines.iter().filter(|line| line["end"] == "shutting down").count();
    assert_eq!(told, OPEN, "each ended for this reason and no other");
    let details = &service.event("stopped")["details"];
    assert_eq!(
        (&details["told_of_shutdown"], &details["unfinished"]),
        (&OPEN.into(), &0.into())
    );
}

#[test]
fn a_long_statement_is_told_too() {
    let mut service = service(&["--drain", "50ms"]);
    let mut client = Client::begin(service.public, "/report?ms=60000");
    service.until_metric("bequest_statements_running", 1);
    service.signal("TERM");
    let answer = client.answer().expect("an answer");
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (503, &"shutting_down".into())
    );
    assert!(service.ended().success());
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut service = service(&["--drain", "1h"]);
    let mut client = Client::begin(service.public, "/store?key=open&ms=60000");
    service.until_metric("bequest_requests", 1);
    service.signal("TERM");
    until("the drain", || {
        (service.admin("/readyz").status == 503).then_some(())
    });
    service.signal("TERM");
    assert_eq!(service.ended().code(), Some(1));
    assert!(client.answer().is_err(), "there was no time to answer");
    assert!(
        service.logged().contains("stopped at once"),
        "{}",
        service.logged()
    );
}

#[test]
fn a_second_signal_does_not_wait_for_jobs_either() {
    let mut service = service(&["--drain", "1h", "--job-limit", "1h"]);
    let started = crate::support::client::ask(service.public, "POST", "/jobs", &[]);
    assert_eq!(started.status, 202);
    service.signal("TERM");
    until("the drain", || {
        (service.admin("/readyz").status == 503).then_some(())
    });
    service.signal("TERM");
    assert_eq!(service.ended().code(), Some(1));
}

#[test]
fn an_interrupt_is_a_signal_as_well() {
    let mut service = service(&[]);
    service.event("ready");
    service.signal("INT");
    assert!(service.ended().success());
    assert_eq!(service.event("stopped")["details"]["why"], "SIGINT received");
}

#[test]
fn a_signal_during_the_start_ends_it_too() {
    let mut service = service(&[]);
    service.signal("TERM");
    // It had printed its addresses and may still be opening its databases, or be ready already.
    assert!(
        service.ended().code().is_some(),
        "it ended by itself, and not by the signal"
    );
}
