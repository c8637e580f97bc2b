//! What comes late on HTTP/2 for streams that were given up, and that the others on the connection do not feel it.

use std::collections::HashSet;

use bequest::Context;
use bequest_http::client::Client;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{get, guard, text};

/// So many are given up: more than the engine forgives by default.
const GIVEN_UP: usize = 1_500;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A peer made of frames: it begins an answer to each request, goes on with it when its stream is reset, and completes the
/// first one after all the others were given up.
async fn peer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        write(&mut stream, SETTINGS, 0, 0, b"").await;
        let mut given_up = HashSet::new();
        // Until the client closes.
        while let Some((kind, flags, id, payload)) = read(&mut stream).await {
            match kind {
                SETTINGS if flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, b"").await,
                PING if flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &payload).await,
                // `:status: 200`, as the static table of HPACK has it.
                HEADERS => write(&mut stream, HEADERS, END_HEADERS, id, &[0x88]).await,
                // Once for each: the client may answer what is late with another reset.
                RST_STREAM if given_up.insert(id) => {
                    write(&mut stream, DATA, 0, id, b"late").await;
                    if given_up.len() == GIVEN_UP {
                        write(&mut stream, DATA, END_STREAM, 1, b"in good time").await;
                    }
                }
                _ => {}
            }
        }
    });
    url
}

async fn write(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let frame = [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat();
    // A client that has gone hears nothing.
    let _ = stream.write_all(&frame).await;
}

async fn read(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(id), payload))
}

#[tokio::test]
async fn h6_what_comes_late_for_others_does_not_end_the_connection() {
    let url = peer().await;
    let client = Client::builder().http2().build();
    let ctx = Context::background();
    let first = client.send(&ctx, get(url.clone())).await.unwrap();
    for _ in 0..GIVEN_UP {
        drop(client.send(&ctx, get(url.clone())).await.unwrap());
    }
    assert_eq!(text(first).await.unwrap(), "in good time");
}

#[tokio::test]
async fn h6_control_a_bare_client_closes_the_connection_with_everybodys_exchanges() {
    let url = peer().await;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: legacy::Client<_, Empty<Bytes>> = legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector);
    let first = client.request(get(url.clone())).await.unwrap();
    for _ in 0..GIVEN_UP {
        if client.request(get(url.clone())).await.map(drop).is_err() {
            break;
        }
    }
    let first = guard("the first answer", first.into_body().collect()).await;
    let error = format!("{:?}", first.unwrap_err());
    assert!(error.contains("too_many_internal_resets"), "{error}");
}
