//! The socket as hyper reads it: which protocol it speaks, whether the client is still there, and how far it has come.
//!
//! Both protocols are served on one port. A client of HTTP/2 opens with a fixed preface; whatever differs from it, even
//! in its second byte, is HTTP/1. The bytes read to find out are read again by hyper.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::frames::Frames;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A socket that reports to its connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// Read already, to be read again.
    replay: BytesMut,
    /// Set once the protocol is HTTP/2.
    frames: Option<Frames>,
    conn: Arc<Connection>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, conn: Arc<Connection>) -> Wire {
        Wire {
            stream,
            replay: BytesMut::new(),
            frames: None,
            conn,
        }
    }

    /// Waits for the client's first bytes. `Ok(false)`: it left without a word.
    pub(super) async fn first_bytes(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.replay).await? > 0)
    }

    /// Reads on until it is clear what the client speaks. A client that leaves midway speaks HTTP/1, whose engine then
    /// meets the end.
    pub(super) async fn protocol(&mut self) -> io::Result<Protocol> {
        loop {
            let compared = self.replay.len().min(PREFACE.len());
            if self.replay[..compared] != PREFACE[..compared] {
                return Ok(Protocol::Http1);
            }
            if compared == PREFACE.len() {
                self.frames = Some(Frames::new(PREFACE.len()));
                return Ok(Protocol::Http2);
            }
            if self.stream.read_buf(&mut self.replay).await? == 0 {
                return Ok(Protocol::Http1);
            }
        }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let owes_more = match &mut self.frames {
            Some(frames) => {
                frames.feed(bytes);
                frames.owes_more()
            }
            None => true,
        };
        self.conn.saw_bytes(owes_more);
    }

    /// Passes a result on, and notes that the client is gone if it is a failure.
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_| self.conn.peer_left())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.replay.is_empty() {
            let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
            this.noted(result)?;
        } else {
            let size = this.replay.len().min(buf.remaining());
            buf.put_slice(&this.replay[..size]);
            this.replay.advance(size);
        }
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            this.saw(read);
        } else if buf.remaining() > 0 {
            this.conn.peer_left();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.noted(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.noted(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.noted(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
