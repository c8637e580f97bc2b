//! Where a server is, and how one comes to speak with it: the address, the login, the name of the client, TLS.
//!
//! Not here: what is said afterwards.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult,
};
use tokio::net::{TcpStream, UnixStream};

use crate::options::Settings;
#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsSocket};

/// After how long of silence the system asks the peer whether it is still there, and how often.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10));

/// One server and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// The address in it is a plain one, also where TLS is spoken.
    info: ConnectionInfo,
    name: Option<String>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// A socket that is connected, and nothing said on it.
pub(crate) enum Opened {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
}

impl Endpoint {
    /// What `url` and `settings` say.
    pub(crate) fn of(url: &str, settings: &Settings) -> RedisResult<Endpoint> {
        let plain = without_tls(url);
        let info = plain.as_deref().unwrap_or(url).into_connection_info()?;
        if !matches!(info.addr(), ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_)) {
            return Err(unsupported());
        }
        let name = settings.name.clone();
        if name.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(unfit("a client's name is made of visible ASCII characters"));
        }
        #[cfg(not(feature = "tls"))]
        if plain.is_some() {
            return Err(unfit("`rediss` needs the feature `tls`"));
        }
        Ok(Endpoint {
            info,
            name,
            #[cfg(feature = "tls")]
            tls: plain.is_some().then(|| Tls::new(&settings.tls)).transpose()?,
        })
    }

    /// The same, at another address.
    pub(crate) fn at(&self, host: &str, port: u16) -> Endpoint {
        let mut other = self.clone();
        let address = ConnectionAddr::Tcp(host.to_owned(), port);
        other.info = other.info.set_addr(address);
        other
    }

    pub(crate) fn address(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    pub(crate) fn has_port(&self) -> bool {
        matches!(self.address(), ConnectionAddr::Tcp(..))
    }

    pub(crate) fn login(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }

    /// What a connection is to be called in `CLIENT LIST`.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) async fn open(&self) -> RedisResult<Opened> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let socket = TcpStream::connect((host.as_str(), *port)).await?;
                adjust(&socket, self.info.tcp_settings())?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    return Ok(Opened::Tls(Box::new(tls.greet(host, socket).await?)));
                }
                Ok(Opened::Tcp(socket))
            }
            ConnectionAddr::Unix(path) => Ok(Opened::Unix(UnixStream::connect(path).await?)),
            _ => Err(unsupported()),
        }
    }
}

impl fmt::Debug for Endpoint {
    /// The address alone: the rest holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.address())
    }
}

/// The same URL without TLS, if it asks for TLS. The driver would open such sockets by itself; ours are our own.
fn without_tls(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let is_tls = ["rediss", "valkeys"]
        .iter()
        .any(|tls| scheme.eq_ignore_ascii_case(tls));
    is_tls.then(|| format!("redis://{rest}"))
}

/// As the server wants it.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Small commands leave at once, and a peer that vanished without a word is noticed on a connection that is idle.
fn adjust(socket: &TcpStream, settings: &TcpSettings) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_keepalive(settings.keepalive().unwrap_or(&KEEPALIVE))
}

fn unsupported() -> RedisError {
    unfit("only TCP and Unix sockets")
}

pub(crate) fn unfit(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}
