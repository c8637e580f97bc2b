//! HTTPS: the handshake as a stage with limits and reasons of its own, what it shows to the hooks, certificates that are
//! replaced, and that what holds in clear holds within. How clients leave is played in `matrix`.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{BoxError, Builder, Limits, Server, Tls, TlsInfo};
use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::common::{Http1, TestBody, TestClock, TestServer, full, guard, probe};

const STEP: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

type Certified = CertifiedKey<KeyPair>;

fn made(name: &str) -> Certified {
    rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate")
}

fn tls(of: &Certified) -> Tls {
    Tls::from_pem(
        of.cert.pem().as_bytes(),
        of.signing_key.serialize_pem().as_bytes(),
    )
    .expect("a certificate with its key")
}

fn roots(of: &Certified) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(of.cert.der().clone()).expect("a certificate");
    roots
}

/// The settings of a client that trusts this certificate, and shows one of its own, or not.
fn client(trusts: &Certified, alpn: &[&[u8]], shows: Option<&Certified>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots(trusts));
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(vec![own.cert.der().clone()], key(own))
            .expect("a certificate with its key"),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn key(of: &Certified) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(of.signing_key.serialize_der()).expect("a key")
}

async fn connect(server: &TestServer, config: rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(server.addr).await?;
    let name = ServerName::try_from("test").expect("a name");
    let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    guard("the handshake", connected).await
}

async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await
        .expect("an open connection");
    let mut answer = Vec::new();
    // A server that says no farewell would be an error here.
    guard("the answer", stream.read_to_end(&mut answer))
        .await
        .expect("an orderly end");
    String::from_utf8(answer).expect("text")
}

/// A server that answers each request, and what its hook saw of each connection.
async fn answering(builder: Builder, root: Context) -> (TestServer, Arc<Mutex<Vec<TlsInfo>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let builder = builder.conn_context(move |ctx, conn| {
        sees.lock().unwrap().push(conn.tls().expect("TLS").clone());
        ctx
    });
    let service = bequest_http::server::service_fn(|_| async { full("hello") });
    (TestServer::with(builder, root, service).await, seen)
}

#[tokio::test]
async fn both_sides_agree_on_a_protocol_and_the_hook_sees_which() {
    let own = made("test");
    let (server, seen) = answering(Server::builder().tls(tls(&own)), Context::background()).await;
    for alpn in [&[b"http/1.1" as &[u8]] as &[_], &[]] {
        let mut stream = connect(&server, client(&own, alpn, None))
            .await
            .expect("a handshake");
        assert!(get(&mut stream).await.ends_with("hello"));
    }
    // With and without agreeing, HTTP/2 is spoken by its preface.
    for alpn in [&[b"h2" as &[u8], b"http/1.1"] as &[_], &[]] {
        let stream = connect(&server, client(&own, alpn, None))
            .await
            .expect("a handshake");
        let (mut send, connection) = h2::client::handshake(stream).await.expect("a preface");
        // Its end is the client's leaving.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let request = http::Request::get("https://test/").body(()).expect("a request");
        let (response, _) = send.send_request(request, true).expect("a stream");
        let mut response = guard("an answer", response).await.expect("a head");
        let body = response.body_mut().data().await.expect("a body").expect("whole");
        assert_eq!(body, Bytes::from_static(b"hello"));
        connection.abort();
    }
    let seen = seen.lock().unwrap();
    let alpn: Vec<_> = seen.iter().map(TlsInfo::alpn).collect();
    assert_eq!(
        alpn,
        [Some(b"http/1.1" as &[u8]), None, Some(b"h2" as &[u8]), None]
    );
    assert!(seen.iter().all(|info| info.server_name() == Some("test")));
    assert!(seen.iter().all(|info| info.peer_certificates().is_empty()));
    assert_eq!(seen[0].version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn the_hook_sees_the_clients_certificate() {
    let (own, theirs) = (made("test"), made("a client"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&theirs)), provider.clone()).build();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a root"))
        .with_single_cert(vec![own.cert.der().clone()], key(&own))
        .expect("a certificate with its key");
    let (mut server, seen) = answering(Server::builder().tls(Tls::new(config)), Context::background()).await;
    let mut stream = connect(&server, client(&own, &[], Some(&theirs)))
        .await
        .expect("a handshake");
    assert!(get(&mut stream).await.ends_with("hello"));
    let shown: Vec<CertificateDer<'_>> = seen.lock().unwrap()[0].peer_certificates().to_vec();
    assert_eq!(shown, [theirs.cert.der().clone()]);

    // Whoever shows none, or an unknown one, comes no further than the handshake.
    for shows in [None, Some(&own)] {
        if let Ok(mut stream) = connect(&server, client(&own, &[], shows)).await {
            // The client of TLS 1.3 has finished before the server judges it.
            guard("the refusal", stream.read_u8())
                .await
                .expect_err("no answer");
        }
        let end = server.events.handshake_failed().await;
        assert!(end.cause().is_some(), "{end}");
    }
    assert_eq!(
        seen.lock().unwrap().len(),
        1,
        "no context was made for the others"
    );
    assert_eq!(server.statistics.snapshot().handshakes_failed, 2);
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_those_who_come_afterwards() {
    let (former, next) = (made("test"), made("test"));
    let tls = tls(&former);
    let (server, _) = answering(Server::builder().tls(tls.clone()), Context::background()).await;
    let mut before = connect(&server, client(&former, &[], None))
        .await
        .expect("a handshake");
    tls.replace_pem(
        next.cert.pem().as_bytes(),
        next.signing_key.serialize_pem().as_bytes(),
    )
    .expect("a certificate with its key");
    assert!(connect(&server, client(&former, &[], None)).await.is_err());
    let mut after = connect(&server, client(&next, &[], None))
        .await
        .expect("a handshake");
    assert!(get(&mut after).await.ends_with("hello"));
    assert!(
        get(&mut before).await.ends_with("hello"),
        "an open connection stays"
    );
}

#[tokio::test]
async fn a_handshake_that_stops_ends_at_its_own_limit() {
    let own = made("test");
    let clock = TestClock::new();
    let limits = Limits {
        handshake: 3 * SECOND,
        ..Limits::default()
    };
    let builder = Server::builder().tls(tls(&own)).limits(limits);
    let (mut server, seen) = answering(builder, clock.context()).await;
    let mut client = TcpStream::connect(server.addr).await.expect("a server");
    // The first bytes of a greeting of TLS, and no more.
    client
        .write_all(&[0x16, 3, 1, 2, 0, 1])
        .await
        .expect("an open socket");
    let ended = server.events.handshake_failed();
    let (end, waited) = clock.step_until(STEP, "the limit", ended).await;
    assert_eq!(end.reason(), Reason::Limit("handshake"));
    assert!(waited >= 3 * SECOND);
    let closed = guard("the close", client.read(&mut [0; 16])).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn control_without_the_limit_a_handshake_that_stops_stays() {
    let own = made("test");
    let clock = TestClock::new();
    let limits = Limits {
        handshake: Duration::MAX,
        ..Limits::default()
    };
    let builder = Server::builder().tls(tls(&own)).limits(limits);
    let (mut server, _) = answering(builder, clock.context()).await;
    let mut client = TcpStream::connect(server.addr).await.expect("a server");
    client
        .write_all(&[0x16, 3, 1, 2, 0, 1])
        .await
        .expect("an open socket");
    // One that says nothing comes later and ends first.
    let _silent = TcpStream::connect(server.addr).await.expect("a server");
    let ended = server.events.handshake_failed();
    let (end, _) = clock.step_until(STEP, "the limit", ended).await;
    assert_eq!(end.reason(), Reason::Limit("first byte"));
    clock.advance(24 * 3600 * SECOND);
    // It ends when it leaves, and not before.
    drop(client);
    assert_eq!(
        server.events.handshake_failed().await.reason(),
        Reason::ClientGone
    );
}

#[tokio::test]
async fn what_is_no_greeting_of_tls_is_a_failure_with_its_cause() {
    let own = made("test");
    let (mut server, seen) = answering(Server::builder().tls(tls(&own)), Context::background()).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let end = server.events.handshake_failed().await;
    assert!(end.cause().is_some(), "{end}");
    assert!(!client.rest().await.contains("HTTP/1.1"));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_limits_on_the_first_byte_and_on_stalled_writes_hold_within_tls() {
    let own = made("test");
    let clock = TestClock::new();
    let limits = Limits {
        request: Duration::MAX,
        unreachable: Duration::MAX,
        ..Limits::default()
    };
    let builder = Server::builder().tls(tls(&own)).limits(limits);
    let service =
        bequest_http::server::service_fn(|_| async { Response::<TestBody>::new(Endless.boxed_unsync()) });
    let mut server = TestServer::with(builder, clock.context(), service).await;
    let silent = connect(&server, client(&own, &[], None))
        .await
        .expect("a handshake");
    let (end, _) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("first byte"));
    drop(silent);

    let mut asks = connect(&server, client(&own, &[], None))
        .await
        .expect("a handshake");
    asks.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .expect("open");
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("write stall"));
    assert!(waited >= 30 * SECOND);
}

/// A body that always has more.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

#[tokio::test]
async fn a_client_that_says_farewell_and_reads_on_gets_its_answer_within_the_grace() {
    let own = made("test");
    let (service, mut arrivals) = probe();
    let builder = Server::builder().tls(tls(&own));
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = connect(&server, client(&own, &[], None))
        .await
        .expect("a handshake");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .expect("open");
    let mut arrival = arrivals.next().await;
    // `close_notify`, and then a FIN.
    client.shutdown().await.expect("an open connection");
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
    arrival.answer(full("in time"));
    let mut answer = Vec::new();
    guard("the answer", client.read_to_end(&mut answer))
        .await
        .expect("an orderly end");
    assert!(String::from_utf8_lossy(&answer).ends_with("in time"));
}

#[tokio::test]
async fn a_handshake_ends_with_the_drain_of_the_server() {
    let own = made("test");
    let (mut server, _) = answering(Server::builder().tls(tls(&own)), Context::background()).await;
    let mut client = TcpStream::connect(server.addr).await.expect("a server");
    client.write_all(&[0x16, 3, 1]).await.expect("an open socket");
    // Accepted, as one that came later has been served.
    let mut other = connect(&server, self::client(&own, &[], None))
        .await
        .expect("a handshake");
    assert!(get(&mut other).await.ends_with("hello"));
    server.process.cancel_for(Reason::Shutdown);
    assert_eq!(server.events.handshake_failed().await.reason(), Reason::Shutdown);
    assert_eq!(server.ended().await.unfinished, 0);
}
