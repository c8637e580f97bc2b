//! Where a connection goes: found once, by name, and used again for its cancel requests, by address.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::{Path, PathBuf};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};

use super::socket::Socket;
use crate::error::Error;

/// The port that is meant when none is said.
const PORT: u16 = 5432;

/// A server, by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Peer {
    /// Connects to this very server.
    pub(crate) async fn dial(&self, config: &Config) -> io::Result<Socket> {
        match self {
            Peer::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                if config.get_keepalives() {
                    SockRef::from(&socket).set_tcp_keepalive(&probes(config))?;
                }
                Ok(Socket::Tcp(socket))
            }
            #[cfg(unix)]
            Peer::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// Connects to the first of the configured hosts that can be reached. With it comes the name by which it was meant.
pub(crate) async fn dial(config: &Config) -> Result<(Peer, String, Socket), Error> {
    let mut last = Error::settings("the configuration names no host");
    for (index, host) in hosts(config).into_iter().enumerate() {
        let ports = config.get_ports();
        // One port for all, or one for each, which the driver has seen to.
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        let peers = match host.peers(port).await {
            Ok(peers) => peers,
            Err(error) => {
                last = Error::unreachable(host.to_string(), error);
                continue;
            }
        };
        for peer in peers {
            match peer.dial(config).await {
                Ok(socket) => return Ok((peer, name(config, index, &host), socket)),
                Err(error) => last = Error::unreachable(peer.to_string(), error),
            }
        }
    }
    Err(last)
}

/// Refuses what would silently not be done.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    if config.get_target_session_attrs() != TargetSessionAttrs::Any {
        return Err(Error::settings("`target_session_attrs` is not supported"));
    }
    if config.get_load_balance_hosts() != LoadBalanceHosts::Disable {
        return Err(Error::settings("`load_balance_hosts` is not supported"));
    }
    Ok(())
}

/// What a certificate of the host must be for: the name that stands beside an address, if there is one.
fn name(config: &Config, index: usize, host: &Place<'_>) -> String {
    match config.get_hosts().get(index) {
        Some(Host::Tcp(name)) => name.clone(),
        _ => host.to_string(),
    }
}

enum Place<'a> {
    Address(IpAddr),
    Name(&'a str),
    #[cfg(unix)]
    Folder(&'a Path),
}

/// The hosts in the order of the configuration; an address stands for the name beside it.
fn hosts(config: &Config) -> Vec<Place<'_>> {
    let addresses = config.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().copied().map(Place::Address).collect();
    }
    config.get_hosts().iter().map(Place::of).collect()
}

impl<'a> Place<'a> {
    fn of(host: &'a Host) -> Place<'a> {
        match host {
            Host::Tcp(name) => Place::Name(name),
            #[cfg(unix)]
            Host::Unix(folder) => Place::Folder(folder),
        }
    }

    async fn peers(&self, port: u16) -> io::Result<Vec<Peer>> {
        Ok(match *self {
            Place::Address(address) => vec![Peer::Tcp((address, port).into())],
            Place::Name(name) => tokio::net::lookup_host((name, port))
                .await?
                .map(Peer::Tcp)
                .collect(),
            #[cfg(unix)]
            Place::Folder(folder) => vec![Peer::Unix(folder.join(format!(".s.PGSQL.{port}")))],
        })
    }
}

fn probes(config: &Config) -> TcpKeepalive {
    let mut probes = TcpKeepalive::new().with_time(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        probes = probes.with_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        probes = probes.with_retries(retries);
    }
    probes
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            #[cfg(unix)]
            Peer::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => write!(f, "{address}"),
            Place::Name(name) => f.write_str(name),
            #[cfg(unix)]
            Place::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}
