//! The proxy: each fault, beside what happens without it.

use std::io;
use std::time::{Duration, Instant};

use bequest_test::proxy::{Faults, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A test that takes this long hangs.
const HANGS: Duration = Duration::from_secs(20);

/// A proxy with one connection through it: the client's end and the server's.
async fn connected() -> (Proxy, TcpStream, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (answering, _) = server.accept().await.unwrap();
    (proxy, client, answering)
}

async fn read_all(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut got = Vec::new();
    timeout(HANGS, socket.read_to_end(&mut got))
        .await
        .expect("it hangs")?;
    Ok(got)
}

#[tokio::test]
async fn without_faults_bytes_and_ends_are_passed_on() {
    let (proxy, mut client, mut server) = connected().await;
    let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.unwrap(), sent);
    server.write_all(b"after your end").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await.unwrap(), b"after your end");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn latency_delays_and_does_not_slow_down() {
    let (proxy, mut client, mut server) = connected().await;
    let latency = Duration::from_millis(50);
    proxy.to_server(Faults::none().latency(latency).jitter(Duration::from_millis(1)));
    let began = Instant::now();
    for _ in 0..20 {
        client.write_all(&[7; 100]).await.unwrap();
        client.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.unwrap(), [7; 2000]);
    assert!(began.elapsed() >= latency);
}

#[tokio::test]
async fn a_cut_comes_after_byte_n_and_ends_both_directions() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.to_client(Faults::none().cut_after(10));
    server.write_all(b"0123456789abc").await.unwrap();
    assert_eq!(read_all(&mut client).await.unwrap(), b"0123456789");
    // The other end is told, whether by an end or, since it has sent more, by a reset.
    let end = read_all(&mut server).await;
    assert!(end.is_err() || end.is_ok_and(|rest| rest.is_empty()));
}

#[tokio::test]
async fn a_black_hole_swallows_bytes_and_ends_until_it_is_healed() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.both(Faults::none().black_hole());
    server.write_all(b"late").await.unwrap();
    drop(server);
    let mut got = [0; 4];
    let silence = timeout(Duration::from_millis(50), client.read_exact(&mut got)).await;
    assert!(silence.is_err(), "{silence:?}");
    let stranger = TcpStream::connect(proxy.address()).await;
    assert!(stranger.is_ok(), "half-open, not closed");

    proxy.both(Faults::none());
    assert_eq!(read_all(&mut client).await.unwrap(), b"late");
}

#[tokio::test]
async fn a_reset_is_an_error_at_both_ends() {
    let (proxy, mut client, mut server) = connected().await;
    client.write_all(b"x").await.unwrap();
    server.read_u8().await.unwrap();
    proxy.reset();
    for end in [&mut client, &mut server] {
        assert_eq!(
            read_all(end).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }
    let again = TcpStream::connect(proxy.address()).await;
    assert!(again.is_ok());
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.to_server(Faults::none().slice(3, Duration::from_millis(5)));
    client.write_all(b"0123456789").await.unwrap();
    let mut piece = [0; 16];
    let first = server.read(&mut piece).await.unwrap();
    assert_eq!(&piece[..first], b"012");
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await.unwrap(), b"3456789");
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections() {
    let (proxy, mut client, mut server) = connected().await;
    assert_eq!(proxy.open(), 1);
    drop(proxy);
    assert!(read_all(&mut client).await.unwrap().is_empty());
    assert!(read_all(&mut server).await.unwrap().is_empty());
}

/// The proxy may still be busy with the end of a connection when its client has seen that end.
#[tokio::test]
async fn a_client_that_waits_for_the_end_is_counted_once() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
    for _ in 0..50 {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        drop(server.accept().await.unwrap());
        assert_eq!(read_all(&mut client).await.unwrap(), b"");
    }
    assert_eq!((proxy.accepted(), proxy.most_served()), (50, 1));
    let _one = TcpStream::connect(proxy.address()).await.unwrap();
    let _other = TcpStream::connect(proxy.address()).await.unwrap();
    let (_first, _second) = (server.accept().await.unwrap(), server.accept().await.unwrap());
    assert_eq!(proxy.most_served(), 2);
}
