//! What the system by itself makes of a peer that falls silent, and what hyper does.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bequest_http::server::Server;
use http::Response;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::far::{AT_ONCE, LITTLE_BY_LITTLE};
use super::lab::{Cable, Plug};
use super::served::{Client, LARGE, Large, PIECE, Work, how, only, reads, served_by, under_way};
use super::trial::{Noticed, Outcome, all, guard, limit};

/// Which of the system's means is to find out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Means {
    Keepalive,
    /// `TCP_USER_TIMEOUT`, with something on its way.
    UserTimeout,
}

/// What the system by itself says of such a client.
pub(crate) async fn word(cable: Cable, means: Means, plug: Plug) -> Outcome {
    let listener = TcpListener::bind(cable.near()).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let _client = cable.dial(addr, how(plug)).await;
    let (mut near, _) = guard("a connection", listener.accept())
        .await
        .expect("a listener");
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(2);
    let option = match means {
        Means::Keepalive => SockRef::from(&near).set_tcp_keepalive(&keepalive),
        Means::UserTimeout => SockRef::from(&near).set_tcp_user_timeout(Some(limit())),
    };
    option.expect("an option");
    let pulled = Instant::now();
    cable.pull(plug);
    if matches!(means, Means::UserTimeout) {
        near.write_all(&PIECE).await.expect("the system takes it");
    }
    let error = guard("the end", near.read_u8()).await.expect_err("nothing comes");
    let expected = match (means, plug) {
        (Means::UserTimeout, Plug::Routed) => io::ErrorKind::HostUnreachable,
        _ => io::ErrorKind::TimedOut,
    };
    assert_eq!(error.kind(), expected, "{error:?}");
    Outcome::noticed(pulled, Instant::now(), error)
}

/// Control: the system's own limit on unacknowledged bytes ends the same client's connection.
pub(crate) async fn user_timeout(cable: Cable) -> Outcome {
    let listener = TcpListener::bind(cable.near()).await.expect("a free port");
    let stream = cable
        .dial(listener.local_addr().expect("an address"), LITTLE_BY_LITTLE)
        .await;
    let mut told = reads(stream);
    let (near, _) = guard("a connection", listener.accept())
        .await
        .expect("a listener");
    SockRef::from(&near)
        .set_tcp_user_timeout(Some(limit()))
        .expect("an option");
    let began = Instant::now();
    let error = guard("the end", fill(&near)).await;
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let mut read = 0;
    while let Ok(size) = told.try_recv() {
        read += size;
    }
    let after = began.elapsed();
    Outcome::unnoticed(format!(
        "ended after {:.1} s, {} KiB had been read",
        after.as_secs_f64(),
        read / 1024
    ))
}

/// Writes until that fails.
async fn fill(stream: &tokio::net::TcpStream) -> io::Error {
    loop {
        let written = match stream.writable().await {
            Ok(()) => stream.try_write(&[b'x'; 16 * 1024]),
            Err(error) => return error,
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return error,
            _ => {}
        }
    }
}

/// Control: without the limit nobody finds out.
pub(crate) async fn without_limit(cable: Cable, work: Work, noticed: Noticed) -> Outcome {
    let mut served = served_by(&cable, Server::builder().limits(only(Duration::MAX)));
    let stream = cable.dial(served.addr, AT_ONCE).await;
    let (arrival, _client) = under_way(&mut served, stream, work).await;
    let pulled = Instant::now();
    cable.pull(Plug::Far);
    all(noticed).await;
    assert!(!arrival.ctx.is_done() && arrival.alive.strong_count() > 0);
    Outcome::unnoticed(format!("not noticed for {:.1} s", pulled.elapsed().as_secs_f64()))
}

/// Control: hyper alone.
pub(crate) async fn hyper(cable: Cable, work: Work, noticed: Noticed) -> Outcome {
    let listener = TcpListener::bind(cable.near()).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let alive = Arc::new(());
    let (watched, is_large) = (Arc::downgrade(&alive), matches!(work, Work::Large));
    let (arrived, mut arrives) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = hyper::service::service_fn(move |_request| {
            let (alive, arrived) = (alive.clone(), arrived.clone());
            async move {
                arrived.send(()).expect("the trial listens");
                if !is_large {
                    let _alive = alive;
                    return std::future::pending().await;
                }
                Ok::<_, Infallible>(Response::new(Large {
                    left: LARGE,
                    _alive: alive,
                }))
            }
        });
        let http = hyper::server::conn::http1::Builder::new();
        // How it ends is seen by the handler.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    });
    let stream = cable.dial(addr, AT_ONCE).await;
    let mut client = Client::asks(work, stream).await;
    guard("a request", arrives.recv()).await.expect("a server");
    if is_large {
        client.reads(LARGE / 64).await;
    }
    let pulled = Instant::now();
    cable.pull(Plug::Far);
    all(noticed).await;
    assert!(watched.strong_count() > 0);
    Outcome::unnoticed(format!("not noticed for {:.1} s", pulled.elapsed().as_secs_f64()))
}
