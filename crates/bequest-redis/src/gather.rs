//! A socket that waits for others before it writes: commands that are about to be sent leave together.
//!
//! With `TCP_NODELAY` each write is a packet, and each packet is a call of the system here and one at the server. Without
//! it, a command waits for the answer to the one before, a whole round trip. So a write yields once: tasks that are ready
//! run, their commands join the driver's buffer, and then all of it is written. A turn of the scheduler costs some
//! microseconds when nobody else is ready. So it is looked whether the buffer has grown meanwhile; if not, the next flushes
//! do without, twice as many each time up to a bound.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// After how many flushes without a turn it is tried again, at most.
const LONGEST: u32 = 64;

/// A socket whose writes leave together.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    socket: S,
    turn: Turn,
    /// How many flushes go by without a turn after one that was in vain.
    pause: u32,
    /// How many of these are left.
    left: u32,
}

/// Whether the others have had their turn since the last flush.
#[derive(Debug)]
enum Turn {
    Due,
    /// They have it now; so much was to be written before.
    Given(usize),
    Over,
}

impl<S> Gathering<S> {
    pub(crate) fn new(socket: S) -> Gathering<S> {
        Gathering {
            socket,
            turn: Turn::Due,
            pause: 0,
            left: 0,
        }
    }

    /// `length` is what is to be written as it stands.
    fn poll_turn(&mut self, task: &Context<'_>, length: usize) -> Poll<()> {
        match self.turn {
            Turn::Due if self.left > 0 => self.left -= 1,
            Turn::Due => {
                self.turn = Turn::Given(length);
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            Turn::Given(before) => {
                self.pause = if length > before {
                    0
                } else {
                    (2 * self.pause).clamp(1, LONGEST)
                };
                self.left = self.pause;
            }
            Turn::Over => {}
        }
        self.turn = Turn::Over;
        Poll::Ready(())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_turn(task, bytes.len()) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write(task, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.iter().map(|part| part.len()).sum();
        match self.poll_turn(task, length) {
            Poll::Ready(()) => Pin::new(&mut self.socket).poll_write_vectored(task, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn = Turn::Due;
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
    use tokio::task::unconstrained;

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
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "onetwo");
    }

    /// How many of `flushes` give others a turn, if by then `grown` more bytes are to be written.
    async fn turns(flushes: usize, grown: usize) -> usize {
        let mut near = Gathering::new(tokio::io::sink());
        let mut turns = 0;
        for _ in 0..flushes {
            let mut length = 10;
            let all = poll_fn(|task| Poll::Ready(Pin::new(&mut near).poll_write(task, &[0; 99][..length])));
            if all.await.is_pending() {
                turns += 1;
                length += grown;
                near.write_all(&[0; 99][..length]).await.unwrap();
            }
            near.flush().await.unwrap();
        }
        turns
    }

    #[tokio::test]
    async fn turns_are_given_where_they_gather_something() {
        assert_eq!(unconstrained(turns(1000, 10)).await, 1000);
        assert!(
            unconstrained(turns(1000, 0)).await < 25,
            "hardly ever, where nobody else is ready"
        );
    }
}
