//! HTTP/2 by prior knowledge: a stream that is reset ends its request, and nothing but its request.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::service;
use crate::support::GUARD;

#[tokio::test]
async fn a_reset_stream_is_silent_and_its_connection_lives_on() {
    let service = service(&[]);
    let seen = Seen::default();
    let stream = TcpStream::connect(service.public).await.unwrap();
    let (send, connection) = h2::client::handshake(Tap::new(stream, seen.clone()))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);

    let (answer, mut body) = send
        .clone()
        .ready()
        .await
        .unwrap()
        .send_request(get("/store?key=reset&ms=60000"), true)
        .unwrap();
    let reset = body.stream_id().as_u32();
    until_last(&send, |last| last["state"] == "running").await;
    body.send_reset(h2::Reason::CANCEL);
    drop((answer, body));

    let last = until_last(&send, |last| last["state"] != "running").await;
    assert_eq!(last["state"], "stopped");
    assert_eq!(
        (&last["written"], &last["key_in_store"]),
        (&false.into(), &false.into())
    );
    assert!(last["why"].as_str().unwrap().contains("stream reset"), "{last}");
    let line = service.request_line("/store?key=reset&ms=60000");
    assert_eq!(
        (&line["status"], &line["end"]),
        (&499.into(), &"stream reset by client".into())
    );

    let (status, text) = fetch(&send, "/store?key=stays&ms=10").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "stays:a\n"));
    assert_eq!(
        seen.frames_of(reset),
        0,
        "not a frame of the stream that was reset"
    );
    assert!(seen.frames_of(reset + 2) > 0, "though frames are seen");

    drop(send);
    connection
        .await
        .unwrap()
        .expect("nothing was wrong with the connection");
}

/// The frames that have come in, by their streams.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<u32>>>);

impl Seen {
    fn frames_of(&self, stream: u32) -> usize {
        let streams = self.0.lock().unwrap();
        streams.iter().filter(|seen| **seen == stream).count()
    }
}

/// A socket that looks at the heads of the frames that are read from it.
struct Tap {
    socket: TcpStream,
    seen: Seen,
    /// What is known of the next frame's head.
    head: VecDeque<u8>,
    /// How much of the current frame is still to come.
    payload: usize,
}

/// The length of a frame's head: 3 bytes of length, type, flags, 4 bytes of stream.
const HEAD: usize = 9;

impl Tap {
    fn new(socket: TcpStream, seen: Seen) -> Tap {
        Tap {
            socket,
            seen,
            head: VecDeque::new(),
            payload: 0,
        }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.payload > 0 {
                self.payload -= 1;
                continue;
            }
            self.head.push_back(byte);
            if self.head.len() == HEAD {
                let head: Vec<u8> = self.head.drain(..).collect();
                self.payload = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                self.seen.0.lock().unwrap().push(stream & !(1 << 31));
            }
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.look_at(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

fn get(target: &str) -> Request<()> {
    Request::get(format!("http://localhost{target}"))
        .body(())
        .expect("a request")
}

/// The whole answer to a request on a stream of its own.
async fn fetch(send: &SendRequest<Bytes>, target: &str) -> (StatusCode, String) {
    let exchange = async {
        let mut send = send.clone().ready().await.expect("an open connection");
        let (answer, _) = send.send_request(get(target), true).expect("a stream");
        let (head, mut body) = answer.await.expect("an answer").into_parts();
        let mut text = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.expect("the rest of the answer");
            body.flow_control()
                .release_capacity(chunk.len())
                .expect("a window");
            text.extend_from_slice(&chunk);
        }
        (head.status, String::from_utf8(text).expect("UTF-8"))
    };
    tokio::time::timeout(GUARD, exchange)
        .await
        .expect("the service hangs")
}

/// Asks for the last fetch until the condition holds, on streams of the same connection.
async fn until_last(send: &SendRequest<Bytes>, holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let (status, text) = fetch(send, "/store/last").await;
            let last: Value = serde_json::from_str(&text).expect("JSON");
            // 404 before the first fetch has begun.
            if status == StatusCode::OK && holds(&last) {
                return last;
            }
        }
    };
    tokio::time::timeout(GUARD, asking)
        .await
        .expect("the last fetch stays as it is")
}
