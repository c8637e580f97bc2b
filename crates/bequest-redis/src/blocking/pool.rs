//! The connections for blocking commands: how many, whose turn, and which are idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bequest::Context;
use redis::{ConnectionInfo, RedisError, RedisResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::seat::{Control, Seat};
use crate::connection::{self, Connection};
use crate::error::{Error, Step};
use crate::options::Settings;
use crate::retry::{delay, until_connected};
use crate::shared::Shared;
use crate::statistics::Counters;

pub(crate) struct Pool {
    info: Arc<ConnectionInfo>,
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    /// On which elements are put back.
    pub(super) shared: Arc<Shared>,
    /// First in, first out; one permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    /// Guarded by its lock. All unread replies of these connections have been read.
    idle: Mutex<Vec<Seat>>,
    /// Held while a control connection is made, so that there is one.
    control: tokio::sync::Mutex<Option<Control>>,
    /// How many commands run or are being ended.
    running: watch::Sender<usize>,
}

/// A seat and the right to use it.
pub(super) struct Lease {
    pub(super) seat: Seat,
    permit: OwnedSemaphorePermit,
}

/// Counts a command as running.
pub(super) struct Running(Arc<Pool>);

impl Pool {
    pub(crate) fn new(
        info: Arc<ConnectionInfo>,
        settings: Settings,
        counters: Arc<Counters>,
        shared: Arc<Shared>,
    ) -> Pool {
        Pool {
            info,
            permits: Arc::new(Semaphore::new(settings.blocking_connections)),
            settings,
            counters,
            shared,
            idle: Mutex::default(),
            control: tokio::sync::Mutex::default(),
            running: watch::Sender::new(0),
        }
    }

    pub(crate) fn running(&self) -> usize {
        *self.running.borrow()
    }

    pub(crate) fn idle(&self) -> usize {
        self.seats().len()
    }

    /// Waits until nothing runs.
    pub(crate) async fn settle(&self, ctx: &Context) -> Result<(), Error> {
        let mut running = self.running.subscribe();
        match ctx.run(running.wait_for(|count| *count == 0)).await {
            // The sender is ours, so it is there.
            Ok(_) => Ok(()),
            Err(end) => Err(Error::canceled_at(Step::Waiting, end)),
        }
    }

    /// Waits for a turn and takes a connection, an idle one or one made now.
    pub(super) async fn take(self: &Arc<Self>, ctx: &Context) -> Result<Lease, Error> {
        let turn = ctx.run(Arc::clone(&self.permits).acquire_owned()).await;
        let permit = match turn {
            Ok(permit) => permit.expect("the semaphore is never closed"),
            Err(end) => return Err(Error::canceled_at(Step::Waiting, end)),
        };
        if let Some(seat) = self.reuse() {
            return Ok(Lease { seat, permit });
        }
        // The permit travels with the try, so that no more are made than may be in use.
        let permit = Arc::new(Mutex::new(Some(permit)));
        until_connected(ctx, self.settings.connect_limit, |failures| {
            Arc::clone(self).make(Arc::clone(&permit), failures)
        })
        .await
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
        self.running.send_modify(|count| *count += 1);
        Running(Arc::clone(self))
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
        let connection = self.counted(connection::connect(&self.info).await)?;
        Seat::prepare(connection, &control).await
    }

    async fn control(&self) -> RedisResult<Control> {
        let mut place = self.control.lock().await;
        if let Some(control) = place.as_ref().filter(|control| control.is_usable()) {
            return Ok(control.clone());
        }
        let connection = self.counted(connection::connect(&self.info).await)?;
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
