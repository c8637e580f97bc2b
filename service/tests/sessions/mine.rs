//! One's own sessions: seen, listed, ended.

use crate::support::client;
use crate::{SESSION, ask, me, service, service_on, session, sign_in, token};

#[test]
fn a_session_is_who_one_is() {
    let service = service(&[]);
    let begun = sign_in(&service, "ann&gender=female&age=42");
    let id = begun["id"].as_str().unwrap();
    assert_eq!(begun["send_it_as"], SESSION);
    let answer = ask(&service, "GET", "/me", &[(SESSION, id)]);
    assert_eq!(answer.status, 200);
    let me = answer.json();
    assert_eq!(
        (&me["user"], &me["gender"], &me["age"]),
        (&"ann".into(), &"female".into(), &42.into())
    );
    assert_eq!(me["login_time"], begun["login_time"]);
    assert!(!answer.body.contains(id), "an id is told once");
}

#[test]
fn without_a_session_it_is_403_with_the_envelope() {
    let service = service(&[]);
    let guess = "A".repeat(43);
    for headers in [vec![], vec![(SESSION, "guess")], vec![(SESSION, guess.as_str())]] {
        for (method, target) in [
            ("GET", "/me"),
            ("GET", "/sessions"),
            ("DELETE", "/sessions/current"),
        ] {
            let answer = ask(&service, method, target, &headers);
            assert_eq!(answer.status, 403, "{method} {target}");
            assert_eq!(answer.json()["Code"], "no_session");
        }
    }
}

#[test]
fn without_a_session_it_is_401_with_a_challenge_where_the_setting_says_so() {
    let service = service(&["--no-session", "401"]);
    let answer = ask(&service, "GET", "/me", &[]);
    assert_eq!((answer.status, &answer.json()["Status"]), (401, &401.into()));
    assert_eq!(answer.json()["Code"], "no_session");
    let challenge = answer.header("www-authenticate").expect("RFC 9110, 15.5.2");
    assert!(challenge.starts_with("Session realm="), "{challenge}");
    let browser = ask(&service, "GET", "/me", &[("accept", "text/html")]);
    assert_eq!(browser.status, 303, "a browser that wants a page still gets one");
    let id = session(&service, "ann");
    assert_eq!(me(&service, &id), 200);
}

#[test]
fn signing_out_ends_it_at_once_and_for_good() {
    let service = service(&[]);
    let (gone, stays) = (session(&service, "ann"), session(&service, "ann"));
    assert_eq!((me(&service, &gone), me(&service, &stays)), (200, 200));
    let answer = ask(&service, "DELETE", "/sessions/current", &[(SESSION, &gone)]);
    assert_eq!(answer.json()["ended"], 1);
    assert_eq!(answer.json()["holds"], "at once");
    assert_eq!((me(&service, &gone), me(&service, &stays)), (403, 200));
}

#[test]
fn ones_sessions_are_listed_and_ended_one_by_one() {
    let service = service(&[]);
    let (first, second) = (session(&service, "ann"), sign_in(&service, "ann"));
    let other = session(&service, "ben");
    let listed = ask(&service, "GET", "/sessions", &[(SESSION, &first)]).json();
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{listed}");
    assert_eq!(
        sessions
            .iter()
            .filter(|session| session["current"] == true)
            .count(),
        1
    );

    let handle = second["session"].as_str().unwrap();
    let target = format!("/sessions/{handle}");
    assert_eq!(
        ask(&service, "DELETE", &target, &[(SESSION, &other)]).status,
        404,
        "not ben's"
    );
    assert_eq!(ask(&service, "DELETE", &target, &[(SESSION, &first)]).status, 200);
    assert_eq!(me(&service, second["id"].as_str().unwrap()), 403);
    assert_eq!((me(&service, &first), me(&service, &other)), (200, 200));
}

#[test]
fn signing_out_everywhere_ends_all_of_a_users() {
    let service = service(&[]);
    let anns: Vec<_> = (0..5).map(|_| session(&service, "ann")).collect();
    let ben = session(&service, "ben");
    let answer = ask(&service, "DELETE", "/sessions", &[(SESSION, &anns[0])]);
    assert_eq!(answer.json()["ended"], 5);
    for id in &anns {
        assert_eq!(me(&service, id), 403);
    }
    assert_eq!(me(&service, &ben), 200);
}

#[test]
fn an_operator_ends_all_of_a_users_and_nobody_else_does() {
    let service = service(&[]);
    let anns: Vec<_> = (0..3).map(|_| session(&service, "ann")).collect();
    let ben = session(&service, "ben");
    let operate =
        |target: &str, headers: &[(&str, &str)]| client::ask(service.admin, "DELETE", target, headers);

    // A page of somebody else's in an operator's browser.
    let answer = operate("/sessions?user=ann", &[("sec-fetch-site", "cross-site")]);
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (403, &"cross_site".into())
    );
    for nobody in ["/sessions", "/sessions?user="] {
        let answer = operate(nobody, &[]);
        assert_eq!((answer.status, &answer.json()["Code"]), (400, &"bad_user".into()));
    }
    // And a user who takes the public listener for that one ends their own.
    let answer = ask(&service, "DELETE", "/sessions?user=ann", &[(SESSION, &ben)]);
    assert_eq!(answer.json()["ended"], 1);
    assert_eq!((me(&service, &anns[0]), me(&service, &ben)), (200, 403));

    let ben = session(&service, "ben");
    let answer = operate("/sessions?user=ann", &[]);
    assert_eq!(
        (&answer.json()["ended"], &answer.json()["holds"]),
        (&3.into(), &"at once".into())
    );
    for id in &anns {
        assert_eq!(me(&service, id), 403);
    }
    assert_eq!(me(&service, &ben), 200);
    assert_eq!(operate("/sessions?user=ann", &[]).json()["ended"], 0);
}

#[test]
fn a_login_has_a_new_id_and_ends_the_session_that_it_came_with() {
    let service = service(&[]);
    let old = session(&service, "ann");
    let bearer = format!("Bearer {}", token(&service, "ann"));
    let answer = ask(
        &service,
        "POST",
        "/sessions",
        &[("authorization", &bearer), (SESSION, &old)],
    );
    let new = answer.json()["Result"]["id"].as_str().unwrap().to_string();
    assert_ne!(new, old);
    assert_eq!((me(&service, &old), me(&service, &new)), (403, 200));
}

#[test]
fn a_forged_identity_counts_for_nothing() {
    let service = service(&[]);
    let id = session(&service, "ann");
    for header in [
        "x-myapp-user",
        "x_myapp_user",
        "x.myapp.user",
        "x-forwarded-user",
        "remote-user",
    ] {
        assert_eq!(ask(&service, "GET", "/me", &[(header, "root")]).status, 403);
        let answer = ask(&service, "GET", "/me", &[(header, "root"), (SESSION, &id)]);
        assert_eq!(answer.json()["user"], "ann");
    }
}

#[test]
fn two_sessions_in_one_request_are_refused() {
    let service = service(&[]);
    let id = session(&service, "ann");
    let answer = ask(&service, "GET", "/me", &[(SESSION, &id), (SESSION, &id)]);
    assert_eq!(
        (answer.status, answer.json()["Code"].as_str()),
        (400, Some("ambiguous_session"))
    );
}

#[test]
fn nothing_that_was_secret_is_in_the_log_or_in_the_database() {
    let service = service(&[]);
    let (id, token) = (session(&service, "ann"), token(&service, "ann"));
    assert_eq!(me(&service, &id), 200);
    service.request_line("/me");
    for secret in [&id, &token] {
        assert!(!service.logged().contains(secret.as_str()));
        for entry in std::fs::read_dir(service.data()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found);
        }
    }
}

#[test]
fn sessions_outlive_the_service() {
    let mut first = service(&[]);
    let id = session(&first, "ann");
    let gone = session(&first, "ann");
    ask(&first, "DELETE", "/sessions/current", &[(SESSION, &gone)]);
    first.signal("TERM");
    assert!(first.ended().success());
    let second = service_on(&first.data());
    assert_eq!((me(&second, &id), me(&second, &gone)), (200, 403));
}
