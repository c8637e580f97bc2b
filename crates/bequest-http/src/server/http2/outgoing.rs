//! The writing side of a tunnel: what is written waits here, and not with whoever writes it, until its client has room.
//!
//! `h2` keeps room for whoever claims it. A write that claims some and is given up would keep that from all other streams of the
//! connection, as nobody can tell that it was given up. So a task claims, and holds what it is for.
//!
//! # Invariants
//!
//! 1. Nothing is claimed without data in hand, and there is one piece in hand at the most.
//! 2. What was written before the end of writing, or before the drop, is sent before that is told.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream};

use super::super::connection::Connection;
use super::pipe::poll_room;

/// How much waits to be taken in hand, and how much is taken at once.
const PIECE: usize = 16 * 1024;

/// What is written into a stream. Its drop ends the stream in good order.
pub(super) struct Outgoing {
    pipe: DuplexStream,
    failed: Arc<OnceLock<h2::Error>>,
}

impl Outgoing {
    /// Writes into this stream of a connection, by a task of its own.
    pub(super) fn into_stream(stream: SendStream<Bytes>, conn: &Connection) -> Outgoing {
        let (pipe, written) = tokio::io::duplex(PIECE);
        let failed = Arc::new(OnceLock::new());
        let (server, tell) = (conn.server(), failed.clone());
        let guard = server.tally.task();
        let task = async move {
            let mut written = written;
            if let Err(error) = send(&mut written, stream).await {
                // Before the pipe breaks, so that whoever meets that knows why.
                let _ = tell.set(error);
            }
            drop((written, guard));
        };
        // Not joined: the guard is what shutdown waits for.
        drop(server.runtime.spawn(server.dropping.clone().run_owned(task)));
        Outgoing { pipe, failed }
    }

    /// Why nothing can be written, if that is more than that the pipe is broken.
    fn explained(&self, error: io::Error) -> io::Error {
        match self.failed.get().and_then(h2::Error::reason) {
            Some(reason) => io::Error::new(io::ErrorKind::ConnectionReset, h2::Error::from(reason)),
            None if self.failed.get().is_some() => io::ErrorKind::ConnectionReset.into(),
            None => error,
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| self.explained(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Sends what is written until that has ended, then the end; or until the client wants no more.
async fn send(written: &mut DuplexStream, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut piece = BytesMut::new();
    loop {
        piece.reserve(PIECE);
        tokio::select! {
            biased;
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(reset?.into()),
            // The pipe has no error of its own.
            read = written.read_buf(&mut piece) => if read.unwrap_or_default() == 0 {
                return stream.send_data(Bytes::new(), true);
            },
        }
        stream.reserve_capacity(1);
        poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(reset.and_then(|reason| Err(reason.into()))),
            Poll::Pending => poll_room(&mut stream, cx),
        })
        .await?;
        stream.send_data(piece.split().freeze(), false)?;
    }
}
