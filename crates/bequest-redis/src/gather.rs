//! A socket that waits for others before it writes: commands that are about to be sent leave together.
//!
//! With `TCP_NODELAY` each write is a packet, and each packet is a call of the system here and one at the server. Without
//! it, a command waits for the answer to the one before, a whole round trip. So the first write yields once: tasks that are
//! ready run, their commands join the driver's buffer, and then all of it is written. When nobody else is ready, that costs
//! one turn of the scheduler.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket whose writes leave together.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    socket: S,
    /// Whether the others have had their turn since the last flush.
    has_yielded: bool,
}

impl<S> Gathering<S> {
    pub(crate) fn new(socket: S) -> Gathering<S> {
        Gathering {
            socket,
            has_yielded: false,
        }
    }

    fn poll_turn(&mut self, task: &Context<'_>) -> Poll<()> {
        if !self.has_yielded {
            self.has_yielded = true;
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_turn(task) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write(task, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_turn(task) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write_vectored(task, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_yielded = false;
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(task, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_write_lets_others_go_first_once_and_loses_nothing() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Gathering::new(near);
        let turns = Arc::new(AtomicUsize::new(0));
        let other = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        near.write_all(b"one").await.unwrap();
        assert_eq!(turns.load(Ordering::Relaxed), 1, "it was ready, and had its turn");
        other.await.unwrap();
        // The rest of the same flush leaves at once.
        let at_once = poll_fn(|task| Poll::Ready(Pin::new(&mut near).poll_write(task, b"two"))).await;
        assert!(matches!(at_once, Poll::Ready(Ok(3))), "{at_once:?}");
        near.flush().await.unwrap();
        let again = poll_fn(|task| Poll::Ready(Pin::new(&mut near).poll_write(task, b"three"))).await;
        assert!(again.is_pending(), "after a flush others go first again");
        near.write_all(b"three").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "onetwothree");
    }
}
