//! One connection: dialled by us, so that its cancel requests find the same server.
//!
//! What lives here: dialling, agreeing on TLS, what a session is told at its beginning, the task that drives the driver, prepared
//! statements, and what is known of the session. What does not: who uses it, which is the pool's.

mod peer;
mod secure;
mod socket;
mod statements;
mod status;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bequest::Context;
use tokio::io::AsyncReadExt;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client};

use peer::Peer;
use socket::{Socket, Spoken, Unclosed};
pub(crate) use statements::Statements;
use status::StatusByte;
pub(crate) use status::{Status, Watched};

use crate::error::{Error, Step};
use crate::options::Options;

/// How often the server looks whether a query's client is still there. It costs one system call each time.
const CLIENT_CHECK: &str = "SET client_connection_check_interval = '100ms'";
/// The first version that can, and only on systems that tell.
const CLIENT_CHECK_SINCE: u32 = 14;

/// The driver's half that moves the bytes.
pub(crate) type Driver = tokio_postgres::Connection<Watched<Socket>, Watched<Socket>>;

/// An open connection. Dropping it closes its socket at once.
pub(crate) struct Connection {
    pub(crate) client: Arc<Client>,
    pub(crate) statements: Statements,
    pub(crate) target: Target,
    pub(crate) last_used: Instant,
    /// What the session has been told, as far as it is known.
    pub(crate) statement_timeout: Option<StatementTimeout>,
    /// Whether somebody has had it. One that nobody has had is never too old.
    pub(crate) used: bool,
    tells_limits: bool,
    /// When it is too old; `None` for one that never is.
    expires: Option<Instant>,
    opened: Instant,
    status: Arc<StatusByte>,
    /// Ends the task that drives it. `None` once it is left to end by itself.
    driver: Option<AbortHandle>,
}

/// What a cancel request needs.
#[derive(Clone)]
pub(crate) struct Target {
    peer: Peer,
    /// What the server's certificate must be for.
    name: String,
    /// The session is encrypted, and so is what ends it.
    is_secure: bool,
    token: CancelToken,
}

/// A session that has just begun.
pub(crate) struct Begun {
    pub(crate) client: Client,
    pub(crate) driver: Driver,
    target: Target,
    status: Arc<StatusByte>,
}

/// The server's own limit for a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatementTimeout {
    /// What the session began with.
    Default,
    Seconds(u32),
}

impl Connection {
    /// Connects, within the limit of `options`.
    pub(crate) async fn open(options: &Options) -> Result<Connection, Error> {
        let limit = options.config.get_connect_timeout().copied();
        let limit = limit.map_or(options.connect_limit, |limit| limit.min(options.connect_limit));
        timeout(limit, Connection::establish(options))
            .await
            .unwrap_or_else(|_| Err(Error::too_slow(Step::Connecting, "connecting")))
    }

    async fn establish(options: &Options) -> Result<Connection, Error> {
        let Begun {
            client,
            driver,
            target,
            status,
        } = connect(options).await?;
        let can_check = version(&driver).is_some_and(|version| version >= CLIENT_CHECK_SINCE);
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer is told of the error; there is nobody else to tell.
            let _ = driver.await;
        });
        let opened = Instant::now();
        let connection = Connection {
            statements: Statements::new(options.statements),
            target,
            client: Arc::new(client),
            last_used: opened,
            statement_timeout: Some(StatementTimeout::Default),
            used: false,
            tells_limits: options.server_limits,
            expires: opened.checked_add(own_age(options.max_age)),
            opened,
            status,
            driver: Some(driver.abort_handle()),
        };
        if options.server_limits && can_check {
            match connection.client.batch_execute(CLIENT_CHECK).await {
                // A system on which the server can not look: it says so, and all else works.
                Err(error) if error.as_db_error().is_some() => {}
                set => set.map_err(|error| Error::postgres_at(Step::Connecting, error))?,
            }
        }
        Ok(connection)
    }

    pub(crate) fn status(&self) -> Status {
        self.status.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether it has been used for as long as it may be.
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        self.used && self.expires.is_some_and(|expires| now >= expires)
    }

    /// Says goodbye to the server, and closes the connection when that is sent.
    pub(crate) fn retire(mut self) {
        self.driver = None;
    }

    /// What the session is to be told so that it gives a statement up for which nobody waits any more, and the telling;
    /// `None` if it knows. Until it is noted that it was told, what it knows is not known.
    pub(crate) fn limit(
        &mut self,
        ctx: &Context,
    ) -> Option<(StatementTimeout, impl Future<Output = bool> + use<>)> {
        let wanted = StatementTimeout::for_remaining(ctx.remaining());
        if !self.tells_limits || self.statement_timeout == Some(wanted) {
            return None;
        }
        self.statement_timeout = None;
        let client = Arc::clone(&self.client);
        Some((wanted, async move {
            client.batch_execute(&wanted.sql()).await.is_ok()
        }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.target.peer)
            .field("status", &self.status())
            .field("age", &self.opened.elapsed())
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Asks the server to cancel what runs, and returns when it has closed the connection: then it has done so.
    pub(crate) async fn cancel(&self, options: &Options) -> Result<(), Error> {
        let unreachable = |error| Error::unreachable(self.peer.to_string(), error);
        let mode = if self.is_secure {
            SslMode::Require
        } else {
            SslMode::Disable
        };
        let socket = self.peer.dial(&options.config).await.map_err(unreachable)?;
        let mut socket = secure::secure(socket, &self.name, mode, options).await?;
        let sent = self.token.cancel_query_raw(Unclosed(&mut socket), Spoken).await;
        sent.map_err(|error| Error::postgres_at(Step::Running, error))?;
        // To the end, and not to a reset: that may come from anybody on the way.
        let mut rest = [0; 64];
        while socket.read(&mut rest).await.map_err(unreachable)? > 0 {}
        Ok(())
    }
}

/// Refuses what would silently not be done.
pub(crate) fn check(options: &Options) -> Result<(), Error> {
    peer::check(&options.config)?;
    secure::check(options)
}

/// Dials, agrees on TLS, and introduces us to the server.
pub(crate) async fn connect(options: &Options) -> Result<Begun, Error> {
    let (peer, name, socket) = peer::dial(&options.config).await?;
    let mode = options.config.get_ssl_mode();
    let socket = secure::secure(socket, &name, mode, options).await?;
    let (config, is_secure) = (socket.describe(&options.config), socket.is_secure());
    let (socket, status) = Watched::new(socket);
    let (client, driver) = config
        .connect_raw(socket, Spoken)
        .await
        .map_err(|error| Error::postgres_at(Step::Connecting, error))?;
    let target = Target {
        peer,
        name,
        is_secure,
        token: client.cancel_token(),
    };
    Ok(Begun {
        client,
        driver,
        target,
        status,
    })
}

/// One connection's own limit, up to a tenth below `limit`, so that they do not all go at once.
fn own_age(limit: Duration) -> Duration {
    const SHARES: u32 = 16;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only that they differ is asked for.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    limit - limit / 10 / SHARES * (number % SHARES)
}

/// The server's major version, if it looks like one.
fn version(driver: &Driver) -> Option<u32> {
    let text = driver.parameter("server_version")?;
    let digits = text.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

impl StatementTimeout {
    /// The remaining time, rounded up to a power of two in seconds: it seldom changes from call to call, and a session is
    /// told of changes only. At least one second, so that the context's own cancel, which is the exact one, comes first.
    fn for_remaining(remaining: Option<Duration>) -> StatementTimeout {
        /// 24 days, above which the server's own counter would overflow.
        const MOST: u32 = 1 << 21;
        let Some(remaining) = remaining else {
            return StatementTimeout::Default;
        };
        let seconds = remaining.as_secs().saturating_add(1);
        match u32::try_from(seconds).map(u32::next_power_of_two) {
            Ok(seconds) if seconds <= MOST => StatementTimeout::Seconds(seconds),
            _ => StatementTimeout::Default,
        }
    }

    fn sql(self) -> String {
        match self {
            StatementTimeout::Default => "RESET statement_timeout".into(),
            StatementTimeout::Seconds(seconds) => format!("SET statement_timeout = '{seconds}s'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_net_is_a_power_of_two_above_the_remaining_time() {
        let limit = |ms| StatementTimeout::for_remaining(Some(Duration::from_millis(ms)));
        assert_eq!(limit(0), StatementTimeout::Seconds(1));
        assert_eq!(limit(999), StatementTimeout::Seconds(1));
        assert_eq!(limit(1000), StatementTimeout::Seconds(2));
        assert_eq!(limit(4900), StatementTimeout::Seconds(8));
        assert_eq!(limit(5000), StatementTimeout::Seconds(8));
        assert_eq!(limit(u64::MAX), StatementTimeout::Default);
        assert_eq!(StatementTimeout::for_remaining(None), StatementTimeout::Default);
    }
}
