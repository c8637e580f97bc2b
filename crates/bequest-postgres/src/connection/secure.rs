//! Agreeing on TLS.

use tokio_postgres::config::SslMode;
#[cfg(feature = "tls")]
use {
    crate::tls::Tls,
    tokio::io::{AsyncReadExt, AsyncWriteExt},
    tokio::net::TcpStream,
    tokio_postgres::Config,
    tokio_postgres::config::SslNegotiation,
};

use super::socket::Socket;
use crate::error::Error;
use crate::options::Options;

/// Length, and the number that asks for TLS ([message formats], `SSLRequest`).
///
/// [message formats]: https://www.postgresql.org/docs/current/protocol-message-formats.html
#[cfg(feature = "tls")]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The server will.
#[cfg(feature = "tls")]
const WILLING: u8 = b'S';
/// The server will not.
#[cfg(feature = "tls")]
const UNWILLING: u8 = b'N';

/// Refuses what would silently not be done.
pub(crate) fn check(options: &Options) -> Result<(), Error> {
    match options.config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(()),
        _ if has_tls(options) => Ok(()),
        _ => Err(Error::settings(
            "the configuration requires TLS, which needs the feature `tls`",
        )),
    }
}

#[cfg(feature = "tls")]
fn has_tls(options: &Options) -> bool {
    options.tls.is_some()
}

#[cfg(not(feature = "tls"))]
fn has_tls(_options: &Options) -> bool {
    false
}

/// TLS on `socket`, as far as `mode` wants it and the server will. `name` is what its certificate must be for.
///
/// Sockets of the local system are not encrypted, as everywhere.
#[cfg(feature = "tls")]
pub(super) async fn secure(
    socket: Socket,
    name: &str,
    mode: SslMode,
    options: &Options,
) -> Result<Socket, Error> {
    let Some(tls) = &options.tls else {
        return Ok(socket);
    };
    match socket {
        Socket::Tcp(socket) if mode != SslMode::Disable => {
            agree(socket, name, mode, tls, &options.config).await
        }
        other => Ok(other),
    }
}

/// Without the feature there is nothing to agree on; [`check`] has refused what requires it.
#[cfg(not(feature = "tls"))]
pub(super) async fn secure(
    socket: Socket,
    _name: &str,
    _mode: SslMode,
    _options: &Options,
) -> Result<Socket, Error> {
    Ok(socket)
}

#[cfg(feature = "tls")]
async fn agree(
    mut socket: TcpStream,
    name: &str,
    mode: SslMode,
    tls: &Tls,
    config: &Config,
) -> Result<Socket, Error> {
    if config.get_ssl_negotiation() == SslNegotiation::Postgres {
        match ask(&mut socket).await {
            Ok(WILLING) => {}
            Ok(UNWILLING) if mode == SslMode::Prefer => return Ok(Socket::Tcp(socket)),
            Ok(UNWILLING) => return Err(Error::tls(name, "the server does not speak TLS")),
            Ok(_) => return Err(Error::tls(name, "what answered is no PostgreSQL server")),
            Err(error) => return Err(Error::unreachable(name.to_owned(), error)),
        }
    }
    match tls.handshake(socket, name).await {
        Ok(socket) => Ok(Socket::Tls(socket)),
        Err(error) => Err(Error::tls(name, error)),
    }
}

/// Whether the server will. Exactly one byte is read: whatever somebody on the way has put behind it becomes part of the
/// handshake, and fails it.
#[cfg(feature = "tls")]
async fn ask(socket: &mut TcpStream) -> std::io::Result<u8> {
    socket.write_all(&SSL_REQUEST).await?;
    socket.read_u8().await
}
