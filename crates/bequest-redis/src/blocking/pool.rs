//! The connections for blocking commands: how many, whose turn, and which are idle.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bequest::Context;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::seat::{Control, Seat};
use crate::cluster::Cluster;
use crate::connection::{self, Connection};
use crate::endpoint::Endpoint;
use crate::error::{Error, Step};
use crate::options::Settings;
use crate::retry::{delay, once, until_connected};
use crate::shared::{Request, Shared};
use crate::statistics::Counters;

pub(crate) struct Pool {
    endpoint: Arc<Endpoint>,
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    /// How elements are put back.
    pub(super) back: Back,
    /// First in, first out; one permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    /// Guarded by its lock. All unread replies of these connections have been read.
    idle: Mutex<Vec<Seat>>,
    /// Held while a control connection is made, so that there is one.
    control: tokio::sync::Mutex<Option<Control>>,
    /// Whether the server is lost for good: whoever waits for it is told so.
    is_gone: watch::Sender<bool>,
}

/// The way back for what was taken for nobody.
#[derive(Debug)]
pub(crate) struct Back {
    shared: Arc<Shared>,
    cluster: Weak<Cluster>,
}

/// How often a connection is tried for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Again and again within this time.
    Within(Duration),
    /// Once within this time, after so many failures.
    Once(Duration, u32),
}

/// A seat and the right to use it.
pub(super) struct Lease {
    pub(super) seat: Seat,
    permit: OwnedSemaphorePermit,
}

/// Counts a command as running.
pub(super) struct Running(Arc<Counters>);

impl Back {
    /// To the server itself, or to the node of `cluster` that has the slot by then.
    pub(crate) fn new(shared: Arc<Shared>, cluster: Weak<Cluster>) -> Back {
        Back { shared, cluster }
    }

    pub(super) async fn put(&self, ctx: &Context, cmd: &Cmd) -> Result<Value, Error> {
        match self.cluster.upgrade() {
            Some(cluster) => cluster.command(ctx, cmd).await,
            None => self.shared.run(ctx, Request::Command(cmd)).await,
        }
    }
}

impl Pool {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        settings: Settings,
        counters: Arc<Counters>,
        back: Back,
    ) -> Pool {
        Pool {
            endpoint,
            permits: Arc::new(Semaphore::new(settings.blocking_connections)),
            settings,
            counters,
            back,
            idle: Mutex::default(),
            control: tokio::sync::Mutex::default(),
            is_gone: watch::Sender::new(false),
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.seats().len()
    }

    /// The server is lost for good: whoever waits for it is told so, and idle connections are closed.
    pub(crate) fn close(&self) {
        self.is_gone.send_replace(true);
        let idle = std::mem::take(&mut *self.seats());
        drop(idle);
    }

    /// Waits until the server is lost for good.
    pub(super) async fn gone(&self) {
        let mut is_gone = self.is_gone.subscribe();
        // The sender is ours, so it is there.
        let _ = is_gone.wait_for(|is_gone| *is_gone).await;
    }

    /// Waits for a turn and takes a connection, an idle one or one made now.
    pub(super) async fn take(self: &Arc<Self>, ctx: &Context, patience: Patience) -> Result<Lease, Error> {
        let waiting = self.counters.wait();
        let turn = ctx.run(Arc::clone(&self.permits).acquire_owned()).await;
        drop(waiting);
        let permit = match turn {
            Ok(permit) => permit.expect("the semaphore is never closed"),
            Err(end) => return Err(Error::canceled_at(Step::Waiting, end)),
        };
        if let Some(seat) = self.reuse() {
            return Ok(Lease { seat, permit });
        }
        // The permit travels with the try, so that no more are made than may be in use.
        let permit = Arc::new(Mutex::new(Some(permit)));
        let attempt = |failures| Arc::clone(self).make(Arc::clone(&permit), failures);
        match patience {
            Patience::Within(limit) => until_connected(ctx, limit, attempt).await,
            Patience::Once(limit, failures) => once(ctx, limit, attempt(failures)).await,
        }
    }

    /// Takes a connection back, clean.
    pub(super) fn put(&self, lease: Lease) {
        if lease.seat.is_usable() {
            self.seats().push(lease.seat);
        }
        drop(lease.permit); // only now may the next one look for a seat
    }

    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.counters.begun.add();
        self.counters.running.send_modify(|count| *count += 1);
        Running(Arc::clone(&self.counters))
    }

    fn reuse(&self) -> Option<Seat> {
        let mut seats = self.seats();
        while let Some(seat) = seats.pop() {
            if seat.is_usable() {
                return Some(seat);
            }
        }
        None
    }

    /// Makes a connection in a task of its own. If the caller leaves meanwhile, it is kept for the next.
    async fn make(
        self: Arc<Self>,
        permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
        failures: u32,
    ) -> RedisResult<Lease> {
        let (tell, made) = oneshot::channel();
        tokio::spawn(async move {
            tokio::time::sleep(delay(failures)).await;
            match self.seat().await {
                Ok(seat) => {
                    let permit = permit.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let permit = permit.expect("one try at a time, and the first that succeeds is the last");
                    if let Err(Ok(lease)) = tell.send(Ok(Lease { seat, permit })) {
                        self.put(lease);
                    }
                }
                Err(error) => {
                    // The caller tries again, or is gone and does not.
                    let _ = tell.send(Err(error));
                }
            }
        });
        match made.await {
            Ok(result) => result,
            Err(_) => Err(RedisError::from(std::io::Error::from(
                std::io::ErrorKind::Interrupted,
            ))),
        }
    }

    async fn seat(&self) -> RedisResult<Seat> {
        let control = self.control().await?;
        let connection = self.counted(connection::connect(&self.endpoint).await)?;
        Seat::prepare(connection, &control).await
    }

    async fn control(&self) -> RedisResult<Control> {
        let mut place = self.control.lock().await;
        if let Some(control) = place.as_ref().filter(|control| control.is_usable()) {
            return Ok(control.clone());
        }
        let connection = self.counted(connection::connect(&self.endpoint).await)?;
        let control = Control::prepare(connection).await?;
        *place = Some(control.clone());
        Ok(control)
    }

    fn counted(&self, result: RedisResult<Connection>) -> RedisResult<Connection> {
        match &result {
            Ok(_) => self.counters.connected.add(),
            Err(_) => self.counters.connect_failed.add(),
        }
        result
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("endpoint", &self.endpoint)
            .field("idle", &self.idle())
            .finish_non_exhaustive()
    }
}
