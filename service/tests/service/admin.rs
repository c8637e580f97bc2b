//! The admin listener: health, metrics, and the live contexts.

use crate::service;
use crate::support::client::{Client, ask};
use crate::support::until;

const LONG: &str = "/store?key=open&ms=60000";

#[test]
fn lives_and_is_ready() {
    let service = service(&[]);
    assert_eq!(service.admin("/livez").body, "ok\n");
    let ready = service.admin("/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &true.into()));
}

#[test]
fn is_not_ready_while_draining() {
    let mut service = service(&["--drain", "1h"]);
    let client = Client::begin(service.public, LONG);
    service.until_metric("bequest_requests", 1);
    service.signal("TERM");
    let draining = until("503 of /readyz", || {
        Some(service.admin("/readyz")).filter(|ready| ready.status == 503)
    });
    assert_eq!(draining.json()["ready"], false);
    assert_eq!(service.admin("/livez").status, 200, "it is alive all the same");
    drop(client);
    assert!(
        service.ended().success(),
        "the last request was all it waited for"
    );
}

#[test]
fn metrics_are_in_the_format_of_prometheus() {
    let service = service(&[]);
    service.get("/search?q=golang");
    service.get("/nowhere");
    let text = service.admin("/metrics").body;
    let mut family = "";
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let usual = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            assert_eq!(kind, usual, "{line}");
            family = name;
            continue;
        }
        let (sample, value) = line.split_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert_eq!(name, family, "{line}");
        assert!(labels.ends_with('}'), "{line}");
        value.parse::<u64>().unwrap();
    }
    assert_eq!(service.metric("bequest_answers_total{code=\"not_found\"}"), 1);
    assert_eq!(service.metric("bequest_log_lines_lost_total{log=\"access\"}"), 0);
    assert!(service.metric("bequest_requests_answered_total") >= 1);
}

#[test]
fn an_open_request_is_seen_live_and_its_end_with_the_reason() {
    let service = service(&[]);
    let client = Client::begin(service.public, LONG);
    service.until_metric("bequest_requests", 1);
    let request = until("the live request", || {
        let contexts = service.admin("/debug/contexts.json").json();
        let rows = contexts["live"].as_array().unwrap().clone();
        // The admin listener's own request is live too, for as long as it takes to answer this.
        rows.into_iter()
            .find(|row| row["name"] == "request" && row["age_ms"].as_u64() > Some(20))
    });
    let left = request["budget_left_ms"].as_u64().unwrap();
    assert!((1..30_000).contains(&left), "{request}");
    assert!(request["ended"].is_null());
    let connection = request["parents"][0].as_u64().unwrap();
    let text = service.admin("/debug/contexts.txt").body;
    let line = text.lines().find(|line| {
        line.trim_start()
            .starts_with(&format!("request {}", request["id"]))
    });
    assert!(
        line.unwrap().ends_with(" left") || line.unwrap().contains(" left  "),
        "{text}"
    );

    drop(client);
    let ended = until("the end in the list", || {
        let contexts = service.admin("/debug/contexts.json").json();
        let rows = contexts["ended"].as_array().unwrap().clone();
        rows.into_iter()
            .find(|row| row["id"] == connection || row["id"] == request["id"])
    });
    assert_eq!(ended["reason"], "client disconnected");
    assert_eq!(ended["kind"], "context canceled");
    let text = service.admin("/debug/contexts.txt").body;
    let (_, ends) = text.split_once("last ends, newest first").unwrap();
    assert!(ends.contains("client disconnected"), "{text}");
}

#[test]
fn the_page_shows_the_tree_and_has_a_way_to_follow_it_with_scripts_and_without() {
    let service = service(&[]);
    let page = service.admin("/debug/contexts");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(
        page.body
            .contains(r#"<noscript><meta http-equiv="refresh" content="1"></noscript>"#)
    );
    assert!(
        page.body.contains("\n    request "),
        "itself, below its connection: {}",
        page.body
    );
    assert_eq!(service.admin("/style.css").status, 200);
    let script = service.admin("/contexts.js");
    assert_eq!(
        (script.status, script.header("content-type")),
        (200, Some("text/javascript; charset=utf-8"))
    );
}

#[test]
fn what_is_asked_has_a_limit_though_the_listener_has_none() {
    let service = service(&["--request-limit", "7s"]);
    let rows = service.admin("/debug/contexts.json").json()["live"].clone();
    let own = rows.as_array().unwrap().iter();
    let own: Vec<_> = own.filter(|row| row["name"] == "admin request").collect();
    assert_eq!(own.len(), 1, "{rows}");
    let left = own[0]["budget_left_ms"].as_u64().unwrap();
    assert!((1..=7000).contains(&left), "{left}");
}

#[test]
fn without_inspection_nothing_is_listed() {
    let service = service(&["--no-inspect"]);
    assert!(
        service
            .admin("/debug/contexts.txt")
            .body
            .starts_with("listing is switched off\n0 live\n")
    );
}

#[test]
fn is_reached_by_address_alone() {
    let service = service(&[]);
    let as_host = |host: &str| ask(service.admin, "GET", "/debug/contexts.json", &[("host", host)]);
    for host in ["rebind.example", "rebind.example:7070", "127.0.0.1.example", ""] {
        let stream = ask(service.admin, "GET", "/debug/contexts.events", &[("host", host)]);
        for answer in [as_host(host), stream] {
            assert_eq!(
                (answer.status, &answer.json()["Code"]),
                (403, &"host".into()),
                "{host:?}"
            );
        }
    }
    for host in ["localhost", "127.0.0.1:7070", "[::1]"] {
        assert_eq!(as_host(host).status, 200, "{host:?}");
    }
}
