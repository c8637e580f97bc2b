//! What the server says about itself: whether a transaction is open.
//!
//! The server ends each answer with a byte that says so, and the driver keeps it to itself. [`Watched`] reads along: it
//! sits between the socket and the driver, follows the frames, and notes that byte. It changes nothing.
//!
//! # Invariants
//!
//! 1. The byte is noted before the driver sees it: who has got the end of an answer from the driver reads the state
//!    after it.
//! 2. What is not understood is [`Status::Unknown`], never [`Status::Idle`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context as Task, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The state in which the server's last answer left the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// No transaction is open.
    Idle,
    /// A transaction is open.
    Transaction,
    /// A transaction is open and has failed: it can only be rolled back.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// The last status byte. Written by the task that reads the socket, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct StatusByte(AtomicU8);

impl StatusByte {
    pub(crate) fn get(&self) -> Status {
        // The order is the driver's: its channel brings the end of the answer, and with it this write.
        match self.0.load(Ordering::Relaxed) {
            b'I' => Status::Idle,
            b'T' => Status::Transaction,
            b'E' => Status::Failed,
            _ => Status::Unknown,
        }
    }

    fn set(&self, byte: u8) {
        self.0.store(byte, Ordering::Relaxed);
    }
}

/// A socket whose incoming frames are followed.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    frames: Frames,
    status: Arc<StatusByte>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S) -> (Watched<S>, Arc<StatusByte>) {
        let status = Arc::new(StatusByte::default());
        let watched = Watched {
            socket,
            frames: Frames::default(),
            status: Arc::clone(&status),
        };
        (watched, status)
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(task, buffer);
        if let Some(byte) = this.frames.follow(&buffer.filled()[before..]) {
            this.status.set(byte);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}

/// A kind, and a length that counts itself.
const HEADER: usize = 5;
const LENGTH: usize = 4;
/// The kind of the frame that ends an answer.
const READY_FOR_QUERY: u8 = b'Z';

/// Where in a frame the stream is.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    /// How much of the header has come.
    known: usize,
    /// How much of the body is still to come.
    body: usize,
}

impl Frames {
    /// The last status byte among `bytes`, if there is one.
    fn follow(&mut self, mut bytes: &[u8]) -> Option<u8> {
        let mut last = None;
        while let Some((first, rest)) = bytes.split_first() {
            let whole = bytes.split_first_chunk().filter(|_| self.known == 0);
            if let Some((header, body)) = whole {
                // As a rule the header comes in one piece.
                bytes = body;
                self.begin(*header);
            } else if self.known < HEADER {
                bytes = rest;
                self.header[self.known] = *first;
                self.known += 1;
                if self.known == HEADER {
                    self.begin(self.header);
                }
            } else {
                if self.header[0] == READY_FOR_QUERY {
                    last = Some(*first);
                }
                let skipped = self.body.min(bytes.len());
                self.body -= skipped;
                bytes = &bytes[skipped..];
            }
            if self.known == HEADER && self.body == 0 {
                self.known = 0;
            }
        }
        last
    }

    fn begin(&mut self, header: [u8; HEADER]) {
        let [_, length @ ..] = header;
        self.header = header;
        self.known = HEADER;
        // A length below its own is nonsense, of which the driver makes an error.
        self.body = (u32::from_be_bytes(length) as usize).saturating_sub(LENGTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row whose text looks like the end of an answer, then the true one.
    const ANSWER: &[u8] = b"D\0\0\0\x0bZ\0\0\0\x05IZC\0\0\0\x04Z\0\0\0\x05T";

    #[test]
    fn the_byte_is_found_however_the_stream_is_cut() {
        for cut in 0..=ANSWER.len() {
            let (first, second) = ANSWER.split_at(cut);
            let mut frames = Frames::default();
            let found = [frames.follow(first), frames.follow(second)];
            assert_eq!(
                found.into_iter().flatten().collect::<Vec<_>>(),
                [b'T'],
                "cut at {cut}"
            );
        }
        let mut frames = Frames::default();
        let found: Vec<u8> = ANSWER.iter().filter_map(|byte| frames.follow(&[*byte])).collect();
        assert_eq!(found, [b'T'], "byte by byte");
    }

    #[test]
    fn of_several_answers_the_last_counts() {
        assert_eq!(Frames::default().follow(b"Z\0\0\0\x05TZ\0\0\0\x05I"), Some(b'I'));
    }

    #[test]
    fn what_is_not_known_is_not_idle() {
        let status = StatusByte::default();
        assert_eq!(status.get(), Status::Unknown);
        status.set(b'?');
        assert_eq!(status.get(), Status::Unknown);
        status.set(b'E');
        assert_eq!(status.get(), Status::Failed);
    }
}
