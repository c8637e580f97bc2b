//! How a client is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use crate::client::Client;
use crate::endpoint::{Endpoint, unfit};
use crate::error::Error;

/// How a client is made: [`Client::open`] with settings.
///
/// # Example
///
/// ```
/// use bequest_redis::Options;
/// use std::time::Duration;
///
/// let client = Options::new("redis://127.0.0.1/")
///     .blocking_connections(4)
///     .connect_limit(Duration::from_secs(1))
///     .open()?;
/// assert_eq!(client.statistics().connected, 0); // the first command connects
/// # Ok::<(), bequest_redis::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they are opened"]
pub struct Options {
    urls: Vec<String>,
    is_cluster: bool,
    pub(crate) settings: Settings,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) connect_limit: Duration,
    pub(crate) blocking_connections: usize,
    pub(crate) grace: Duration,
    pub(crate) unblock_limit: Duration,
    pub(crate) orphans: Option<Sink>,
    pub(crate) name: Option<String>,
    #[cfg(feature = "tls")]
    pub(crate) tls: crate::tls::TlsChoice,
}

pub(crate) type Sink = Arc<dyn Fn(Orphan) + Send + Sync>;

/// The answer to a blocking command whose caller was gone when it came; see [`Options::orphans`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Orphan {
    /// The command as it was given.
    pub command: Cmd,
    /// What the server answered.
    pub reply: Value,
}

impl Options {
    /// A client of the server at `url`: `redis://[user:password@]host[:port][/db]`, the same with `rediss` for TLS
    /// (feature `tls`), or `unix:///path`. With `?protocol=resp3` it speaks RESP 3.
    pub fn new(url: impl Into<String>) -> Options {
        Options::of(vec![url.into()], false)
    }

    /// A client of the cluster to which the servers at `urls` belong, as in [`Client::open_cluster`].
    pub fn cluster<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> Options {
        Options::of(urls.into_iter().map(S::into).collect(), true)
    }

    fn of(urls: Vec<String>, is_cluster: bool) -> Options {
        Options {
            urls,
            is_cluster,
            settings: Settings {
                connect_limit: Duration::from_secs(5),
                blocking_connections: 16,
                grace: Duration::from_millis(30),
                unblock_limit: Duration::from_secs(1),
                orphans: None,
                name: None,
                #[cfg(feature = "tls")]
                tls: crate::tls::TlsChoice::default(),
            },
        }
    }

    /// How long a call tries to connect, again and again, if its context does not end before; of a cluster, how long it tries
    /// in all to have its command run by a node. If not set: 5 seconds.
    pub fn connect_limit(mut self, limit: Duration) -> Options {
        self.settings.connect_limit = limit;
        self
    }

    /// How many blocking commands can run at a time, at least 1; further ones wait, first in, first out. Each has a
    /// connection to itself. Of a cluster: at each node. If not set: 16.
    pub fn blocking_connections(mut self, count: usize) -> Options {
        self.settings.blocking_connections = count.max(1);
        self
    }

    /// How long a blocking call whose context has ended waits to hear from the server what became of its command. After
    /// that it answers in doubt, and the rest happens in the background. If not set: 30 milliseconds.
    ///
    /// A server that answers needs a round trip or two; so set it above the network's latency. It is what a call may
    /// come late by.
    pub fn grace(mut self, grace: Duration) -> Options {
        self.settings.grace = grace;
        self
    }

    /// How long the server may take, in all, to end a blocking command that is given up. After that the connection is
    /// closed. If not set: 1 second.
    pub fn unblock_limit(mut self, limit: Duration) -> Options {
        self.settings.unblock_limit = limit;
        self
    }

    /// Who is given the answers to blocking commands whose caller is gone: a job that was taken off its list just when
    /// its worker left. If not set, elements are put back where they were taken from.
    ///
    /// `sink` is called on a task of the runtime, and is to be quick. It is given every such answer, also those that are
    /// safe with the server as they are: an element moved by `BLMOVE` is in its destination, an entry read by
    /// `XREADGROUP` is pending.
    pub fn orphans(mut self, sink: impl Fn(Orphan) + Send + Sync + 'static) -> Options {
        self.settings.orphans = Some(Arc::new(sink));
        self
    }

    /// What the connections are called in `CLIENT LIST`, for people who look there: visible ASCII characters. If not set:
    /// nothing. A subscription's connection has no name.
    pub fn client_name(mut self, name: impl Into<String>) -> Options {
        self.settings.name = Some(name.into());
        self
    }

    /// Whose signature a server's certificate must bear, in PEM, instead of those that the system trusts. For `rediss`.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Options {
        self.settings.tls.roots = Some(pem.into());
        self
    }

    /// The certificate by which a server may know this client, with what leads to its authority, and its key; both in
    /// PEM. For `rediss`.
    #[cfg(feature = "tls")]
    pub fn client_certificate(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Options {
        self.settings.tls.client = Some((chain.into(), key.into()));
        self
    }

    /// How TLS is spoken, in every respect, in place of [`root_certificates`](Options::root_certificates) and
    /// [`client_certificate`](Options::client_certificate): for settings that a program has already. For `rediss`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: rustls::ClientConfig) -> Options {
        self.settings.tls.config = Some(Arc::new(config));
        self
    }

    /// Makes the client. Nothing is sent: the first command connects.
    ///
    /// # Errors
    ///
    /// If the URL is none, or a name, a certificate or a key is not one; if it asks for TLS and the crate was built
    /// without the feature `tls`.
    pub fn open(self) -> Result<Client, Error> {
        let settings = self.settings;
        let endpoints = self.urls.iter().map(|url| Endpoint::of(url, &settings));
        let mut endpoints = endpoints
            .collect::<RedisResult<Vec<_>>>()
            .map_err(Error::connecting)?;
        if self.is_cluster {
            let error = match endpoints.as_slice() {
                [] => Some("a cluster is looked for at one URL at least"),
                all if all.iter().any(|one| one.login().db() != 0) => Some("a cluster has but one database"),
                all if !all.iter().all(Endpoint::has_port) => {
                    Some("a cluster is not reached by a Unix socket")
                }
                _ => None,
            };
            return match error {
                Some(why) => Err(Error::connecting(unfit(why))),
                None => Ok(Client::start_cluster(endpoints, settings)),
            };
        }
        let endpoint = endpoints.pop().expect("there is one URL");
        Ok(Client::start(endpoint, &settings))
    }
}

impl fmt::Debug for Options {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("is_cluster", &self.is_cluster)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("connect_limit", &self.connect_limit)
            .field("blocking_connections", &self.blocking_connections)
            .field("grace", &self.grace)
            .field("unblock_limit", &self.unblock_limit)
            .field("has_sink", &self.orphans.is_some())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
