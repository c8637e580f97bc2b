//! Frames and header blocks as a client reads and writes them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::super::common::{Frame, RawHttp2, guard, http2_bytes};

/// What no frame may be larger than, unless somebody says so.
pub(super) const FRAME: usize = 16_384;

/// The next frame, or `None` at the end.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, stream_id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    assert!(payload.len() <= most, "a frame of {} bytes", payload.len());
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream_id),
        payload,
    })
}

/// A header block in the plainest coding there is.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| http2_bytes::field(name, value))
        .collect()
}

/// Reads a block by the protocol engine's client, which is given nothing else: no status is that of trailers.
pub(super) async fn decode(block: Vec<u8>, is_trailers: bool) -> (Option<u16>, Vec<(String, String)>) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut send, connection) = h2::client::handshake(near).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    // Of an answer to this no body is expected, whatever its fields say.
    let request = http::Request::head("http://test/").body(()).expect("a request");
    let (mut response, _) = send.send_request(request, true).expect("a stream");
    let headers =
        |flags, block: &[u8]| http2_bytes::frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS | flags, 1, block);
    let mut bytes = http2_bytes::frame(RawHttp2::SETTINGS, 0, 0, &[]);
    if is_trailers {
        bytes.extend(headers(0, &[0x88]));
        bytes.extend(headers(RawHttp2::END_STREAM, &block));
    } else {
        bytes.extend(headers_in_parts(&block));
    }
    // It takes no answer to what it has not asked.
    let mut preface = [0; RawHttp2::PREFACE.len()];
    far.read_exact(&mut preface).await.expect("a preface");
    while read(&mut far, FRAME).await.expect("a request").kind != RawHttp2::HEADERS {}
    far.write_all(&bytes).await.expect("room");
    let head = poll_fn(|cx| match response.poll_informational(cx) {
        Poll::Ready(Some(informational)) => Poll::Ready(informational.map(|head| (head, None))),
        _ => Pin::new(&mut response).poll(cx).map_ok(|answer| {
            let (head, body) = answer.into_parts();
            (Response::from_parts(head, ()), Some(body))
        }),
    });
    let (head, body) = guard("a header block to be read", head)
        .await
        .expect("a well-formed block");
    let decoded = match body {
        Some(mut body) if is_trailers => {
            let trailers = body.trailers().await.expect("well-formed trailers");
            (None, lines(&trailers.expect("trailers")))
        }
        _ => (Some(head.status().as_u16()), lines(head.headers())),
    };
    connection.abort();
    decoded
}

/// A block that may be too long for one frame.
fn headers_in_parts(block: &[u8]) -> Vec<u8> {
    let count = block.chunks(FRAME).count();
    let parts = block.chunks(FRAME).enumerate().map(|(nth, part)| {
        let kind = if nth == 0 {
            RawHttp2::HEADERS
        } else {
            RawHttp2::CONTINUATION
        };
        let flags = if nth + 1 == count {
            RawHttp2::END_HEADERS
        } else {
            0
        };
        http2_bytes::frame(kind, flags, 1, part)
    });
    parts.collect::<Vec<_>>().concat()
}

/// The fields, in order of their names.
pub(super) fn lines(fields: &HeaderMap) -> Vec<(String, String)> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    };
    let mut lines: Vec<_> = fields.iter().map(line).collect();
    lines.sort();
    lines
}
