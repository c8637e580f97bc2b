//! `/jobs`: work that outlives its request, and that a shutdown waits for.

use rusqlite::{Connection, OptionalExtension};

use crate::service;
use crate::support::client::ask;
use crate::support::instance::Instance;

/// Starts a job on a connection that is closed afterwards. Where to look for it.
fn start(service: &Instance) -> String {
    let answer = ask(service.public, "POST", "/jobs", &[]);
    assert_eq!(answer.status, 202);
    let location = answer.header("location").expect("a Location").to_string();
    assert_eq!(answer.json()["Result"]["location"], location.as_str());
    location
}

/// What the first job left in the database of a service that has ended.
fn digest(service: &Instance) -> Option<String> {
    let database = Connection::open(service.data().join("service.sqlite")).unwrap();
    let mut found = database
        .prepare("SELECT digest FROM digests WHERE job = 1")
        .unwrap();
    found.query_row([], |row| row.get(0)).optional().unwrap()
}

#[test]
fn a_job_outlives_its_request_and_keeps_the_user() {
    let service = service(&[]);
    let location = start(&service);
    service.request_line("/jobs");
    service.until_metric("bequest_connections", 0);
    assert_eq!(
        service.metric("bequest_jobs_running"),
        1,
        "though nobody is connected"
    );

    let job = service.until_json(&location, |job| job["state"] != "running");
    assert_eq!(job["state"], "finished");
    assert_eq!(job["started_by"], "127.0.0.1");
    assert!(job["detail"].as_str().unwrap().contains("words"), "{job}");
    assert!(job["passages"].as_u64().unwrap() >= 100, "{job}");
}

#[test]
fn a_shutdown_waits_for_a_running_job() {
    let mut service = service(&["--drain", "60s"]);
    start(&service);
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(service.event("stopped")["details"]["jobs_told"], 0);
    let digest = digest(&service).expect("it was finished");
    assert!(digest.contains("words"), "{digest}");
}

#[test]
fn a_job_that_is_not_finished_within_the_drain_is_told() {
    let mut service = service(&["--drain", "20ms"]);
    start(&service);
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(service.event("stopped")["details"]["jobs_told"], 1);
    assert_eq!(digest(&service), None);
}

#[test]
fn a_job_ends_at_its_own_limit() {
    let service = service(&["--job-limit", "50ms"]);
    let location = start(&service);
    let job = service.until_json(&location, |job| job["state"] != "running");
    assert_eq!(job["state"], "ended");
    assert!(
        job["detail"].as_str().unwrap().contains("the limit of a job"),
        "{job}"
    );
}

#[test]
fn jobs_are_bounded_in_number() {
    let service = service(&[]);
    let refusal = (0..64)
        .map(|_| ask(service.public, "POST", "/jobs", &[]))
        .find(|answer| answer.status != 202)
        .expect("a limit");
    assert_eq!(
        (refusal.status, &refusal.json()["Code"]),
        (503, &"too_many_jobs".into())
    );
    assert!(refusal.header("retry-after").is_some());
}

#[test]
fn an_unknown_job_is_not_found() {
    let service = service(&[]);
    assert_eq!(service.get("/jobs/7").json()["Code"], "no_job");
    let answer = service.get("/jobs/last");
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (400, &"bad_request".into())
    );
}
