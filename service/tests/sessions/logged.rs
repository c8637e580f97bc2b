//! What the logs say of a session, and what they never say.

use serde_json::json;

use crate::{SESSION, ask, service, session};

#[test]
fn an_error_line_says_whose_request_it_was_and_never_the_id() {
    let service = service(&[]);
    let id = session(&service, "ann");
    ask(&service, "GET", "/nowhere", &[(SESSION, &id)]);
    let item = &service.error_line("/nowhere")["Item"];
    assert_eq!(item["UserID"], "ann");
    assert!(item["LoginTime"].as_str().unwrap().ends_with('Z'), "{item}");
    let digest = item["Session"].as_str().unwrap();
    assert_eq!(digest.len(), 8, "a piece of its hash");
    assert_eq!(
        (&item["Gender"], &item["Age"]),
        (&json!(null), &json!(null)),
        "nobody asked for them"
    );
    assert!(!service.logged().contains(&id), "the id itself is in no line");
}

#[test]
fn gender_and_age_are_logged_when_asked_for() {
    let service = service(&["--log-personal"]);
    let id = session(&service, "ann");
    ask(&service, "GET", "/nowhere", &[(SESSION, &id)]);
    let item = service.error_line("/nowhere")["Item"].clone();
    let keys: Vec<_> = item.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["Session", "UserID", "LoginTime", "Gender", "Age"]);
}

#[test]
fn a_session_that_nobody_has_is_an_empty_record() {
    let service = service(&[]);
    let made_up = "A".repeat(43);
    ask(&service, "GET", "/me", &[(SESSION, &made_up)]);
    let line = service.error_line("/me");
    assert_eq!((&line["StatusCode"], &line["Item"]), (&json!(403), &json!({})));
}

#[test]
fn a_job_keeps_the_session_of_its_request() {
    let service = service(&[]);
    let id = session(&service, "ann");
    let answer = ask(&service, "POST", "/jobs", &[(SESSION, &id)]);
    let location = answer.header("location").unwrap().to_string();
    ask(&service, "DELETE", "/sessions/current", &[(SESSION, &id)]);
    let again = session(&service, "ann");
    let job = ask(&service, "DELETE", &location, &[(SESSION, &again)]).json();
    assert_eq!(job["user"], "ann", "though that session has ended");
    assert_eq!(service.event("a job has not finished")["details"]["user"], "ann");
}

#[test]
fn a_job_is_its_users_and_nobody_elses() {
    let service = service(&[]);
    let (ann, ben) = (session(&service, "ann"), session(&service, "ben"));
    let answer = ask(&service, "POST", "/jobs", &[(SESSION, &ann)]);
    let location = answer.header("location").unwrap().to_string();
    let strangers: [&[(&str, &str)]; 2] = [&[], &[(SESSION, &ben)]];
    for headers in strangers {
        for method in ["GET", "DELETE"] {
            let answer = ask(&service, method, &location, headers);
            assert_eq!((answer.status, &answer.json()["Code"]), (404, &json!("no_job")));
        }
        assert_eq!(ask(&service, "GET", "/jobs", headers).json()["jobs"], json!([]));
    }
    let mine = ask(&service, "GET", "/jobs", &[(SESSION, &ann)]).json();
    assert_eq!(
        (&mine["jobs"][0]["user"], &mine["jobs"][0]["state"]),
        (&json!("ann"), &json!("running"))
    );
}
