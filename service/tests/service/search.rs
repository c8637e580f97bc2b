//! `/search`: the web search, its budget, and its back end in all its moods.

use std::net::TcpListener;

use crate::service;
use crate::support::authority::Authority;
use crate::support::backend::{Backend, Event, Manner};
use crate::support::client::{Answer, Client, ask};
use crate::support::instance::{Folder, Instance};

/// What the back end's schema looks like, with one result.
const ONE_RESULT: &str =
    r#"{"responseData":{"results":[{"titleNoFormatting":"A <title>","url":"http://example.test/a"}]}}"#;

fn service_on(backend: &Backend, flags: &[&str]) -> Instance {
    let url = backend.url();
    let mut all = vec!["--search", url.as_str()];
    all.extend(flags);
    service(&all)
}

/// Asserts that the search ended at a deadline that was set by `scope`, for `cause`.
fn assert_late(answer: &Answer, scope: &str, cause: &str) {
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["Code"]),
        (504, &"deadline_exceeded".into()),
        "{body}"
    );
    assert_eq!(body["Result"]["set_by"], scope, "{body}");
    assert_eq!(body["Result"]["cause"], cause, "{body}");
}

/// A span below a minute, as Go writes it.
fn seconds(text: &str) -> f64 {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').expect("seconds"), 1.0),
    };
    number.parse::<f64>().expect("a number") * unit
}

#[test]
fn answers_with_results_and_the_budget() {
    let service = service(&[]);
    let answer = service.get("/search?q=golang&timeout=10s");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let body = answer.json();
    assert_eq!(body["query"], "golang");
    assert_eq!(body["timeout"], "10s");
    assert_eq!(
        body["count"].as_u64().unwrap() as usize,
        body["results"].as_array().unwrap().len()
    );
    let elapsed = body["elapsed"].as_str().unwrap();
    assert!(elapsed.ends_with('s') && elapsed != "0s", "{body}");
    let left = seconds(body["budget_left"].as_str().unwrap());
    assert!(
        left > 0.0 && left <= 5.0,
        "the service's limit of 5 s is the shorter one: {body}"
    );
}

#[test]
fn the_budget_travels_to_the_back_end_and_falls_on_the_way() {
    let service = service(&[]);
    let headers = [("bequest-timeout-ms", "3000"), ("accept", "application/json")];
    let body = ask(service.public, "GET", "/search?q=golang&timeout=10s", &headers).json();
    let names = ["budget", "budget_back_end", "budget_index", "budget_left"];
    let [here, back_end, index, left] = names.map(|name| seconds(body[name].as_str().expect(name)));
    assert!(
        here > 0.0 && here <= 3.0,
        "the caller's time is the shortest: {body}"
    );
    assert!(
        back_end <= here - 0.005,
        "5 ms are kept for the answer on the way: {body}"
    );
    assert!(
        index > 0.0 && index <= back_end,
        "the statement has what is left there: {body}"
    );
    assert!(left < here, "{body}");
}

#[test]
fn the_callers_time_is_a_deadline_of_its_own() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &[]);
    let headers = [("bequest-timeout-ms", "100")];
    let answer = ask(service.public, "GET", "/search?q=golang", &headers);
    assert_late(&answer, "caller", "the caller's bequest-timeout-ms");
    let spent = [("bequest-timeout-ms", "0")];
    let answer = ask(service.public, "GET", "/search?q=golang", &spent);
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (503, &"too_little_time".into())
    );
}

#[test]
fn a_timeout_shorter_than_the_way_is_a_504_too() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &[]);
    let answer = service.get("/search?q=golang&timeout=4ms");
    assert_late(&answer, "search timeout", "timeout=4ms in the query");
}

#[test]
fn finds_what_people_try_first() {
    let service = service(&[]);
    for query in ["golang", "context", "deadline", "%EC%B7%A8%EC%86%8C"] {
        let body = service.get(&format!("/search?q={query}")).json();
        assert!(body["count"].as_u64().unwrap() >= 3, "{query}: {body}");
        assert_eq!(body["timeout"], "0s");
    }
}

#[test]
fn is_a_page_for_browsers_whose_links_lead_somewhere() {
    let service = service(&[]);
    let accept = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let answer = ask(service.public, "GET", "/search?q=golang&timeout=1s", &accept);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    for part in [
        "<ol><li>",
        "results in ",
        "; timeout 1s",
        "; budget ",
        " here, ",
        " at the back end, ",
        " in its index; budget left ",
    ] {
        assert!(answer.body.contains(part), "{part:?} in {}", answer.body);
    }
    let (_, rest) = answer.body.split_once("<a href=\"/a/").unwrap();
    let (path, _) = rest.split_once('"').unwrap();
    let passage = service.get(&format!("/a/{path}"));
    assert_eq!(passage.status, 200);
    assert!(passage.body.contains("<h1>"));
    assert_eq!(service.get("/a/nothing/here").status, 404);
}

#[test]
fn refuses_what_it_does_not_understand() {
    let service = service(&[]);
    for (target, code) in [
        ("/search", "no_query"),
        ("/search?q=", "no_query"),
        ("/search?q=%20&timeout=1s", "no_query"),
        ("/search?q=golang&timeout=soon", "bad_timeout"),
        ("/search?q=golang&timeout=1", "bad_timeout"),
        ("/search?q=golang&timeout=", "bad_timeout"),
        ("/search?q=%ff&timeout", "bad_timeout"),
    ] {
        let answer = service.get(target);
        assert_eq!(
            (answer.status, &answer.json()["Code"]),
            (400, &code.into()),
            "{target}"
        );
    }
}

#[test]
fn a_spent_budget_is_a_504_that_says_whose_it_was() {
    let service = service(&[]);
    for timeout in ["1us", "0s", "-1s"] {
        let answer = service.get(&format!("/search?q=golang&timeout={timeout}"));
        assert_eq!(answer.json()["Result"]["set_by"], "search timeout", "{timeout}");
        assert_eq!(answer.json()["Result"]["mine"], true, "{timeout}");
    }
    let answer = service.get("/search?q=golang&timeout=1us");
    assert_late(&answer, "search timeout", "timeout=1µs in the query");
}

#[test]
fn a_timeout_never_lengthens_the_services_limit() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &["--search-limit", "150ms"]);
    for target in ["/search?q=golang&timeout=1h", "/search?q=golang"] {
        assert_late(
            &service.get(target),
            "search limit",
            "the service's limit of 150ms",
        );
    }
}

#[test]
fn a_back_end_that_hangs_is_left_at_the_timeout() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &[]);
    let answer = service.get("/search?q=golang&timeout=50ms");
    assert_late(&answer, "search timeout", "timeout=50ms in the query");
    assert!(matches!(backend.next(), Event::Asked(_)));
    assert_eq!(backend.next(), Event::Abandoned, "and it hears of it");
}

#[test]
fn the_request_limit_is_above_the_searchs_own() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &["--request-limit", "100ms"]);
    let answer = service.get("/search?q=golang&timeout=4s");
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json()["Result"]["set_by"], "request");
    assert_eq!(
        answer.json()["Result"]["mine"],
        false,
        "an outer limit, not the search's"
    );
}

#[test]
fn the_user_travels_to_the_back_end() {
    let backend = Backend::start(Manner::Answer("200 OK", ONE_RESULT));
    let service = service_on(&backend, &[]);
    let body = service.get("/search?q=a%20b%26c").json();
    assert_eq!(body["count"], 1);
    assert_eq!(body["results"][0]["title"], "A <title>");
    assert_eq!(body["results"][0]["url"], "http://example.test/a");
    assert_eq!(
        backend.next(),
        Event::Asked("/?v=1.0&q=a+b%26c&userip=127.0.0.1".into())
    );

    let accept = [("accept", "text/html")];
    let page = ask(service.public, "GET", "/search?q=%3Cb%3E", &accept).body;
    assert!(
        page.contains("<h1>&lt;b&gt;</h1>") && page.contains("A &lt;title&gt;"),
        "{page}"
    );
}

#[test]
fn a_client_that_leaves_stops_the_search_at_the_back_end() {
    let backend = Backend::start(Manner::Hang);
    let service = service_on(&backend, &["--search-limit", "1h", "--request-limit", "1h"]);
    let client = Client::begin(service.public, "/search?q=golang");
    assert_eq!(
        backend.next(),
        Event::Asked("/?v=1.0&q=golang&userip=127.0.0.1".into())
    );
    drop(client);
    assert_eq!(backend.next(), Event::Abandoned);
    service.assert_no_handler_was_dropped();
    let line = service.request_line("/search?q=golang");
    assert_eq!(
        (&line["status"], &line["end"]),
        (&499.into(), &"client disconnected".into())
    );
}

#[test]
fn a_back_end_that_misbehaves_is_a_502() {
    let moods = [
        (Manner::Answer("200 OK", "not JSON at all"), "not JSON"),
        (Manner::Answer("200 OK", "{}"), "responseData"),
        (Manner::Answer("500 Internal Server Error", ONE_RESULT), "500"),
        (Manner::Answer("204 No Content", ""), "204"),
        (Manner::Close, "could not be asked"),
    ];
    for (manner, hint) in moods {
        let backend = Backend::start(manner);
        let answer = service_on(&backend, &[]).get("/search?q=golang");
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["Code"]),
            (502, &"search_back_end".into()),
            "{manner:?}"
        );
        assert!(
            body["Result"]["message"].as_str().unwrap().contains(hint),
            "{manner:?}: {body}"
        );
    }
}

#[test]
fn a_back_end_that_is_not_there_is_a_502() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    let answer = service(&["--search", &url]).get("/search?q=golang");
    let message = answer.json()["Result"]["message"].to_string();
    assert_eq!(answer.status, 502);
    assert!(message.to_lowercase().contains("refused"), "{message}");
}

/// A back end behind TLS, and the file that says whom to trust for it.
fn behind_tls(manner: Manner) -> (Backend, Folder, String) {
    let (authority, folder) = (Authority::new(), Folder::new());
    let backend = Backend::start_with_tls(manner, authority.certify("localhost").server());
    let file = folder.path().join("authorities.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let file = file.to_str().unwrap().to_string();
    (backend, folder, file)
}

#[test]
fn a_back_end_behind_tls_is_asked_and_left_like_any_other() {
    let (backend, _folder, file) = behind_tls(Manner::Answer("200 OK", ONE_RESULT));
    let service = service_on(&backend, &["--trust", &file]);
    assert_eq!(service.get("/search?q=golang").json()["count"], 1);
    let asked = Event::Asked("/?v=1.0&q=golang&userip=127.0.0.1".into());
    assert_eq!(backend.next(), asked);

    let (backend, _folder, file) = behind_tls(Manner::Hang);
    let service = service_on(&backend, &["--trust", &file, "--search-limit", "1h"]);
    let client = Client::begin(service.public, "/search?q=golang");
    assert_eq!(backend.next(), asked);
    drop(client);
    assert_eq!(backend.next(), Event::Abandoned);
}

#[test]
fn a_back_end_that_is_not_trusted_is_a_502_that_says_why() {
    let (backend, _folder, _) = behind_tls(Manner::Answer("200 OK", ONE_RESULT));
    let answer = service_on(&backend, &[]).get("/search?q=golang");
    let body = answer.json();
    assert_eq!((answer.status, &body["Code"]), (502, &"search_back_end".into()));
    let message = body["Result"]["message"].as_str().unwrap();
    for part in ["waiting for a connection", "UnknownIssuer"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
}
