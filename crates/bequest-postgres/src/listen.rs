//! Notifications.

use std::future::poll_fn;

use bequest::Context;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, Client, Notification};

use crate::connection::{self, Begun, Driver};
use crate::error::{Error, Step};
use crate::options::Options;

/// How many notifications may wait for their reader. Beyond it the server keeps them.
const WAITING: usize = 1024;

/// The notifications of some channels: from [`Database::listen`](crate::Database::listen).
///
/// It has a connection of its own, outside of the pool, closed when it is dropped.
///
/// # Example
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
/// use bequest::Context;
/// use bequest_postgres::Database;
/// use std::time::Duration;
///
/// let ctx = Context::background();
/// let db = Database::open(&ctx, &server.url()).await?;
/// let mut listener = db.listen(&ctx, &["jobs"]).await?;
/// db.execute(&ctx, "SELECT pg_notify('jobs', '42')", &[]).await?;
/// assert_eq!(listener.recv(&ctx).await?.payload(), "42");
///
/// let limited = ctx.with_timeout(Duration::from_millis(20));
/// assert!(listener.recv(&limited).await.unwrap_err().is_canceled()); // and it listens on
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped, it no longer listens"]
pub struct Listener {
    notifications: mpsc::Receiver<Result<Notification, tokio_postgres::Error>>,
    driver: AbortHandle,
    /// Kept: the driver ends when it is dropped.
    _client: Client,
}

impl Listener {
    pub(crate) async fn open(ctx: &Context, options: &Options, channels: &[&str]) -> Result<Listener, Error> {
        let connecting = ctx.timeout(options.connect_limit, Listener::connect(options, channels));
        connecting
            .await
            .map_err(|end| Error::canceled_at(Step::Connecting, end))?
    }

    async fn connect(options: &Options, channels: &[&str]) -> Result<Listener, Error> {
        let Begun { client, driver, .. } = connection::connect(options).await?;
        let (sender, notifications) = mpsc::channel(WAITING);
        let listener = Listener {
            notifications,
            driver: tokio::spawn(pass_on(driver, sender)).abort_handle(),
            _client: client,
        };
        for channel in channels {
            let sql = format!("LISTEN \"{}\"", channel.replace('"', "\"\""));
            let listening = listener._client.batch_execute(&sql).await;
            listening.map_err(|error| Error::postgres_at(Step::Connecting, error))?;
        }
        Ok(listener)
    }

    /// The next notification.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, or the context ends, no notification is lost.
    ///
    /// # Errors
    ///
    /// If `ctx` ends before one comes; if the connection is lost, and from then on. What was sent meanwhile is lost: listen
    /// anew, and look at what the notifications are about.
    pub async fn recv(&mut self, ctx: &Context) -> Result<Notification, Error> {
        match ctx.run(self.notifications.recv()).await {
            Ok(Some(Ok(notification))) => Ok(notification),
            Ok(Some(Err(error))) => Err(Error::postgres_at(Step::Reading, error)),
            Ok(None) => Err(Error::closed()),
            Err(end) => Err(Error::canceled_at(Step::Reading, end)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Drives the connection, and passes its notifications on until nobody reads them or it ends.
async fn pass_on(
    mut driver: Driver,
    notifications: mpsc::Sender<Result<Notification, tokio_postgres::Error>>,
) {
    while let Some(message) = poll_fn(|task| driver.poll_message(task)).await {
        let sent = match message {
            Ok(AsyncMessage::Notification(notification)) => notifications.send(Ok(notification)).await,
            Ok(_) => Ok(()),
            Err(error) => {
                // There is nothing after it, whether somebody hears it or not.
                let _ = notifications.send(Err(error)).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
