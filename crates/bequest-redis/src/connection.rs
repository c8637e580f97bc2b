//! One connection: the driver's, on a socket of ours.
//!
//! The driver would open sockets by itself. We do it ([`Endpoint`]), so as to own the task that drives the connection and to know
//! the instant at which that ends: a call that comes later connects anew instead of failing.
//!
//! # Invariants
//!
//! 1. A connection that is not set up completely is dropped, never handed on: a cut-off greeting shifts no reply.
//! 2. The end is marked after the driver's last act; a connection that reads as ended is never used for a new command.
//! 3. Dropping the last handle closes the socket, whatever is still unanswered on it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::endpoint::{Endpoint, Opened};
use crate::gather::Gathering;
use crate::handle::{End, Handle};
use crate::shared::Request;

/// How long one try to connect may take, greeting and login included.
const TRY: Duration = Duration::from_secs(1);

/// How many commands the driver takes before it has written some.
const QUEUE: usize = 1024;

/// A handle to one connection; clones share it, and the last one closes it.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Life>);

/// The same, without keeping it open.
#[derive(Debug)]
pub(crate) struct WeakConnection(Weak<Life>);

struct Life {
    driver: MultiplexedConnection,
    end: Arc<End>,
    task: AbortHandle,
    /// Whether new calls are to take another one.
    retired: AtomicBool,
    /// Whether somebody is asking the server for a sign of life.
    probed: AtomicBool,
}

/// A socket of either kind.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for S {}

/// Connects once. A server that does not answer the greeting in time counts as not reached.
pub(crate) async fn connect(endpoint: &Endpoint) -> RedisResult<Connection> {
    let made = async {
        match endpoint.open().await? {
            Opened::Tcp(socket) => set_up(endpoint, socket).await,
            Opened::Unix(socket) => set_up(endpoint, socket).await,
            #[cfg(feature = "tls")]
            Opened::Tls(socket) => set_up(endpoint, *socket).await,
        }
    };
    within_a_try(made).await
}

/// `work`, which is one try to connect, within the time of one.
pub(crate) async fn within_a_try<T>(work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match tokio::time::timeout(TRY, work).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer").into()),
    }
}

async fn set_up(endpoint: &Endpoint, socket: impl Socket) -> RedisResult<Connection> {
    // No time limits of its own: those are the contexts'.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let socket = Gathering::new(socket);
    let (driver, work) = MultiplexedConnection::new_with_config(endpoint.login(), socket, config).await?;
    let end = Arc::<End>::default();
    let mark = EndMark(Arc::clone(&end));
    let task = tokio::spawn(async move {
        let _mark = mark; // dropped after `work`, also if this is aborted
        work.await;
    });
    let connection = Connection(Arc::new(Life {
        driver,
        end,
        task: task.abort_handle(),
        retired: AtomicBool::new(false),
        probed: AtomicBool::new(false),
    }));
    if let Some(name) = endpoint.name() {
        let set_name = redis::cmd("CLIENT").arg("SETNAME").arg(name).take();
        Handle::to(connection.clone())
            .send(&Request::Command(&set_name))
            .await?;
    }
    Ok(connection)
}

impl Connection {
    /// The driver's handle. It may wait for ever on a connection that ends; [`Handle`](crate::handle::Handle) does not.
    pub(crate) fn driver(&self) -> MultiplexedConnection {
        self.0.driver.clone()
    }

    pub(crate) fn end(&self) -> &End {
        &self.0.end
    }

    /// Whether the connection is over.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.end.is_marked()
    }

    /// Closes the socket, whatever is unanswered.
    pub(crate) fn close(&self) {
        self.0.task.abort();
        self.0.end.mark();
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.0))
    }

    pub(crate) fn is_same(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether new calls may use it.
    pub(crate) fn is_current(&self) -> bool {
        !self.is_ended() && !self.0.retired.load(Ordering::Acquire)
    }

    /// From here on no new call is to use it; those that do go on.
    pub(crate) fn retire(&self) {
        // Release: pairs with the Acquire in `is_current`; the handles of the connection are cleared away after it.
        self.0.retired.store(true, Ordering::Release);
    }

    /// Whether the caller is the one to ask the server for a sign of life; it says when it has done.
    pub(crate) fn begin_probe(&self) -> bool {
        !self.0.probed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_probe(&self) {
        self.0.probed.store(false, Ordering::Release);
    }
}

impl WeakConnection {
    /// The connection, if anybody still uses it.
    pub(crate) fn upgrade(&self) -> Option<Connection> {
        self.0.upgrade().map(Connection)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Marks the end when the driver has ended, or was dropped.
struct EndMark(Arc<End>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.mark();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_ended", &self.end.is_marked())
            .field("is_retired", &self.retired.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
