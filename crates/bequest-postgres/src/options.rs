//! How a database is opened.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bequest::Context;
use tokio_postgres::Config;

use crate::client::Database;
use crate::error::Error;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How a database is opened: [`Database::open`] with settings.
///
/// # Example
///
/// ```
/// use bequest_postgres::Options;
/// use std::time::Duration;
///
/// let options = Options::from_url("postgres://ana@localhost/shop")?.connections(4).max_age(Duration::from_secs(600));
/// assert!(format!("{options:?}").contains("connections: 4"));
/// assert!(Options::from_url("mysql://localhost").is_err());
/// # Ok::<(), bequest_postgres::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they are opened"]
pub struct Options {
    pub(crate) config: Config,
    pub(crate) connections: usize,
    pub(crate) cancels: usize,
    pub(crate) patience: Duration,
    pub(crate) settle_limit: Duration,
    pub(crate) connect_limit: Duration,
    pub(crate) idle_check: Duration,
    pub(crate) max_age: Duration,
    pub(crate) statements: usize,
    pub(crate) server_limits: bool,
    pub(crate) discard_after_cancel: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl Options {
    /// With the driver's configuration: hosts, user, password, database, keep-alive probes.
    ///
    /// A configuration that requires TLS is refused when the database is opened, unless the feature `tls` is on; and so is
    /// one that asks for a kind of server (`target_session_attrs`) or for hosts in random order. Several hosts are tried in
    /// turn.
    pub fn new(config: Config) -> Options {
        Options {
            config,
            connections: 10,
            cancels: 8,
            patience: Duration::from_millis(25),
            settle_limit: Duration::from_secs(5),
            connect_limit: Duration::from_secs(5),
            idle_check: Duration::from_secs(30),
            max_age: Duration::from_secs(30 * 60),
            statements: 256,
            server_limits: true,
            discard_after_cancel: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// With a configuration from its URL, `postgres://user:password@host:port/database?…`, or its list of words.
    ///
    /// With the feature `tls` a URL may say `sslmode=verify-full` or `verify-ca`, both of which mean what `require` means
    /// here (see `Tls`), and name a file with the certificates to trust: `sslrootcert=…`.
    ///
    /// # Errors
    ///
    /// If that is neither; if the file can not be used.
    pub fn from_url(url: &str) -> Result<Options, Error> {
        #[cfg(feature = "tls")]
        let (url, tls) = words::of_tls(url)?;
        #[cfg(feature = "tls")]
        let url = &*url;
        let config =
            Config::from_str(url).map_err(|error| Error::postgres_at(crate::Step::Connecting, error))?;
        let options = Options::new(config);
        #[cfg(feature = "tls")]
        let options = Options { tls, ..options };
        Ok(options)
    }

    /// How connections are encrypted. The configuration's `sslmode` says when: `disable`, never; `prefer`, unless the server
    /// says that it does not speak TLS; `require`, always.
    ///
    /// If not set: `require` trusts whom the system trusts, and `prefer` does not encrypt. Cancel requests are encrypted as
    /// the session is that they are about.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Options {
        self.tls = Some(tls);
        self
    }

    /// With what is only looked for when it is needed.
    pub(crate) fn ready(self) -> Result<Options, Error> {
        #[cfg(feature = "tls")]
        if self.tls.is_none() && self.config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
            return Ok(self.tls(Tls::system()?));
        }
        Ok(self)
    }

    /// How many connections there may be, at least 1. If not set: 10.
    pub fn connections(mut self, most: usize) -> Options {
        self.connections = most.max(1);
        self
    }

    /// How many cancel requests may be on their way at once, at least 1. If not set: 8.
    ///
    /// Each is a connection and a process of the server for a moment, so a crowd of clients that leave at once must not
    /// become as many of them.
    pub fn cancels(mut self, most: usize) -> Options {
        self.cancels = most.max(1);
        self
    }

    /// How long a call whose context has ended still waits for the server's word before it is answered. If not set:
    /// 25 milliseconds.
    ///
    /// If the word comes in time, the answer is exact: a statement that was quicker than the cancel has succeeded. If it
    /// does not, the answer is that the context ended, and the server is dealt with in the background.
    pub fn patience(mut self, limit: Duration) -> Options {
        self.patience = limit;
        self
    }

    /// How long it may take to make a connection clean that somebody gave up half-way, before it is thrown away. If not
    /// set: 5 seconds. Its place in the pool is held for so long.
    pub fn settle_limit(mut self, limit: Duration) -> Options {
        self.settle_limit = limit;
        self
    }

    /// How long making a connection may take, whoever waits for it. If not set: 5 seconds, or the configuration's
    /// `connect_timeout`.
    pub fn connect_limit(mut self, limit: Duration) -> Options {
        self.connect_limit = limit;
        self
    }

    /// After how long without use a connection is asked whether it is still there, before it is given to somebody. If
    /// not set: 30 seconds.
    pub fn idle_check(mut self, after: Duration) -> Options {
        self.idle_check = after;
        self
    }

    /// How old a connection may become; each one's own limit is up to a tenth less, so that they do not all go at once.
    /// If not set: 30 minutes.
    pub fn max_age(mut self, limit: Duration) -> Options {
        self.max_age = limit;
        self
    }

    /// How many prepared statements each connection keeps, at least 1. If not set: 256.
    pub fn statements(mut self, most: usize) -> Options {
        self.statements = most.max(1);
        self
    }

    /// Whether sessions are told of the limits: `statement_timeout` from the context's remaining time, as a net in case
    /// that a cancel can not get through, and `client_connection_check_interval`, so that a query ends when its
    /// connection is closed. If not set: yes.
    ///
    /// To be switched off behind a pooler that gives one session to several clients.
    pub fn server_limits(mut self, on: bool) -> Options {
        self.server_limits = on;
        self
    }

    /// Whether a connection is thrown away after a cancel, even if it is clean. If not set: no.
    ///
    /// For poolers between us and the server: that the cancel's connection is closed proves there only that the pooler
    /// has taken the request, not that the server has. The page of the crate says which poolers [need it](crate#poolers-in-between).
    pub fn discard_after_cancel(mut self, on: bool) -> Options {
        self.discard_after_cancel = on;
        self
    }

    /// Makes the first connection, and the pool around it, on the current tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is left.
    ///
    /// # Errors
    ///
    /// If the server can not be reached or says no; if `ctx` ends before; if the configuration asks for what is not
    /// there, see [`Options::new`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open(self, ctx: &Context) -> Result<Database, Error> {
        Database::start(ctx, self).await
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("config", &self.config) // it leaves the password out
            .field("connections", &self.connections)
            .field("cancels", &self.cancels)
            .field("patience", &self.patience)
            .field("settle_limit", &self.settle_limit)
            .field("connect_limit", &self.connect_limit)
            .field("idle_check", &self.idle_check)
            .field("max_age", &self.max_age)
            .field("statements", &self.statements)
            .field("server_limits", &self.server_limits)
            .field("discard_after_cancel", &self.discard_after_cancel)
            .finish()
    }
}

/// What a URL says of TLS and the driver does not know.
#[cfg(feature = "tls")]
mod words {
    use std::borrow::Cow;
    use std::fs;

    use percent_encoding::percent_decode_str;

    use super::Tls;
    use crate::error::Error;

    /// The URL for the driver, and whom to trust.
    pub(super) fn of_tls(url: &str) -> Result<(Cow<'_, str>, Option<Tls>), Error> {
        let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let Some((place, words)) = url.split_once('?').filter(|_| is_url) else {
            return Ok((url.into(), None));
        };
        let mut tls = None;
        let mut kept = Vec::new();
        for word in words.split('&') {
            match word.split_once('=') {
                Some(("sslmode", "verify-ca" | "verify-full")) => kept.push("sslmode=require"),
                Some(("sslrootcert", path)) => tls = Some(trusting(path)?),
                _ => kept.push(word),
            }
        }
        let kept = kept.join("&");
        Ok((format!("{place}?{kept}").into(), tls))
    }

    fn trusting(path: &str) -> Result<Tls, Error> {
        let path = percent_decode_str(path).decode_utf8_lossy();
        let pem = fs::read(&*path).map_err(|error| Error::settings(format!("{path}: {error}")))?;
        Tls::trusting(&pem)
    }
}
