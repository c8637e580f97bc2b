//! TLS: the server's certificate is verified, ours is shown, and everything else is as without.
#![cfg(feature = "tls")]

mod common;

use std::sync::Arc;

use bequest::Context;
use bequest_redis::rustls::crypto::ring;
use bequest_redis::rustls::{ClientConfig, RootCertStore};
use bequest_redis::{Client, Options, Step, redis};
use bequest_test::servers::{Pem, Redis};
use common::{HANGS, ROOT, blpop, command, eventually, is_whole, until_blocked, within};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority of our own, which nobody else trusts.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Not the name of those whom it certifies: they would seem to have signed themselves.
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certify(&self, host: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A server with a certificate for `host`, or `None` where there is no server.
fn server(authority: &Authority, host: &str, clients: Option<&Authority>) -> Option<Redis> {
    Redis::start_or_leave_out()?; // says so where it is not installed
    let identity = authority.certify(host);
    let clients = clients.map(Authority::pem);
    let pem = Pem {
        certificate: &identity.certificate,
        key: &identity.key,
        clients_authority: clients.as_deref(),
    };
    Some(Redis::start_with_tls(pem).unwrap())
}

fn url(server: &Redis) -> String {
    format!("rediss://{}/", server.tls_address())
}

fn trusting(server: &Redis, authority: &Authority) -> Options {
    let options = Options::new(url(server)).root_certificates(authority.pem());
    options.grace(HANGS).unblock_limit(HANGS)
}

#[tokio::test]
async fn everything_is_as_without_tls() {
    let authority = Authority::new();
    let Some(server) = server(&authority, "127.0.0.1", None) else {
        return;
    };
    let client = trusting(&server, &authority).open().unwrap();
    is_whole(&client).await;

    let request = Context::background().with_cancel();
    let pop = tokio::spawn({
        let (client, ctx) = (client.clone(), request.context());
        async move { client.cmd::<redis::Value>(&ctx, &blpop("other", 0.0)).await }
    });
    until_blocked(&client, 1).await;
    request.cancel();
    let error = within(pop).await.unwrap().unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");

    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();
    assert_eq!(
        within(client.cmd::<i64>(&ROOT, &command("PUBLISH news a")))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        within(news.receive(&ROOT)).await.unwrap().get_payload_bytes(),
        b"a"
    );

    server.restart();
    eventually("it is noticed", || {
        client.statistics().connected > 0 && format!("{client:?}").contains("has_connection: false")
    })
    .await;
    is_whole(&client).await;
}

/// What a control would do: whoever speaks plainly to that port is not served, so it is TLS that is spoken there.
#[tokio::test]
async fn control_without_tls_the_same_port_serves_nobody() {
    let authority = Authority::new();
    let Some(server) = server(&authority, "127.0.0.1", None) else {
        return;
    };
    let client = Client::open(format!("redis://{}/", server.tls_address())).unwrap();
    let request = Context::background().with_timeout(std::time::Duration::from_millis(200));
    assert!(within(client.set(&request, "k", "v")).await.is_err());
}

/// At once, not after the limit: trying again would change nothing.
#[tokio::test]
async fn a_certificate_that_nobody_we_trust_has_signed_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let Some(server) = server(&authority, "127.0.0.1", None) else {
        return;
    };
    let client = trusting(&server, &stranger)
        .connect_limit(HANGS * 2)
        .open()
        .unwrap();
    let errors = [
        within(client.set(&ROOT, "k", "v")).await.unwrap_err(),
        within(client.cmd::<redis::Value>(&ROOT, &blpop("jobs", 0.0)))
            .await
            .unwrap_err(),
        within(client.subscribe(&ROOT, ["news"])).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.step(), error.is_in_doubt()), (Step::Connecting, false));
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new();
    let Some(server) = server(&authority, "elsewhere.test", None) else {
        return;
    };
    let client = trusting(&server, &authority)
        .connect_limit(HANGS * 2)
        .open()
        .unwrap();
    let error = within(client.set(&ROOT, "k", "v")).await.unwrap_err();
    assert!(error.is_connection() && !error.is_in_doubt(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_that_wants_our_certificate_is_shown_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let Some(server) = server(&authority, "127.0.0.1", Some(&clients)) else {
        return;
    };
    let ours = clients.certify("client.test");
    let known = trusting(&server, &authority).client_certificate(ours.certificate, ours.key);
    is_whole(&known.open().unwrap()).await;

    let unknown = trusting(&server, &authority)
        .connect_limit(HANGS * 2)
        .open()
        .unwrap();
    let error = within(unknown.set(&ROOT, "k", "v")).await.unwrap_err();
    assert!(error.is_connection() && !error.is_in_doubt(), "{error}");
}

/// What a program has for everything else as well.
#[tokio::test]
async fn settings_that_are_there_already_are_used_as_they_are() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let Some(server) = server(&authority, "127.0.0.1", None) else {
        return;
    };
    let config = |trusted: &Authority| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.0.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let options = || Options::new(url(&server)).connect_limit(HANGS * 2);
    is_whole(&options().tls_config(config(&authority)).open().unwrap()).await;
    // They count in place of the others.
    let doubting = options()
        .root_certificates(authority.pem())
        .tls_config(config(&stranger));
    let error = within(doubting.open().unwrap().set(&ROOT, "k", "v"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn what_is_no_certificate_is_refused_at_the_edge_and_no_secret_is_printed() {
    let broken = [
        Options::new("rediss://127.0.0.1/").root_certificates("none"),
        Options::new("rediss://127.0.0.1/#insecure").root_certificates("none"),
        Options::new("rediss://127.0.0.1/").client_certificate("none", "none"),
    ];
    for options in broken {
        let error = options.open().unwrap_err();
        assert_eq!(error.step(), Step::Connecting, "{error}");
    }
    let secret = Options::new("rediss://ana:secret@127.0.0.1/").client_certificate("chain", "secret");
    assert!(!format!("{secret:?}").contains("secret"), "{secret:?}");
}
