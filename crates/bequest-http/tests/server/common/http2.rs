//! Two clients of HTTP/2: one on the protocol engine, one on bare frames that sees everything that is sent to it.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::guard;

/// A client on the protocol engine.
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

/// A request under way.
pub(crate) struct Stream {
    response: ResponseFuture,
    pub(crate) body: h2::SendStream<Bytes>,
}

impl Http2 {
    pub(crate) async fn connect(addr: SocketAddr) -> Http2 {
        let stream = TcpStream::connect(addr).await.expect("the server accepts");
        let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
        // Its end is seen by the streams.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Http2 { send, connection }
    }

    /// Sends a whole request without a body.
    pub(crate) async fn request(&self, path: &str) -> Stream {
        self.begin(Method::GET, path, true).await
    }

    /// Sends a whole request without a body; `None` if the connection takes no more.
    pub(crate) async fn try_request(&self, path: &str) -> Option<Stream> {
        let mut ready = self.send.clone().ready().await.ok()?;
        let request = Request::get(format!("http://test{path}"))
            .body(())
            .expect("a request");
        let (response, body) = ready.send_request(request, true).ok()?;
        Some(Stream { response, body })
    }

    /// Sends a request's header; its body follows, or not.
    pub(crate) async fn begin(&self, method: Method, path: &str, end: bool) -> Stream {
        let mut ready = guard("a free stream", self.send.clone().ready())
            .await
            .expect("an open connection");
        let uri = format!("http://test{path}");
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .expect("a request");
        let (response, body) = ready.send_request(request, end).expect("a stream");
        Stream { response, body }
    }

    /// Closes the socket.
    pub(crate) fn leave(self) {
        self.connection.abort();
    }
}

impl Stream {
    /// The whole answer.
    pub(crate) async fn answer(self) -> Result<(StatusCode, String), h2::Error> {
        guard("an answer", async {
            let response = self.response.await?;
            let (head, mut body) = response.into_parts();
            let mut text = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk?;
                text.extend_from_slice(&chunk);
                body.flow_control().release_capacity(chunk.len())?;
            }
            Ok((head.status, String::from_utf8(text).expect("text")))
        })
        .await
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }
}

/// A client on bare frames.
pub(crate) struct RawHttp2 {
    stream: TcpStream,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl RawHttp2 {
    pub(crate) const PREFACE: &'static [u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const ACK: u8 = 1;

    /// Connects and exchanges settings.
    pub(crate) async fn connect(addr: SocketAddr) -> RawHttp2 {
        let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
        stream.set_nodelay(true).expect("an open socket");
        stream
            .write_all(RawHttp2::PREFACE)
            .await
            .expect("the socket takes it");
        let mut raw = RawHttp2 { stream };
        raw.frame(RawHttp2::SETTINGS, 0, 0, &[]).await;
        loop {
            let frame = raw.next().await.expect("settings");
            match (frame.kind, frame.flags & RawHttp2::ACK) {
                (RawHttp2::SETTINGS, 0) => raw.frame(RawHttp2::SETTINGS, RawHttp2::ACK, 0, &[]).await,
                (RawHttp2::SETTINGS, _) => return raw,
                _ => {}
            }
        }
    }

    /// The socket itself, for whoever wants to go on without us.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends these bytes; `false` if the connection is over.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Whether the server answers a ping, and so has taken what came before it; `false` if the connection is over.
    pub(crate) async fn is_answered(&mut self) -> bool {
        let ping = http2_bytes::frame(RawHttp2::PING, 0, 0, b"are you?");
        self.try_send(&ping).await && self.is_answered_once().await
    }

    /// Waits for the answer to a ping; `false` if the connection is over.
    pub(crate) async fn is_answered_once(&mut self) -> bool {
        while let Some(frame) = self.next().await {
            if frame.kind == RawHttp2::PING && frame.flags & RawHttp2::ACK != 0 {
                return true;
            }
        }
        false
    }

    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = http2_bytes::frame(kind, flags, stream, payload);
        self.stream.write_all(&bytes).await.expect("the socket takes it");
    }

    /// Sends `GET path` on this stream.
    pub(crate) async fn get(&mut self, stream: u32, path: &str) {
        let bytes = http2_bytes::get(stream, path);
        self.stream.write_all(&bytes).await.expect("the socket takes it");
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        let bytes = http2_bytes::reset(stream);
        self.stream.write_all(&bytes).await.expect("the socket takes it");
    }

    /// The next frame, or `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        guard("a frame", async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            })
        })
        .await
    }

    /// Sends pings, one after the other, until the connection is closed; says how many were answered.
    pub(crate) async fn ping_until_closed(&mut self) -> usize {
        let mut answered = 0;
        let ping = [&[0, 0, 8, RawHttp2::PING, 0, 0, 0, 0, 0], &b"are you?"[..]].concat();
        while self.stream.write_all(&ping).await.is_ok() {
            match self.next().await {
                Some(frame) => answered += usize::from(frame.kind == RawHttp2::PING),
                None => break,
            }
        }
        answered
    }

    /// All frames until the server answers a ping: whatever it had to say before that is among them.
    pub(crate) async fn frames_until_ping(&mut self) -> Vec<Frame> {
        self.frame(RawHttp2::PING, 0, 0, b"are you?").await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.expect("an open connection");
            if frame.kind == RawHttp2::PING && frame.flags & RawHttp2::ACK != 0 {
                return frames;
            }
            frames.push(frame);
        }
    }
}

/// The header block of `GET path`, in the plainest coding there is.
pub(crate) fn header_block(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    // GET, http, then the path as a literal under its static name, then the authority likewise.
    let mut block = vec![0x82, 0x86, 0x04, length];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 4]);
    block.extend_from_slice(b"test");
    block
}

/// Frames as bytes.
pub(crate) mod http2_bytes {
    use super::{RawHttp2, header_block};

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A field of a header block, in the plainest coding there is.
    pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
        let text = |text: &str| {
            [
                &[u8::try_from(text.len()).expect("a short text")],
                text.as_bytes(),
            ]
            .concat()
        };
        [vec![0], text(name), text(value)].concat()
    }

    pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
        let flags = RawHttp2::END_STREAM | RawHttp2::END_HEADERS;
        frame(RawHttp2::HEADERS, flags, stream, &header_block(path))
    }

    pub(crate) fn reset(stream: u32) -> Vec<u8> {
        frame(RawHttp2::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
    }
}
