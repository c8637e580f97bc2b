//! A connection's socket, shared by whoever reads and writes it and whoever watches it.
//!
//! Reading keeps tokio's own path, which knows from a short read that nothing more is there and spares a system call;
//! that is why the socket is split, and not merely shared.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::peer::PeerState;

/// Pieces that are no more than this together are sent as one: to copy them is less than what the system takes for a list.
const SMALL: usize = 1024;

/// The end of a socket that is read and written.
#[derive(Debug)]
pub(super) struct Socket {
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
    /// How many bytes the system has taken to be sent, ever.
    taken: u64,
}

/// The end of a socket that is watched: it never reads.
#[derive(Clone, Debug)]
pub(super) struct Lookout(Held);

#[derive(Clone, Debug)]
enum Held {
    /// Of a socket that is read and written here.
    Half(Arc<OwnedWriteHalf>),
    /// A second handle on one that is read and written elsewhere.
    Whole(Arc<TcpStream>),
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Socket {
        let (read, write) = stream.into_split();
        Socket {
            read,
            write: Arc::new(write),
            taken: 0,
        }
    }

    /// Waits until something can be read, the end included, and leaves it there.
    #[cfg(feature = "tls")]
    pub(super) async fn first_byte(&mut self) -> io::Result<()> {
        self.read.peek(&mut [0]).await.map(drop)
    }

    /// How many bytes the system has taken to be sent, ever.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn lookout(&self) -> Lookout {
        Lookout(Held::Half(self.write.clone()))
    }

    fn stream(&self) -> &TcpStream {
        self.read.as_ref()
    }
}

impl Lookout {
    /// Watches a socket that is read and written elsewhere. Its drop closes this handle on it, and nothing else.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn of(second: Arc<TcpStream>) -> Lookout {
        Lookout(Held::Whole(second))
    }

    fn stream(&self) -> &TcpStream {
        match &self.0 {
            Held::Half(half) => (**half).as_ref(),
            Held::Whole(stream) => stream,
        }
    }

    /// Asks the system whether something has come that was not read.
    pub(super) fn has_unread(&self) -> bool {
        let peeked = SockRef::from(self.stream()).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_ok_and(|bytes| bytes > 0)
    }

    /// Closes both directions, whoever holds the socket.
    pub(super) fn hang_up(&self) {
        // Fails only if the connection is over already.
        let _ = SockRef::from(self.stream()).shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Lookout {
    /// What the client has done to the connection as far as the runtime knows: no system call, no wait.
    pub(super) fn glance(&self) -> Option<PeerState> {
        use tokio::io::Interest;
        // The interest in urgent data comes with the end of reading, and without reading itself.
        self.stream().try_io(Interest::PRIORITY, || Ok(())).ok()?;
        match self.stream().try_io(Interest::ERROR, || Ok(())) {
            Ok(()) => Some(self.failure()),
            Err(_) => Some(PeerState::HalfClosed),
        }
    }

    /// Waits until the client closes its sending side, whatever of what it sent is still unread, or resets the connection.
    pub(super) async fn departure(&self) -> PeerState {
        use tokio::io::Interest;
        match self.stream().ready(Interest::PRIORITY).await {
            Ok(_) => self.glance().unwrap_or(PeerState::HalfClosed),
            Err(error) => PeerState::of_error(&error),
        }
    }

    /// Waits until the connection has failed.
    pub(super) async fn reset(&self) -> PeerState {
        match self.stream().ready(tokio::io::Interest::ERROR).await {
            Ok(_) => self.failure(),
            Err(error) => PeerState::of_error(&error),
        }
    }

    /// Why the socket failed. The error is taken from the socket, so only the first who asks hears of it.
    fn failure(&self) -> PeerState {
        match self.stream().take_error() {
            Ok(Some(error)) | Err(error) => PeerState::of_error(&error),
            Ok(None) => PeerState::Reset,
        }
    }
}

/// Elsewhere the runtime does not tell the end of reading from data; what remains is the read-ahead.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Lookout {
    pub(super) fn glance(&self) -> Option<PeerState> {
        None
    }

    pub(super) async fn departure(&self) -> PeerState {
        std::future::pending().await
    }

    pub(super) async fn reset(&self) -> PeerState {
        std::future::pending().await
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream().poll_write_ready(cx))?;
            match send(self.stream(), bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.taken += result.as_ref().map_or(0, |taken| *taken as u64);
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(self.stream()).shutdown(std::net::Shutdown::Write) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// Hands pieces to the system, in one call.
fn send(stream: &TcpStream, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let size = bufs.iter().map(|buf| buf.len()).sum::<usize>();
    match bufs {
        [one] => stream.try_write(one),
        _ if size <= SMALL => {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; SMALL];
            let mut copy = ReadBuf::uninit(&mut space);
            bufs.iter().for_each(|buf| copy.put_slice(buf));
            stream.try_write(copy.filled())
        }
        _ => stream.try_write_vectored(bufs),
    }
}
