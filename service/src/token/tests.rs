//! What is wrong with a token, one thing at a time; and the key set, its server and its clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bequest::{CancelScope, Context};
use bequest_http::Server;
use bequest_http::server::Tls;
use bequest_test::Clock;
use http::StatusCode;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::AuthClient;
use super::issuer::SigningKey;
use super::{Algorithm, KeySet, Verifier};
use crate::torture::Scratch;
use crate::trust::Trust;

#[allow(
    dead_code,
    reason = "shared with the tests from outside, and each uses a part of it"
)]
#[path = "../../tests/service/support/authority.rs"]
mod authority;

use authority::Authority;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "bequest";

/// An issuer on loopback, a verifier of its tokens, and the clock by which they are judged.
struct Stage {
    key: SigningKey,
    verifier: Verifier,
    clock: Clock,
    served: Arc<Served>,
    server: Issuer,
}

/// A server of the key set, which ends with its scope.
struct Issuer {
    address: SocketAddr,
    scope: CancelScope,
    task: tokio::task::JoinHandle<()>,
}

/// What the issuer serves, and how often it was asked.
#[derive(Default)]
struct Served {
    set: std::sync::Mutex<String>,
    asked: AtomicUsize,
    broken: AtomicBool,
    /// It takes questions and says nothing.
    hangs: AtomicBool,
}

impl Stage {
    async fn set() -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        Stage::on(listener, url, None, &Trust::open(None).unwrap())
    }

    /// A stage whose issuer speaks TLS, by a certificate of `theirs`, and whose verifier trusts the authorities in `pem`.
    async fn behind_tls(theirs: &Authority, pem: &str) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        let tls = Tls::new(theirs.certify("localhost").server());
        Stage::on(listener, url, Some(tls), &trust(pem))
    }

    fn on(listener: TcpListener, url: String, tls: Option<Tls>, trust: &Trust) -> Stage {
        let key = key();
        let served = Arc::new(Served::default());
        *served.set.lock().unwrap() = json!({ "keys": [key.public()] }).to_string();
        let clock = Clock::new();
        // A whole second, as claims have it.
        clock.set_wall(SystemTime::now());
        clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(&clock)));
        let client = AuthClient::new(trust.http());
        let keys = KeySet::new(url.parse().unwrap(), Algorithm::EdDsa, client);
        Stage {
            key,
            verifier: Verifier::new(ISSUER.into(), AUDIENCE.into(), keys),
            clock,
            server: Issuer::start(listener, tls, &served),
            served,
        }
    }

    fn now(&self) -> u64 {
        seconds(&self.clock)
    }

    /// Claims with which a token is taken.
    fn claims(&self) -> Value {
        let now = self.now();
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "nbf": now, "exp": now + 300 })
    }

    /// The token with these changes to its claims; `null` leaves a claim out.
    fn token(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        self.key.sign(&claims)
    }

    /// A good payload under this header, with this signature.
    fn forged(&self, header: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(&self.claims()));
        let signature = sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn verify(&self, token: &str) -> Result<String, String> {
        let verified = self.verifier.verify(&self.clock.context(), token).await;
        verified.map(|user| user.id).map_err(|error| {
            assert!(error.is_refused(), "{error}");
            error.to_string()
        })
    }

    fn asked(&self) -> usize {
        self.served.asked.load(Ordering::SeqCst)
    }

    fn kid(&self) -> String {
        self.key.public()["kid"].as_str().unwrap().to_string()
    }
}

impl Issuer {
    fn start(listener: TcpListener, tls: Option<Tls>, served: &Arc<Served>) -> Issuer {
        let router = Router::new()
            .route("/keys", get(serve))
            .with_state(Arc::clone(served));
        let (address, scope) = (
            listener.local_addr().unwrap(),
            Context::background().with_cancel(),
        );
        let ctx = scope.context();
        let builder = match tls {
            Some(tls) => Server::builder().tls(tls),
            None => Server::builder(),
        };
        let task =
            tokio::spawn(async move { builder.serve(listener, router, &ctx).await.map(drop).unwrap() });
        Issuer { address, scope, task }
    }
}

/// Since 1970.
fn seconds(clock: &Clock) -> u64 {
    let since = clock.wall().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Trusts the authority in `pem`, as a file that an operator names.
fn trust(pem: &str) -> Trust {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("authorities.pem");
    std::fs::write(&file, pem).unwrap();
    Trust::open(Some(&file)).unwrap()
}

fn key() -> SigningKey {
    let scratch = Scratch::new().unwrap();
    SigningKey::open(&scratch.path().join("key")).unwrap()
}

async fn serve(State(served): State<Arc<Served>>) -> Result<String, StatusCode> {
    served.asked.fetch_add(1, Ordering::SeqCst);
    if served.hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    if served.broken.load(Ordering::SeqCst) {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    Ok(served.set.lock().unwrap().clone())
}

#[tokio::test]
async fn a_good_token_is_taken() {
    let stage = Stage::set().await;
    for changes in [
        json!({}),
        json!({ "aud": ["another", AUDIENCE] }),
        // Five seconds, by which clocks may differ.
        json!({ "exp": stage.now() as f64 - 4.9 }),
        json!({ "nbf": stage.now() + 5 }),
        json!({ "exp": stage.now() as f64 + 0.5 }),
        json!({ "gender": "female", "age": 42, "unknown": { "a": [1] } }),
    ] {
        assert_eq!(
            stage.verify(&stage.token(changes.clone())).await.as_deref(),
            Ok("ann"),
            "{changes}"
        );
    }
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn a_claim_that_is_wrong_or_missing_or_of_the_wrong_type_is_refused() {
    let stage = Stage::set().await;
    let now = stage.now();
    for changes in [
        json!({ "iss": "https://another.example" }),
        json!({ "iss": format!("{ISSUER}/") }),
        json!({ "iss": null }),
        json!({ "iss": [ISSUER] }),
        json!({ "aud": "another" }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "aud": { AUDIENCE: true } }),
        json!({ "exp": now as f64 - 5.1 }),
        json!({ "exp": null }),
        json!({ "exp": (now + 300).to_string() }),
        json!({ "exp": true }),
        json!({ "exp": [now + 300] }),
        json!({ "nbf": now as f64 + 5.1 }),
        json!({ "nbf": now + 60 }),
        json!({ "nbf": null }),
        json!({ "nbf": now.to_string() }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": "ann\nroot" }),
        json!({ "sub": "a".repeat(256) }),
        json!({ "age": "42" }),
        json!({ "age": 256 }),
    ] {
        assert!(
            stage.verify(&stage.token(changes.clone())).await.is_err(),
            "{changes}"
        );
    }
    // The same claim twice: which of the two counts is nobody's to guess. All of these are signed by the issuer.
    let header = json!({ "alg": "EdDSA", "kid": stage.kid() });
    let payload = |more: &str| {
        let exp = now + 60;
        format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"ann","nbf":{now},"exp":{exp}{more}}}"#)
    };
    let signed = |payload: &str| stage.key.sign_text(&header, payload);
    assert!(stage.verify(&signed(&payload(""))).await.is_ok());
    for payload in [
        payload(r#","sub":"root""#),
        payload(&format!(r#","exp":{}"#, now + 9_999_999)),
        payload(r#","aud":"another""#),
        payload("") + "{}",
        payload("").replace('{', "[").replace('}', "]"),
        String::new(),
        "null".into(),
    ] {
        assert!(stage.verify(&signed(&payload)).await.is_err(), "{payload}");
    }
    let long = payload(&format!(r#","padding":"{}""#, "a".repeat(20 * 1024)));
    let error = stage.verify(&signed(&long)).await.unwrap_err();
    assert!(error.contains("too long"), "20 KiB, well signed: {error}");
}

#[tokio::test]
async fn a_token_expires_and_becomes_good_by_the_clock() {
    let stage = Stage::set().await;
    let token = stage.token(json!({ "nbf": stage.now() + 60 }));
    assert!(stage.verify(&token).await.is_err());
    stage.clock.advance(Duration::from_secs(60));
    assert!(stage.verify(&token).await.is_ok());
    stage.clock.advance(Duration::from_secs(300));
    assert!(stage.verify(&token).await.unwrap_err().contains("expired"));
}

#[tokio::test]
async fn a_header_that_chooses_for_itself_is_refused() {
    let stage = Stage::set().await;
    let kid = stage.kid();
    let public = stage.key.public();
    let secret = URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap();
    let by_public_key = |message: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        hmac::sign(&key, message).as_ref().to_vec()
    };
    let none = |_: &[u8]| Vec::new();
    for (header, sign) in [
        (json!({ "alg": "none" }), &none as &dyn Fn(&[u8]) -> Vec<u8>),
        (json!({ "alg": "None", "kid": kid }), &none),
        (json!({ "alg": "EdDSA", "kid": kid }), &none),
        (json!({ "alg": "HS256", "kid": kid }), &by_public_key),
        (json!({ "alg": "EdDSA", "kid": kid }), &by_public_key),
        (json!({ "alg": "ES256", "kid": kid }), &none),
        (json!({ "kid": kid }), &none),
        (json!({ "alg": ["EdDSA"], "kid": kid }), &none),
    ] {
        let token = stage.forged(&header, sign);
        assert!(stage.verify(&token).await.is_err(), "{header}");
    }
    let claims = stage.claims().to_string();
    // A key that the token brings along, or says where to find, is nobody's: each is well signed with that key.
    let other = key();
    let theirs = other.public();
    let url = format!("http://{}/keys", stage.server.address);
    for header in [
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "EdDSA", "kid": theirs["kid"] }),
        json!({ "alg": "EdDSA", "kid": kid }),
        json!({ "alg": "EdDSA", "kid": kid, "jwk": theirs }),
        json!({ "alg": "EdDSA", "jwk": theirs }),
        json!({ "alg": "EdDSA", "kid": url, "jku": url, "x5u": url }),
    ] {
        let token = other.sign_text(&header, &claims);
        assert!(stage.verify(&token).await.is_err(), "{header}");
    }
    // Signed by the issuer itself, under a header that is not a token's or asks for what is not understood.
    for header in [
        json!({ "alg": "ES256", "kid": kid }),
        json!({ "alg": "eddsa", "kid": kid }),
        json!({ "alg": "EdDSA", "kid": kid, "typ": "dpop+jwt" }),
        json!({ "alg": "EdDSA", "kid": kid, "typ": 7 }),
        json!({ "alg": "EdDSA", "kid": kid, "crit": ["exp"], "exp": 1 }),
        json!({ "alg": "EdDSA", "kid": kid, "crit": [] }),
        json!({ "alg": "EdDSA", "kid": "a".repeat(129) }),
        json!({ "alg": "EdDSA", "kid": [kid] }),
        json!([{ "alg": "EdDSA", "kid": kid }]),
    ] {
        let token = stage.key.sign_text(&header, &claims);
        assert!(stage.verify(&token).await.is_err(), "{header}");
    }
    // The controls: the same with a header as it should be.
    for header in [
        json!({ "alg": "EdDSA", "kid": kid }),
        json!({ "alg": "EdDSA", "kid": kid, "typ": "at+JWT", "unknown": 1 }),
        json!({ "alg": "EdDSA" }),
    ] {
        let token = stage.key.sign_text(&header, &claims);
        assert!(stage.verify(&token).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn a_token_that_was_touched_is_refused() {
    let stage = Stage::set().await;
    let good = stage.token(json!({}));
    assert!(stage.verify(&good).await.is_ok());
    let parts: Vec<_> = good.split('.').collect();
    let root = URL_SAFE_NO_PAD.encode(stage.claims().to_string().replace("ann", "root"));
    for bad in [
        format!("{good}."),
        format!(".{good}"),
        format!("{good} "),
        format!("{good}="),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{root}.{}", parts[0], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        String::new(),
        "..".into(),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
        format!("{}.{}.{}", parts[0], "A".repeat(20 * 1024), parts[2]),
    ] {
        assert!(stage.verify(&bad).await.is_err(), "{bad:.80}");
    }
}

#[tokio::test]
async fn a_storm_of_unknown_keys_fetches_the_set_once_a_minute() {
    let stage = Stage::set().await;
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());
    for minute in 1..=3 {
        stage.clock.advance(Duration::from_secs(60));
        for number in 0..200 {
            let header = json!({ "alg": "EdDSA", "kid": format!("unknown-{number}") });
            assert!(
                stage
                    .verify(&stage.forged(&header, |_| vec![0; 64]))
                    .await
                    .is_err()
            );
        }
        assert_eq!(stage.asked(), 1 + minute);
    }
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found_and_the_old_set_outlives_its_server() {
    let stage = Stage::set().await;
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());

    let next = key();
    *stage.served.set.lock().unwrap() = json!({ "keys": [stage.key.public(), next.public()] }).to_string();
    let token = next.sign(&stage.claims());
    assert!(
        stage.verify(&token).await.is_err(),
        "the set was fetched less than a minute ago"
    );
    stage.clock.advance(Duration::from_secs(60));
    assert!(stage.verify(&next.sign(&stage.claims())).await.is_ok());

    for broken in ["", "{}", r#"{"keys":[]}"#] {
        *stage.served.set.lock().unwrap() = broken.into();
        stage.clock.advance(Duration::from_secs(60));
        let header = json!({ "alg": "EdDSA", "kid": "unknown" });
        assert!(
            stage
                .verify(&stage.forged(&header, |_| vec![0; 64]))
                .await
                .is_err()
        );
        assert!(
            stage.verify(&stage.token(json!({}))).await.is_ok(),
            "what is known stays: {broken:?}"
        );
    }
    stage.served.broken.store(true, Ordering::SeqCst);
    stage.clock.advance(Duration::from_secs(3600));
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());
}

#[tokio::test]
async fn a_set_that_is_too_long_is_not_read() {
    let stage = Stage::set().await;
    let padding = "a".repeat(64 * 1024);
    *stage.served.set.lock().unwrap() =
        json!({ "keys": [stage.key.public()], "padding": padding }).to_string();
    let error = stage
        .verifier
        .verify(&stage.clock.context(), &stage.token(json!({})))
        .await
        .unwrap_err();
    assert!(!error.is_refused(), "it is not the token's fault: {error}");
    // As soon as there is a set, it is well: without one it is asked for every second.
    *stage.served.set.lock().unwrap() = json!({ "keys": [stage.key.public()] }).to_string();
    stage.clock.advance(Duration::from_secs(1));
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());
}

#[tokio::test]
async fn a_client_that_leaves_disturbs_no_fetch() {
    let stage = Stage::set().await;
    let ctx = stage.clock.context().with_cancel();
    ctx.cancel();
    let error = stage
        .verifier
        .verify(&ctx, &stage.token(json!({})))
        .await
        .unwrap_err();
    assert!(error.canceled().is_some());
    // The fetch that it began goes on, and whoever comes next finds it, or its result.
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());
    assert_eq!(stage.asked(), 1);
}

/// The fetch has two seconds, whatever its request has.
#[tokio::test]
async fn an_issuer_that_hangs_costs_the_budget_of_the_step_and_none_of_the_keys() {
    let stage = Stage::set().await;
    let token = stage.token(json!({ "exp": stage.now() + 7200 }));
    stage.served.hangs.store(true, Ordering::SeqCst);
    {
        let ctx = stage.clock.context();
        let mut verify = std::pin::pin!(stage.verifier.verify(&ctx, &token));
        let asked = async {
            while stage.asked() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            early = &mut verify => panic!("nobody has answered: {early:?}"),
            () = asked => stage.clock.advance(Duration::from_secs(2)),
        }
        let error = verify.await.unwrap_err();
        assert!(!error.is_refused(), "it is not the token's fault");
        assert!(error.to_string().contains("key set: 2s budget"), "{error}");
    }
    stage.served.hangs.store(false, Ordering::SeqCst);
    stage.clock.advance(Duration::from_secs(1));
    assert!(stage.verify(&token).await.is_ok());

    // With a set at hand nobody waits for the next one: it is asked for beside them.
    stage.served.hangs.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        stage.clock.advance(Duration::from_secs(600));
        assert!(stage.verify(&token).await.is_ok());
    }
}

#[tokio::test]
async fn a_key_set_is_fetched_over_tls() {
    let authority = Authority::new();
    let stage = Stage::behind_tls(&authority, &authority.pem()).await;
    assert!(stage.verify(&stage.token(json!({}))).await.is_ok());
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn a_key_set_of_somebody_who_is_not_trusted_is_not_read_and_the_error_says_why() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let stage = Stage::behind_tls(&theirs, &ours.pem()).await;
    let token = stage.token(json!({}));
    let error = stage
        .verifier
        .verify(&stage.clock.context(), &token)
        .await
        .unwrap_err();
    assert!(!error.is_refused(), "it is not the token's fault");
    let said = error.to_string();
    for part in [
        "key set at https://localhost:",
        "waiting for a connection",
        "UnknownIssuer",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(stage.asked(), 0);
}

/// The issuer's place is taken by somebody with a certificate of another authority, and a key of their own.
#[tokio::test]
async fn an_impostor_at_the_issuers_address_changes_no_key() {
    let (theirs, stranger) = (Authority::new(), Authority::new());
    // The control: who trusts the stranger as well is given the stranger's keys.
    for (pem, is_fooled) in [(theirs.pem(), false), (theirs.pem() + &stranger.pem(), true)] {
        let stage = Stage::behind_tls(&theirs, &pem).await;
        let old = stage.token(json!({}));
        assert!(stage.verify(&old).await.is_ok());
        let forger = key();
        *stage.served.set.lock().unwrap() = json!({ "keys": [forger.public()] }).to_string();

        // With the server its connections end, so that there is another handshake.
        stage.server.scope.cancel();
        stage.server.task.await.unwrap();
        let listener = TcpListener::bind(stage.server.address).await.unwrap();
        let tls = Tls::new(stranger.certify("localhost").server());
        let _impostor = Issuer::start(listener, Some(tls), &stage.served);
        stage.clock.advance(Duration::from_secs(60));
        let forged = forger.sign(&json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "nbf": 0, "exp": seconds(&stage.clock) + 60,
        }));
        let verify = async |token: &str| stage.verifier.verify(&stage.clock.context(), token).await.is_ok();
        assert_eq!(verify(&forged).await, is_fooled);
        assert_eq!(verify(&old).await, !is_fooled, "the old set is in use");
        let asked = stage.served.asked.load(Ordering::SeqCst);
        assert_eq!(asked, 1 + usize::from(is_fooled), "nobody else was read");
    }
}
