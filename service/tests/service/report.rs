//! `/report`: a long statement in the database that dies with its client.

use crate::service;
use crate::support::client::Client;

const RUNNING: &str = "bequest_statements_running";
const BEGUN: &str = "bequest_statements_total";
const INTERRUPTED: &str = "bequest_statements_interrupted_total";

/// A report that nobody would wait for.
const LONG: &str = "/report?ms=60000";

#[test]
fn an_abandoned_report_leaves_no_statement_behind() {
    let service = service(&[]);
    let client = Client::begin(service.public, LONG);
    service.until_metric(RUNNING, 1);
    assert_eq!(service.admin("/readyz").json()["statements_running"], 1);
    drop(client);
    service.until_metric(RUNNING, 0);
    assert_eq!(service.metric(INTERRUPTED), 1, "stopped, not finished");
    service.assert_no_handler_was_dropped();
    let last = service.get("/report/last").json();
    assert_eq!((&last["running"], &last["interrupted"]), (&0.into(), &1.into()));
    assert!(last["stopped_after_ms"].is_number(), "{last}");
    let line = service.request_line(LONG);
    assert_eq!(
        (&line["status"], &line["end"]),
        (&499.into(), &"client disconnected".into())
    );
}

#[test]
fn a_report_that_is_late_is_a_504_that_says_whose_limit_it_was() {
    let service = service(&[]);
    let answer = service.get("/report?ms=60000&timeout=100ms");
    let result = &answer.json()["Result"];
    assert_eq!(answer.status, 504);
    assert_eq!(result["set_by"], "report");
    assert_eq!(result["cause"], "the report's limit of 100ms");
    service.until_metric(RUNNING, 0);
    assert_eq!(service.metric(INTERRUPTED), 1);
}

#[test]
fn too_little_time_is_refused_before_any_statement() {
    let service = service(&[]);
    let before = service.metric(BEGUN);
    for timeout in ["5ms", "1us", "0s", "-1s"] {
        let answer = service.get(&format!("/report?timeout={timeout}"));
        assert_eq!(answer.status, 503, "{timeout}");
        assert_eq!(answer.json()["Code"], "too_little_time");
        assert_eq!(answer.json()["Result"]["least"], "20ms");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(service.metric(BEGUN), before, "the database was not asked");
    assert_eq!(service.get("/report?ms=1").status, 200);
    assert_eq!(service.metric(BEGUN), before + 1, "and this is how asking shows");
}

#[test]
fn the_second_report_shows_the_first_from_the_cache() {
    let service = service(&[]);
    let first = service.get("/report?ms=1").json();
    assert!(
        first["report"].as_str().unwrap().contains("entries, balance"),
        "{first}"
    );
    assert!(first["last_report"].is_null(), "{first}");
    let second = service.get("/report?ms=1").json();
    assert_eq!(second["last_report"], first["report"]);
}

#[test]
fn a_bad_timeout_is_refused() {
    let service = service(&[]);
    for timeout in ["", "1", "soon", "1d"] {
        let answer = service.get(&format!("/report?timeout={timeout}"));
        assert_eq!(
            (answer.status, &answer.json()["Code"]),
            (400, &"bad_timeout".into()),
            "{timeout:?}"
        );
    }
    let answer = service.get("/report?ms=many");
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (400, &"bad_request".into())
    );
}
