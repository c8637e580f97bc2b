//! `/jobs`: work that outlives its request, and that a shutdown waits for.

use rusqlite::{Connection, OptionalExtension};

use crate::support::client::ask;
use crate::support::instance::{Instance, command};
use crate::{BINARY, service};

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
    let mut service = service(&["--job-drain", "60s"]);
    start(&service);
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(service.event("stopped")["details"]["jobs_told"], 0);
    let digest = digest(&service).expect("it was finished");
    assert!(digest.contains("words"), "{digest}");
}

#[test]
fn a_job_that_is_not_finished_within_the_drain_is_told() {
    let mut service = service(&["--job-drain", "20ms"]);
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
    assert_eq!(service.metric("bequest_jobs_running"), 16);
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

#[test]
fn how_many_may_run_is_a_setting_and_a_place_is_given_back() {
    let service = service(&["--jobs", "1"]);
    let location = start(&service);
    assert_eq!(ask(service.public, "POST", "/jobs", &[]).status, 503);
    ask(service.public, "DELETE", &location, &[]);
    start(&service);
}

#[test]
fn a_job_is_cancelled_by_its_number_with_a_reason() {
    let service = service(&[]);
    let location = start(&service);
    let other = start(&service);
    let answer = ask(
        service.public,
        "DELETE",
        &format!("{location}?reason=not+needed"),
        &[],
    );
    assert_eq!(answer.status, 200);
    let job = answer.json();
    assert_eq!(
        (&job["state"], &job["reason"]),
        (&"cancelled".into(), &"not needed".into())
    );
    assert!(
        job["detail"]
            .as_str()
            .unwrap()
            .contains("not needed, says 127.0.0.1"),
        "{job}"
    );
    assert!(
        job["origin"].as_str().unwrap().contains("src/jobs/mod.rs:"),
        "{job}"
    );
    assert!(job["ended_at"].is_string());
    assert_eq!(
        service.get(&location).json(),
        job,
        "what was answered is what is kept"
    );
    assert_eq!(
        service.get(&other).json()["state"],
        "running",
        "the other goes on"
    );

    let again = ask(service.public, "DELETE", &location, &[]);
    assert_eq!((again.status, &again.json()["Code"]), (409, &"job_over".into()));
    let unknown = ask(service.public, "DELETE", "/jobs/4711", &[]);
    assert_eq!((unknown.status, &unknown.json()["Code"]), (404, &"no_job".into()));
    let unreadable = ask(service.public, "DELETE", &format!("{other}?reason=a%0Ab"), &[]);
    assert_eq!(
        (unreadable.status, &unreadable.json()["Code"]),
        (400, &"bad_reason".into())
    );
}

#[test]
fn a_job_keeps_what_the_logs_know_of_its_request() {
    let service = service(&[]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = ask(service.public, "POST", "/jobs", &[("traceparent", trace)]);
    let id = answer.header("x-request-id").unwrap().to_string();
    let location = answer.header("location").unwrap().to_string();
    ask(service.public, "DELETE", &location, &[]);
    let job = service.get(&location).json();
    assert_eq!(
        (&job["request_id"], &job["reason"]),
        (&id.as_str().into(), &"no reason given".into())
    );
    let line = service.event("a job has not finished");
    assert_eq!(
        line["details"]["request_id"],
        id.as_str(),
        "out of the job's own context"
    );
    assert_eq!(line["details"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn jobs_are_listed_newest_first() {
    let service = service(&[]);
    let (first, second) = (start(&service), start(&service));
    ask(service.public, "DELETE", &first, &[]);
    let list = service.get("/jobs").json();
    assert_eq!(list["running"], 1);
    let seen: Vec<_> = list["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["job"].to_string(), job["state"].to_string()))
        .collect();
    let number = |location: &str| location.trim_start_matches("/jobs/").to_string();
    assert_eq!(
        seen,
        [
            (number(&second), "\"running\"".into()),
            (number(&first), "\"cancelled\"".into())
        ]
    );
}

/// A service on the data of one that is gone.
fn on_the_data_of(old: &Instance) -> Instance {
    let mut command = command(BINARY.as_ref());
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(old.data());
    Instance::of(command)
}

#[test]
fn a_job_that_kill_9_ended_is_reported_as_interrupted() {
    let mut killed = service(&[]);
    let acknowledged: Vec<_> = (0..8).map(|_| start(&killed)).collect();
    let cancelled = start(&killed);
    ask(killed.public, "DELETE", &cancelled, &[]);
    killed.signal("KILL");
    killed.ended();

    let next = on_the_data_of(&killed);
    let reported = next.event("jobs were interrupted");
    assert_eq!(
        reported["details"]["jobs"].as_array().unwrap().len(),
        acknowledged.len()
    );
    for location in &acknowledged {
        let job = next.get(location).json();
        assert_eq!(
            (&job["state"], &job["started_by"]),
            (&"interrupted".into(), &"127.0.0.1".into())
        );
    }
    assert_eq!(
        next.get(&cancelled).json()["state"],
        "cancelled",
        "its end was written before"
    );
    let new = start(&next);
    assert!(
        !acknowledged.contains(&new) && new != cancelled,
        "no number is given twice"
    );
}

/// The control: without the mark at the start, the row of a job that nobody works on says that it runs.
#[test]
fn control_after_kill_9_the_row_alone_says_running() {
    let mut killed = service(&[]);
    start(&killed);
    killed.signal("KILL");
    killed.ended();
    let database = Connection::open(killed.data().join("service.sqlite")).unwrap();
    let state = database.query_row("SELECT state FROM jobs WHERE id = 1", [], |row| {
        row.get::<_, String>(0)
    });
    assert_eq!(state.unwrap(), "running");
}

#[test]
fn a_job_that_the_shutdown_ended_says_so_afterwards() {
    let mut stopped = service(&["--job-drain", "20ms"]);
    let location = start(&stopped);
    stopped.signal("TERM");
    assert!(stopped.ended().success());
    let job = on_the_data_of(&stopped).get(&location).json();
    assert_eq!(
        (&job["state"], &job["reason"]),
        (&"ended".into(), &"shutting down".into())
    );
}
