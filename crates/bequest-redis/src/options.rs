//! How a client is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, IntoConnectionInfo, Value};

use crate::client::Client;
use crate::connection;
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
#[derive(Clone, Debug)]
pub struct Options {
    url: String,
    pub(crate) settings: Settings,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) connect_limit: Duration,
    pub(crate) blocking_connections: usize,
    pub(crate) grace: Duration,
    pub(crate) unblock_limit: Duration,
    pub(crate) orphans: Option<Sink>,
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
    /// A client of the server at `url`: `redis://[user:password@]host[:port][/db]` or `unix:///path`.
    pub fn new(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            settings: Settings {
                connect_limit: Duration::from_secs(5),
                blocking_connections: 16,
                grace: Duration::from_millis(30),
                unblock_limit: Duration::from_secs(1),
                orphans: None,
            },
        }
    }

    /// How long a call tries to connect, again and again, if its context does not end before. If not set: 5 seconds.
    pub fn connect_limit(mut self, limit: Duration) -> Options {
        self.settings.connect_limit = limit;
        self
    }

    /// How many blocking commands can run at a time, at least 1; further ones wait, first in, first out. Each has a
    /// connection to itself. If not set: 16.
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

    /// Makes the client. Nothing is sent: the first command connects.
    ///
    /// # Errors
    ///
    /// If the URL is none, or asks for what this crate does not have: TLS.
    pub fn open(self) -> Result<Client, Error> {
        let info = self.url.into_connection_info().map_err(Error::connecting)?;
        connection::check(&info).map_err(Error::connecting)?;
        Ok(Client::start(info, self.settings))
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
            .finish()
    }
}
