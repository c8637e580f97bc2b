//! A connection as the pool gets it: with what its peer has said while nobody used it.
//!
//! A peer of HTTP/2 speaks first (its SETTINGS, RFC 9113 §3.4), so what it says on a connection that is kept is put by. One of
//! HTTP/1 has nothing to say before it is asked.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

use super::observe::{Line, Observed};
use super::silence::Silence;

/// More than this is no greeting.
const GREETING: usize = 4096;

/// A connection, and what was heard on it.
#[derive(Debug)]
pub(super) struct Kept<T> {
    io: T,
    /// To be read before what the peer says from now on.
    heard: BytesMut,
    observed: Observed,
    /// How long it was dialled, if anybody observed that.
    dial: Option<Duration>,
    /// The peer's, if its protocol leaves it to the system to ask.
    silence: Option<Silence>,
}

impl<T: Read + Unpin> Kept<T> {
    pub(super) fn new(
        io: T,
        observed: Observed,
        dial: Option<Duration>,
        silence: Option<Silence>,
    ) -> Kept<T> {
        Kept {
            io,
            heard: BytesMut::new(),
            observed,
            dial,
            silence,
        }
    }

    /// Ready when the connection is of no use any more: it was closed, or its peer says what it should not.
    pub(super) fn poll_spoiled(&mut self, cx: &mut TaskContext<'_>, may_speak: bool) -> Poll<()> {
        loop {
            let mut space = [MaybeUninit::uninit(); 512];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()));
            let said = buffer.filled();
            if read.is_err() || said.is_empty() || !may_speak || self.heard.len() + said.len() > GREETING {
                return Poll::Ready(());
            }
            self.heard.extend_from_slice(said);
        }
    }
}

impl<T: Read + Unpin> Read for Kept<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_empty() {
            let read = Pin::new(&mut self.io).poll_read(cx, buffer);
            return match &mut self.silence {
                // Whatever is waited for, the engine waits for bytes as well.
                Some(silence) if read.is_pending() => silence.poll_lost(cx).map(|()| Err(silent())),
                _ => read,
            };
        }
        let length = self.heard.len().min(buffer.remaining());
        buffer.put_slice(&self.heard[..length]);
        self.heard.advance(length);
        Poll::Ready(Ok(()))
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer has fallen silent")
}

impl<T: Write + Unpin> Write for Kept<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

impl<T: Connection> Connection for Kept<T> {
    /// Asked once, when an exchange has it.
    fn connected(&self) -> Connected {
        let connected = self.io.connected();
        match self.observed.is_noted() {
            true => connected.extra(Arc::new(Line::new(self.dial))),
            false => connected,
        }
    }
}
