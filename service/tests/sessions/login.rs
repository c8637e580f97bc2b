//! Browsers: the way to the login page and back, and the cookie.

use crate::support::client;
use crate::{ask, me, service, session, token};

const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

#[test]
fn a_browser_is_sent_to_the_login_page_and_knows_the_way_back() {
    let service = service(&[]);
    for method in ["GET", "HEAD"] {
        let mut client = client::Client::connect(service.public).unwrap();
        client.send(method, "/me?a=1&b=2", &[PAGE]).unwrap();
        // The answer to HEAD has no body, whatever its length says; the redirect has none either way.
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 303);
        assert_eq!(
            answer.header("location"),
            Some("/login?next=%2Fme%3Fa%3D1%26b%3D2")
        );
    }
    let page = ask(&service, "GET", "/login?next=%2Fme%3Fa%3D1%26b%3D2", &[PAGE]);
    assert!(
        page.body.contains(r#"name=next value="/me?a=1&amp;b=2""#),
        "{}",
        page.body
    );
    assert_eq!(
        ask(&service, "DELETE", "/sessions", &[PAGE]).status,
        403,
        "only what looks is sent on"
    );
}

#[test]
fn the_way_back_does_not_leave_the_site() {
    let service = service(&[]);
    for next in [
        "//evil.example",
        "/%2509/evil.example",
        "/%5Cevil.example",
        "https://evil.example",
    ] {
        let page = ask(&service, "GET", &format!("/login?next={next}"), &[PAGE]);
        assert!(
            page.body.contains(r#"name=next value="/""#),
            "{next}: {}",
            page.body
        );
    }
}

#[test]
fn the_way_back_smuggles_nothing_into_the_page() {
    let service = service(&[]);
    let page = ask(&service, "GET", "/login?next=/%22%3E%3Cscript%3E", &[PAGE]);
    assert!(
        page.body.contains(r#"value="/&quot;&gt;&lt;script&gt;""#),
        "{}",
        page.body
    );
}

#[test]
fn a_cookie_signs_in_and_is_as_strict_as_cookies_can_be() {
    let service = service(&[]);
    let bearer = format!("Bearer {}", token(&service, "ann"));
    let answer = ask(
        &service,
        "POST",
        "/sessions?cookie=1",
        &[("authorization", &bearer)],
    );
    assert_eq!(answer.status, 201);
    assert!(answer.json()["Result"]["id"].is_null(), "scripts read answers");
    let set = answer.header("set-cookie").unwrap();
    for part in [
        "__Host-myapp-session=",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Path=/",
    ] {
        assert!(set.contains(part), "{part} in {set}");
    }
    assert!(!set.contains("Domain"));
    let cookie = set.split(';').next().unwrap().to_string();
    let answer = ask(
        &service,
        "GET",
        "/me",
        &[("cookie", &format!("a=1; {cookie}; b=2"))],
    );
    assert_eq!(answer.json()["user"], "ann");

    // Another site makes the browser sign its user out.
    for by in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let answer = ask(
            &service,
            "DELETE",
            "/sessions/current",
            &[("cookie", &cookie), by],
        );
        assert_eq!(
            (answer.status, answer.json()["Code"].as_str()),
            (403, Some("cross_site"))
        );
    }
    let answer = ask(
        &service,
        "DELETE",
        "/sessions/current",
        &[("cookie", &cookie), ("sec-fetch-site", "same-origin")],
    );
    assert_eq!(answer.status, 200);
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    let answer = ask(&service, "GET", "/me", &[("cookie", &cookie)]);
    assert_eq!(answer.status, 403);
    assert!(
        answer.header("set-cookie").unwrap().contains("Max-Age=0"),
        "a dead cookie is taken back"
    );
}

#[test]
fn a_cookie_and_a_header_together_are_refused() {
    let service = service(&[]);
    let id = session(&service, "ann");
    let cookie = format!("__Host-myapp-session={id}");
    let answer = ask(
        &service,
        "GET",
        "/me",
        &[("cookie", &cookie), ("x-myapp-session", &id)],
    );
    assert_eq!(answer.status, 400);
    assert_eq!(me(&service, &id), 200);
}
