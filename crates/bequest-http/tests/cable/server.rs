//! Clients of the server at the near end that fall silent, and such as are only slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest::{Context, Reason};
use bequest_http::server::{Limits, Server, Tls, service_fn};
use http::Request;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tower_layer::Layer;

use super::far::{AT_ONCE, LITTLE_BY_LITTLE};
use super::lab::{Cable, Plug};
use super::served::{Client, LARGE, PIECE, Work, handle, how, only, served_by, under_way};
use super::trial::{Noticed, Outcome, all, guard, limit, settle, until};

/// A client of HTTP/1 falls silent.
pub(crate) async fn http1(cable: Cable, work: Work, limits: Limits, plug: Plug) -> Outcome {
    let mut served = served_by(&cable, Server::builder().limits(limits));
    let stream = cable.dial(served.addr, how(plug)).await;
    let (arrival, _client) = under_way(&mut served, stream, work).await;
    let pulled = Instant::now();
    cable.pull(plug);
    if matches!(work, Work::Pieces | Work::Upgrade) {
        arrival.send().await;
    }
    served.ends(arrival, pulled).await
}

/// The same within TLS.
pub(crate) async fn within_tls(cable: Cable, work: Work) -> Outcome {
    let made = rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a certificate");
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = Tls::from_pem(cert.as_bytes(), key.as_bytes()).expect("a certificate with its key");
    let mut served = served_by(&cable, Server::builder().limits(only(limit())).tls(tls));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = cable.dial(served.addr, AT_ONCE).await;
    let name = ServerName::try_from("test").expect("a name");
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = guard("the handshake", handshake).await.expect("a handshake");
    let (arrival, _client) = under_way(&mut served, stream, work).await;
    let pulled = Instant::now();
    cable.pull(Plug::Far);
    served.ends(arrival, pulled).await
}

/// A client of HTTP/2 falls silent.
pub(crate) async fn http2(cable: Cable, work: Work, limits: Limits) -> Outcome {
    let mut served = served_by(&cable, Server::builder().limits(limits));
    let stream = cable.dial(served.addr, AT_ONCE).await;
    let (mut send, connection) = h2::client::handshake(stream).await.expect("a handshake");
    // Its end is seen by the streams.
    tokio::spawn(async move { drop(connection.await) });
    let path = match work {
        Work::Large => "/large",
        _ => "/wait",
    };
    let request = Request::get(format!("http://test{path}"))
        .body(())
        .expect("a request");
    let (response, _body) = send.send_request(request, true).expect("a stream");
    let (enough, has_enough) = oneshot::channel();
    tokio::spawn(async move {
        let mut enough = Some(enough);
        let mut body = response.await?.into_body();
        while let Some(chunk) = body.data().await {
            body.flow_control().release_capacity(chunk?.len())?;
            // Told once.
            enough.take().map(|enough: oneshot::Sender<()>| enough.send(()));
        }
        Ok::<_, h2::Error>(())
    });
    let arrival = served.arrival().await;
    if matches!(work, Work::Large) {
        guard("a beginning", has_enough).await.expect("an answer");
    }
    let pulled = Instant::now();
    cable.pull(Plug::Far);
    let outcome = served.ends(arrival, pulled).await;
    drop(send);
    outcome
}

/// A client of HTTP/1 falls silent whose connection is driven by somebody else's loop. That leaves it to the system alone.
pub(crate) async fn introduced(cable: Cable, work: Work, plug: Plug) -> Outcome {
    let listener = TcpListener::bind(cable.near()).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (tell, mut arrivals) = mpsc::unbounded_channel();
    let limits = Limits {
        // The system's limit for what is not acknowledged is no shorter than this.
        write_stall: limit() - Duration::from_secs(1),
        ..only(limit())
    };
    tokio::spawn(async move {
        let layers = Server::builder().limits(limits).layers(&Context::background());
        let (stream, _) = listener.accept().await.expect("a connection");
        let introduced = layers.connection(&stream).expect("an open connection");
        let service = introduced.layer(service_fn(move |request| handle(request, tell.clone())));
        let http = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        // How it ends is seen by the handler.
        let _ = http.await;
    });
    let stream = cable.dial(addr, how(plug)).await;
    let mut client = Client::asks(work, stream).await;
    let arrival = guard("a request", arrivals.recv()).await.expect("a server");
    if matches!(work, Work::Pieces) {
        arrival.send().await;
        client.reads(PIECE.len()).await;
    }
    settle().await;
    let pulled = Instant::now();
    cable.pull(plug);
    if matches!(work, Work::Pieces) {
        arrival.send().await;
    }
    let end = guard("the context to end", arrival.ctx.done()).await;
    let at = Instant::now();
    assert_eq!(end.reason(), Reason::Unreachable);
    until("the handler to be dropped", || arrival.alive.strong_count() == 0).await;
    Outcome::noticed(pulled, at, end.reason())
}

/// A client of HTTP/1 falls silent between two requests, when it is the system alone that finds out.
pub(crate) async fn idle(cable: Cable, plug: Plug) -> Outcome {
    let mut served = served_by(&cable, Server::builder().limits(only(limit())));
    let mut stream = cable.dial(served.addr, how(plug)).await;
    stream
        .write_all(Work::Wait.head().as_bytes())
        .await
        .expect("an open connection");
    let arrival = served.arrival().await;
    arrival.answer.send("here").expect("a handler");
    until_ends_with(&mut stream, "here").await;
    settle().await;
    let pulled = Instant::now();
    cable.pull(plug);
    served.is_given_back().await;
    Outcome::noticed(pulled, Instant::now(), Reason::Unreachable)
}

async fn until_ends_with(stream: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        let more = guard("an answer", stream.read_buf(&mut read)).await;
        assert_ne!(more.expect("an open connection"), 0);
    }
}

/// The cable is plugged in again before the limit, amid an answer and amid the wait for one: both end well.
pub(crate) async fn plugged_in_again(cable: Cable, work: Work) -> Outcome {
    let limit = limit() * 2;
    let mut served = served_by(&cable, Server::builder().limits(only(limit)));
    let stream = cable.dial(served.addr, AT_ONCE).await;
    let (arrival, mut client) = under_way(&mut served, stream, work).await;
    cable.pull(Plug::Far);
    // How long it is out, and then in: together long enough to be taken for silent. What the system repeats, later and later,
    // comes through before that.
    tokio::time::sleep(limit / 6).await;
    cable.plug_in();
    match work {
        Work::Large => client.reads(LARGE - LARGE / 32).await,
        _ => {
            tokio::time::sleep(limit).await;
            arrival.answer.send("here").expect("a handler");
            client.reads(1).await;
        }
    }
    let end = guard("the context to end", arrival.ctx.done()).await;
    assert_eq!(end.reason(), Reason::ResponseEnded);
    Outcome::unnoticed(end.reason())
}

/// A client that takes what is written to it, little by little, is there.
pub(crate) async fn slow(cable: Cable, noticed: Noticed) -> Outcome {
    let mut served = served_by(&cable, Server::builder().limits(only(limit())));
    let stream = cable.dial(served.addr, LITTLE_BY_LITTLE).await;
    let client = Client::asks(Work::Large, stream).await;
    let arrival = served.arrival().await;
    tokio::time::sleep(limit() * 2).await;
    all(noticed).await;
    assert!(!arrival.ctx.is_done(), "{:?}", arrival.ctx.err());
    drop(client);
    Outcome::unnoticed("taken for what it is")
}

/// A client that reads nothing, and is there, has the limit on writes.
pub(crate) async fn reads_nothing(cable: Cable) -> Outcome {
    let limits = Limits {
        write_stall: limit(),
        ..only(limit())
    };
    let mut served = served_by(&cable, Server::builder().limits(limits));
    let mut stream = cable.dial(served.addr, AT_ONCE).await;
    stream
        .write_all(Work::Large.head().as_bytes())
        .await
        .expect("an open connection");
    let arrival = served.arrival().await;
    let end = guard("the context to end", arrival.ctx.done()).await;
    assert_eq!(end.reason(), Reason::Limit("write stall"));
    Outcome::unnoticed(end.reason())
}
