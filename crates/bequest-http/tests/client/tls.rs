//! HTTPS: against this crate's own server, and against a peer that keeps a handshake waiting.

use std::sync::Arc;

use bequest::{CancelScope, Context, Reason};
use bequest_http::client::{Client, Step, Tls};
use bequest_http::rustls::ServerConfig;
use bequest_http::rustls::crypto::ring;
use bequest_http::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use bequest_http::server::{self, RequestBody, Server, service_fn};
use http::{Request, Response, Version};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::{get, guard, outcome, start, text};

/// A private authority, and what it has signed for `localhost`.
struct Authority {
    pem: String,
    config: ServerConfig,
}

fn authority(alpn: &[&[u8]]) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::new(params, key);

    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let signed = params.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], key)
        .expect("they belong together");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Authority { pem, config }
}

impl Authority {
    fn trusted(&self) -> Tls {
        Tls::roots_from_pem(self.pem.as_bytes()).expect("an authority")
    }
}

/// A server that says which protocol it was asked by, and tells how a waiting handler has ended.
async fn serve(authority: &Authority) -> (CancelScope, u16) {
    let service = service_fn(|request: Request<RequestBody>| async move {
        let ctx = request.extensions().get::<Context>().unwrap().clone();
        match request.uri().path() {
            "/wait" => Response::new(ctx.done().await.reason().to_string()),
            _ => Response::new(format!("{:?} {}", request.version(), ctx.remaining().is_some())),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let tls = server::Tls::new(authority.config.clone());
    let process = Context::background().with_cancel();
    let ctx = process.context();
    tokio::spawn(async move { Server::builder().tls(tls).serve(listener, service, &ctx).await });
    (process, port)
}

#[tokio::test]
async fn the_protocol_is_agreed_on_in_the_handshake() {
    for (alpn, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], Version::HTTP_2),
        (&[&b"http/1.1"[..]][..], Version::HTTP_11),
    ] {
        let authority = authority(alpn);
        let (_process, port) = serve(&authority).await;
        let client = Client::builder().build_tls(authority.trusted());
        let ctx = Context::background();
        for _ in 0..2 {
            let request = get(format!("https://localhost:{port}/"));
            let answer = guard("an answer", client.send(&ctx, request))
                .await
                .expect("an answer");
            assert_eq!(answer.version(), version);
            assert_eq!(text(answer).await.expect("a body"), format!("{version:?} true"));
        }
    }
}

#[tokio::test]
async fn http2_alone_is_asked_for_where_it_is_all_that_is_spoken() {
    let only_http1 = authority(&[b"http/1.1"]);
    let (_process, port) = serve(&only_http1).await;
    let client = Client::builder().http2().build_tls(only_http1.trusted());
    let request = get(format!("https://localhost:{port}/"));
    let error = guard("a refusal", client.send(&Context::background(), request))
        .await
        .unwrap_err();
    assert!(error.is_connect(), "no protocol in common: {error}");
}

#[tokio::test]
async fn nobody_else_is_trusted() {
    let (ours, theirs) = (authority(&[]), authority(&[]));
    let (_process, port) = serve(&theirs).await;
    let ctx = Context::background();
    let client = Client::builder().build_tls(ours.trusted());
    let error = client
        .send(&ctx, get(format!("https://localhost:{port}/")))
        .await
        .unwrap_err();
    assert!(error.is_connect() && !error.is_timeout(), "{error}");

    // The right authority, for another name.
    let client = Client::builder().build_tls(theirs.trusted());
    let error = client
        .send(&ctx, get(format!("https://127.0.0.1:{port}/")))
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{error}");

    // The control: the right name.
    let answer = client
        .send(&ctx, get(format!("https://localhost:{port}/")))
        .await
        .expect("trusted");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn only_http_and_https_are_dialled() {
    let client = Client::builder().build_tls(authority(&[]).trusted());
    let error = client
        .send(&Context::background(), get("ftp://localhost:1/"))
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{error}");
}

#[tokio::test]
async fn h3_a_handshake_that_waits_is_left_and_what_comes_of_it_is_used() {
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let authority = authority(&[alpn]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!(
            "https://localhost:{}/",
            listener.local_addr().expect("bound").port()
        );
        let client = Client::builder().build_tls(authority.trusted());
        let caller = Context::background().with_cancel();
        let first = start_tls(&client, &caller, &url);
        let (held, _) = guard("a connection", listener.accept()).await.expect("a socket");
        caller.cancel_for(Reason::ClientGone);
        let error = guard("an end", first).await.expect("no panic").unwrap_err();
        assert_eq!(error.step(), Step::Dialling);
        assert_eq!(error.canceled().expect("an end").reason(), Reason::ClientGone);

        // Only now does the peer take part.
        let acceptor = TlsAcceptor::from(Arc::new(authority.config.clone()));
        let stream = guard("a handshake", acceptor.accept(held))
            .await
            .expect("trusted");
        let is_http2 = alpn == b"h2";
        let peer = match is_http2 {
            // It speaks first, and nobody listens yet.
            true => tokio::spawn(answer_http2(stream)),
            false => tokio::spawn(answer_http1(stream)),
        };
        let second = start_tls(&client, &Context::background(), &url);
        let answer = guard("an answer", second)
            .await
            .expect("no panic")
            .expect("an answer");
        assert_eq!(text(answer).await.expect("a body"), "here");
        peer.abort();
        let again = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
        assert!(again.is_err(), "nobody else has connected");
    }
}

type Stream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

fn start_tls(
    client: &Client<bequest_http::client::Https>,
    ctx: &Context,
    url: &str,
) -> tokio::task::JoinHandle<Result<Response<bequest_http::client::ResponseBody>, bequest_http::client::Error>>
{
    start(client, ctx, get(url))
}

async fn answer_http1(mut stream: Stream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere";
    stream.write_all(answer).await.expect("it is open");
    // Held until the test is over.
    std::future::pending::<()>().await;
}

async fn answer_http2(stream: Stream) {
    let mut connection = h2::server::handshake(stream).await.expect("a preface");
    while let Some(stream) = connection.accept().await {
        let (_request, mut respond) = stream.expect("a stream");
        let mut body = respond.send_response(Response::new(()), false).expect("open");
        body.send_data("here".into(), true).expect("open");
    }
}

#[tokio::test]
async fn a_cancelled_request_resets_its_stream_over_tls() {
    let authority = authority(&[b"h2"]);
    let (_process, port) = serve(&authority).await;
    let client = Client::builder().build_tls(authority.trusted());
    let caller = Context::background().with_cancel();
    let warm = client
        .send(&caller, get(format!("https://localhost:{port}/")))
        .await
        .expect("warm");
    text(warm).await.expect("a body");
    let waiting = start(&client, &caller, get(format!("https://localhost:{port}/wait")));
    tokio::task::yield_now().await;
    caller.cancel_for(Reason::ClientGone);
    let error = outcome(waiting).await.unwrap_err();
    assert_eq!(error.canceled().expect("an end").reason(), Reason::ClientGone);
    let after = client
        .send(&Context::background(), get(format!("https://localhost:{port}/")))
        .await
        .expect("the connection is kept");
    assert_eq!(after.version(), Version::HTTP_2);
}

#[cfg(feature = "webpki-roots")]
#[tokio::test]
async fn mozillas_authorities_do_not_know_ours() {
    let authority = authority(&[]);
    let (_process, port) = serve(&authority).await;
    let client = Client::builder().build_tls(Tls::webpki_roots().expect("a list"));
    let request = get(format!("https://localhost:{port}/"));
    let error = client.send(&Context::background(), request).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
}
