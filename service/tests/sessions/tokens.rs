//! Tokens at the door. What is wrong with a token is tested beside the code, claim by claim.

use crate::issuer::Issuer;
use crate::support::authority::Authority;
use crate::support::instance::{Folder, command};
use crate::{BINARY, ask, service, service_on, token};

fn refusal(service: &crate::support::instance::Instance, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = ask(service, "POST", "/sessions", headers);
    (
        answer.status,
        answer.json()["Code"].as_str().unwrap_or("").to_string(),
    )
}

#[test]
fn one_good_token_in_one_header_and_nothing_else() {
    let service = service(&[]);
    let good = format!("Bearer {}", token(&service, "ann"));
    let long = format!("Bearer {}", "a".repeat(20 * 1024));
    let dots = format!("{good}.");
    let unauthorized = (401, "invalid_token".to_string());
    for headers in [
        vec![],
        vec![("authorization", "Bearer")],
        vec![("authorization", "Basic YW5uOg==")],
        vec![("authorization", "Bearer a.b.c")],
        vec![("authorization", long.as_str())],
        vec![("authorization", dots.as_str())],
        vec![("authorization", good.as_str()), ("authorization", good.as_str())],
    ] {
        assert_eq!(refusal(&service, &headers), unauthorized, "{headers:.100?}");
    }
    assert_eq!(
        ask(&service, "POST", "/sessions", &[("authorization", &good)]).status,
        201
    );
}

#[test]
fn the_tokens_of_one_service_are_not_those_of_another() {
    let (one, other) = (service(&[]), service(&[]));
    let foreign = format!("Bearer {}", token(&other, "ann"));
    assert_eq!(refusal(&one, &[("authorization", &foreign)]).0, 401);
}

#[test]
fn an_issuer_that_is_away_is_503_and_no_sign_in_page_pretends() {
    // Port 9 of this machine: nobody listens there.
    let service = service(&["--issuer", "http://127.0.0.1:9"]);
    let header = "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ";
    let answer = refusal(
        &service,
        &[("authorization", &format!("Bearer {header}.e30.AAAA"))],
    );
    assert_eq!(answer, (503, "issuer_unavailable".to_string()));
    assert_eq!(ask(&service, "POST", "/token?user=ann", &[]).status, 404);
    assert!(
        ask(&service, "GET", "/login", &[])
            .body
            .contains("authentication server")
    );
}

#[test]
fn an_issuer_elsewhere_is_believed_by_its_key_set() {
    let issuer = Issuer::start(None);
    let url = issuer.url();
    let service = service(&["--issuer", &url, "--issuer-algorithm", "ES256"]);
    let good = format!("Bearer {}", issuer.token(&url, "bequest", "ann"));
    assert_eq!(
        ask(&service, "POST", "/sessions", &[("authorization", &good)]).status,
        201
    );
    let foreign = format!("Bearer {}", issuer.token("http://another", "bequest", "ann"));
    assert_eq!(refusal(&service, &[("authorization", &foreign)]).0, 401);
}

#[test]
fn an_issuer_behind_tls_is_believed_if_its_authority_is_trusted() {
    let authority = Authority::new();
    let issuer = Issuer::start(Some(authority.certify("localhost").server()));
    let (url, folder) = (issuer.url(), Folder::new());
    let pem = folder.path().join("authorities.pem");
    std::fs::write(&pem, authority.pem()).unwrap();
    let good = format!("Bearer {}", issuer.token(&url, "bequest", "ann"));
    let flags = ["--issuer", &url, "--issuer-algorithm", "ES256"];

    let trusting = service(&[&flags[..], &["--trust", pem.to_str().unwrap()]].concat());
    assert_eq!(
        ask(&trusting, "POST", "/sessions", &[("authorization", &good)]).status,
        201
    );

    // The same without the file: nobody whom it trusts has signed the certificate.
    let doubting = service(&flags);
    let answer = ask(&doubting, "POST", "/sessions", &[("authorization", &good)]);
    assert_eq!(
        (answer.status, &answer.json()["Code"]),
        (503, &"issuer_unavailable".into())
    );
    let told = doubting.event("the key set was not fetched");
    let why = told["details"]["why"].as_str().unwrap();
    for part in [
        "key set at https://localhost:",
        "waiting for a connection",
        "UnknownIssuer",
    ] {
        assert!(why.contains(part), "{part:?} in {why}");
    }
    assert!(!doubting.logged().contains(&good[7..]), "and no token is told");
}

#[cfg(unix)]
#[test]
fn the_signing_key_is_made_once_and_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let mut first = service(&[]);
    first.event("ready");
    let path = first.data().join("issuer-key.pkcs8");
    let key = std::fs::read(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let old = format!("Bearer {}", token(&first, "ann"));
    first.signal("TERM");
    assert!(first.ended().success());

    let mut second = service_on(&first.data());
    assert_eq!(std::fs::read(&path).unwrap(), key);
    assert_eq!(
        ask(&second, "POST", "/sessions", &[("authorization", &old)]).status,
        201
    );
    second.signal("TERM");
    assert!(second.ended().success());

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(BINARY.as_ref())
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(first.data())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("others can read the signing key"));
}

#[test]
fn a_second_node_on_the_same_database_refuses_to_start() {
    let first = service(&[]);
    first.event("ready");
    let output = command(BINARY.as_ref())
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(first.data())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another node uses it"), "{said}");
}
