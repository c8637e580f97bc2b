//! A socket to the server, of whichever kind, and how the driver is told of it.
//!
//! TLS is agreed on by [`secure`], before the driver sees the socket: so what is read along ([`super::Watched`]) is the
//! plain text, and a cancel request goes the same way as the session that it is about. To the driver it is said that there
//! is TLS already ([`Spoken`]), so that it can bind a password to the certificate.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::Watched;

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// TLS has been agreed on.
    #[cfg(feature = "tls")]
    Tls(Box<dyn TlsStream + Send + Unpin>),
}

impl Socket {
    /// What the driver is to be told.
    pub(super) fn describe(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if self.is_secure() {
            config
                .ssl_mode(SslMode::Require)
                .ssl_negotiation(SslNegotiation::Direct);
        } else {
            config.ssl_mode(SslMode::Disable);
        }
        config
    }

    pub(super) fn is_secure(&self) -> bool {
        match self {
            Socket::Tcp(_) => false,
            #[cfg(unix)]
            Socket::Unix(_) => false,
            #[cfg(feature = "tls")]
            Socket::Tls(_) => true,
        }
    }
}

/// Does what is written behind it on the socket inside.
macro_rules! inside {
    ($socket:expr, $inner:ident => $does:expr) => {
        match $socket {
            Socket::Tcp($inner) => $does,
            #[cfg(unix)]
            Socket::Unix($inner) => $does,
            #[cfg(feature = "tls")]
            Socket::Tls($inner) => $does,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_read(task, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_write(task, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_flush(task))
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(task))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(socket) => socket.channel_binding(),
            _ => ChannelBinding::none(),
        }
    }
}

impl TlsStream for Watched<Socket> {
    fn channel_binding(&self) -> ChannelBinding {
        self.socket().channel_binding()
    }
}

/// A socket that stays open when the driver closes it: the server is to be the one that closes a cancel's connection.
///
/// A half-closed connection is closed by some that are in between as soon as they see it, and that would look like the
/// server's word.
pub(crate) struct Unclosed<'a>(pub(crate) &'a mut Socket);

impl AsyncRead for Unclosed<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(task, buffer)
    }
}

impl AsyncWrite for Unclosed<'_> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(task)
    }
}

impl TlsStream for Unclosed<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// For the driver: a handshake that has been made already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spoken;

impl<S: TlsStream + Unpin> TlsConnect<S> for Spoken {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
