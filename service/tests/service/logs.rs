//! The logs of the real binary: what is in their lines, where they go, and what a broken one costs.

use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::service;
use crate::support::client::{Client, ask};
use crate::support::instance::Instance;
use crate::support::{access, until};

/// A service that logs into files, and where they are.
fn with_files(flags: &[&str]) -> (Instance, PathBuf, PathBuf) {
    let folder = std::env::temp_dir();
    let name = |what| {
        let nanos = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        folder.join(format!("bequest-{what}-{}-{nanos}.log", std::process::id()))
    };
    let (access, error) = (name("access"), name("error"));
    let mut all = vec![
        "--access-log",
        access.to_str().unwrap(),
        "--error-log",
        error.to_str().unwrap(),
    ];
    all.extend(flags);
    (service(&all), access, error)
}

/// The lines of a file, once there are this many.
fn lines(path: &PathBuf, least: usize) -> Vec<String> {
    until(&format!("{least} lines in {}", path.display()), || {
        let text = fs::read_to_string(path).ok()?;
        let whole: Vec<_> = text.lines().map(str::to_string).collect();
        (text.ends_with('\n') && whole.len() >= least).then_some(whole)
    })
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn an_access_line_is_combined_to_the_letter() {
    let (service, access, error) = with_files(&["--access-format", "combined"]);
    let headers = [("user-agent", "Go-http-client/1.1")];
    ask(service.public, "DELETE", "/my/api?a=b", &headers);
    let line = lines(&access, 1).remove(0);
    let (before, after) = line.split_once(" [").unwrap();
    let (time, rest) = after.split_once("] ").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    assert_eq!(time.len(), "29/Jul/2017:19:08:30 +0900".len());
    let bytes = access::read(&line).unwrap()["bytes"].as_u64().unwrap();
    assert!(bytes > 0);
    assert_eq!(
        rest,
        format!("\"DELETE /my/api?a=b HTTP/1.1\" 404 {bytes} \"\" \"Go-http-client/1.1\"")
    );
    drop(service);
    fs::remove_file(access).unwrap();
    fs::remove_file(error).unwrap();
}

#[test]
fn an_error_line_has_the_keys_of_its_source() {
    let service = service(&[]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = ask(service.public, "GET", "/jobs/4711?x=y", &[("traceparent", trace)]);
    assert_eq!(answer.status, 404);
    let line = service.error_line("/jobs/4711");
    let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let source = [
        "Date",
        "FuncName",
        "FileName",
        "FileLine",
        "Method",
        "API",
        "StatusCode",
        "AppCode",
        "Message",
        "Item",
    ];
    assert_eq!(keys[..source.len()], source);
    assert_eq!(line["FuncName"], "bequest::routes::jobs::show");
    assert_eq!(line["FileName"], "jobs.rs");
    assert!(line["FileLine"].as_u64().unwrap() > 0);
    assert_eq!(
        (&line["Method"], &line["StatusCode"], &line["AppCode"]),
        (&json!("GET"), &json!(404), &json!("no_job"))
    );
    assert_eq!(line["Item"], json!({}), "nobody was identified");
    assert_eq!(line["TraceID"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["RequestID"], answer.header("x-request-id").unwrap());
    let date = line["Date"].as_str().unwrap();
    assert!(
        date.len() == "2017-07-29T10:08:30.000Z".len() && date.ends_with('Z'),
        "{date}"
    );
}

/// The function is the handler's, or the one that decided in its place: a name that people can look for.
#[test]
fn an_error_line_names_the_function_that_answered() {
    let service = service(&["--issuer", "http://127.0.0.1:9"]);
    let header = ("authorization", "Bearer a.b.c");
    for (method, target, headers, function) in [
        (
            "GET",
            "/search?q=x&timeout=1us",
            &[][..],
            "routes::search::search",
        ),
        ("GET", "/report?timeout=1us", &[], "routes::report::report"),
        ("GET", "/store", &[], "routes::store::fetch"),
        ("GET", "/me", &[], "session::middleware::extract::no_session"),
        ("POST", "/sessions", &[header], "routes::sessions::begun"),
        ("POST", "/token", &[], "routes::login::token"),
        ("DELETE", "/jobs/7", &[], "routes::jobs::cancel"),
        ("GET", "/nowhere", &[], "routes::not_found"),
        ("PUT", "/jobs", &[], "routes::method_not_allowed"),
    ] {
        let before = service.logged().lines().count();
        ask(service.public, method, target, headers);
        let line = until("its line", || {
            let logged = service.logged();
            let mut new = logged.lines().skip(before).map(parsed);
            new.find(|line| line["FuncName"].is_string())
        });
        assert_eq!(
            line["FuncName"],
            format!("bequest::{function}"),
            "{method} {target}"
        );
    }
}

#[test]
fn which_answers_are_logged_is_a_setting() {
    let cases: [(&str, &[u64]); 3] = [("non200", &[202, 404, 404]), ("4xx", &[404, 404]), ("5xx", &[])];
    for (which, expected) in cases {
        let (mut service, access, error) = with_files(&["--error-lines", which, "--job-drain", "1ms"]);
        ask(service.public, "POST", "/jobs", &[]);
        service.get("/nowhere");
        service.get("/store/last");
        service.get("/");
        service.signal("TERM");
        assert!(service.ended().success(), "all lines are written by then");
        let text = fs::read_to_string(&error).unwrap();
        let found: Vec<_> = text
            .lines()
            .map(|line| parsed(line)["StatusCode"].as_u64().unwrap())
            .collect();
        assert_eq!(found, expected, "{which}");
        fs::remove_file(access).unwrap();
        fs::remove_file(error).unwrap();
    }
}

#[test]
fn a_client_that_leaves_is_499_and_no_error() {
    let service = service(&[]);
    let client = Client::begin(service.public, "/store?key=left&ms=60000");
    service.until_metric("bequest_requests", 1);
    drop(client);
    let line = service.request_line("/store?key=left&ms=60000");
    assert_eq!(
        (&line["status"], &line["end"]),
        (&json!(499), &json!("client disconnected"))
    );
    assert!(line["budget_left_ms"].as_f64().unwrap() > 0.0);
    service.get("/nowhere");
    service.error_line("/nowhere");
    assert!(
        !service.logged().contains("\"API\":\"/store\""),
        "{}",
        service.logged()
    );
}

#[test]
fn the_same_answer_as_a_problem() {
    let service = service(&[]);
    let answer = ask(
        service.public,
        "GET",
        "/search?q=x&timeout=1us",
        &[("accept", "application/problem+json")],
    );
    assert_eq!(answer.status, 504);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(504), &json!("deadline_exceeded"))
    );
    assert_eq!(problem["set_by"], "search timeout");
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    let plain = service.get("/search?q=x&timeout=1us");
    assert_eq!(plain.json()["Result"]["set_by"], "search timeout");
    assert_eq!(plain.header("vary"), Some("accept"));
}

#[test]
fn files_are_reopened_on_sighup() {
    let (service, access, error) = with_files(&[]);
    service.get("/before");
    lines(&access, 1);
    lines(&error, 1);
    let moved = |path: &PathBuf| path.with_extension("1");
    fs::rename(&access, moved(&access)).unwrap();
    fs::rename(&error, moved(&error)).unwrap();
    service.signal("HUP");
    until("the new files", || {
        (access.exists() && error.exists()).then_some(())
    });
    service.get("/after");
    assert!(lines(&access, 1)[0].contains("/after"));
    assert_eq!(parsed(&lines(&error, 1)[0])["API"], "/after");
    for path in [&access, &error] {
        assert!(fs::read_to_string(moved(path)).unwrap().contains("/before"));
        fs::remove_file(moved(path)).unwrap();
    }
    drop(service);
    fs::remove_file(access).unwrap();
    fs::remove_file(error).unwrap();
}

/// `/dev/full` refuses every write, as a disk without room does.
#[cfg(target_os = "linux")]
#[test]
fn a_log_that_fails_is_counted_and_told_and_stalls_nobody() {
    let service = service(&["--error-log", "/dev/full"]);
    for _ in 0..100 {
        assert_eq!(service.get("/nowhere").status, 404);
    }
    let told = service.event("a log cannot be written");
    assert_eq!(told["details"]["log"], "error");
    let failures = || service.metric("bequest_log_failures_total{log=\"error\"}");
    until("a failure in the metrics", || (failures() > 0).then_some(()));
    assert_eq!(service.metric("bequest_log_failures_total{log=\"access\"}"), 0);
}

#[test]
fn what_is_queued_is_written_at_the_end() {
    let (mut service, access, error) = with_files(&[]);
    for _ in 0..200 {
        service.get("/nowhere");
    }
    service.signal("TERM");
    assert!(service.ended().success());
    assert_eq!(
        fs::read_to_string(&access)
            .unwrap()
            .lines()
            .filter_map(access::read)
            .count(),
        200
    );
    assert_eq!(
        fs::read_to_string(&error).unwrap().lines().map(parsed).count(),
        200
    );
    fs::remove_file(access).unwrap();
    fs::remove_file(error).unwrap();
}

#[test]
fn a_log_that_cannot_be_opened_refuses_to_start() {
    let mut command = crate::support::instance::command(crate::BINARY.as_ref());
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--error-log",
        "/nowhere/error.log",
    ]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/nowhere/error.log"), "{text}");
}

/// What the documentation tells an index of an error line is what stands in one.
#[test]
fn the_index_knows_every_key_of_an_error_line() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/elasticsearch.md")).unwrap();
    let blocks = page
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<Value> = blocks.map(parsed).collect();
    let example = blocks
        .iter()
        .find(|block| block["Date"].is_string())
        .expect("an example");
    let template = blocks
        .iter()
        .find(|block| block["template"].is_object())
        .expect("a template");
    let known = &template["template"]["mappings"]["properties"];
    let service = service(&[]);
    service.get("/nowhere");
    let line = service.error_line("/nowhere");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&line), keys(example), "the example is out of date");
    for key in keys(&line) {
        assert!(known[&key].is_object(), "the index does not know {key}");
    }
    for key in keys(&example["Item"])
        .into_iter()
        .chain(["Gender".into(), "Age".into()])
    {
        assert!(
            known["Item"]["properties"][&key].is_object(),
            "the index does not know Item.{key}"
        );
    }
}
