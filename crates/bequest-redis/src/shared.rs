//! The connection that all plain commands share.
//!
//! The driver sends what it is given in order and hands each reply to the one who waits for it. A caller who leaves
//! takes nobody's place: the driver reads the reply and throws it away; what it has not yet written it does not write.
//!
//! # Invariants
//!
//! 1. At most one connection is open for new commands and at most one is being made.
//! 2. A connection being made belongs to nobody: who asked for it may leave, and it is kept for the next.
//! 3. A command is sent once. If its connection fails, the error says so, and whether it is in doubt.
//! 4. No lock is held across an await.
//! 5. Handles to a connection that was retired are in no stripe: it is retired first, then the stripes are cleared, and
//!    a handle that comes back looks under the stripe's lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bequest::Context;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, RedisResult, ScriptInvocation, Value};
use tokio::runtime;
use tokio::sync::watch;

use crate::cluster::asking;
use crate::connection::{Connection, WeakConnection, connect};
use crate::endpoint::Endpoint;
use crate::error::{Error, Step, is_of_connection};
use crate::handle::Handle;
use crate::retry::{delay, until_connected};
use crate::statistics::Counters;
use crate::stripes::Stripes;

/// How long a silent connection may take for the sign of life that it is asked for.
const PROBE: Duration = Duration::from_secs(1);
/// How many handles a stripe keeps at most.
const HANDLES: usize = 64;

/// What can be sent.
pub(crate) enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a ScriptInvocation<'a>),
    /// A command that a node of a cluster is to run although it does not have the slot yet.
    Asked(&'a Cmd),
    /// Commands that have nothing to do with each other, each with its own reply or error; whether they are asked.
    Each(&'a [&'a Cmd], bool),
    /// A pipeline that is a transaction, whose errors may lead elsewhere; whether it is asked.
    Transaction(&'a Pipeline, bool),
}

#[derive(Debug)]
pub(crate) struct Shared {
    endpoint: Arc<Endpoint>,
    connect_limit: Duration,
    counters: Arc<Counters>,
    slot: Mutex<Slot>,
    /// Handles to the open connection that nobody uses at the moment. To clone one costs more than to find one here.
    handles: Stripes<Mutex<Vec<Handle>>>,
}

/// Guarded by its lock.
#[derive(Debug, Default)]
struct Slot {
    open: Option<Connection>,
    making: Option<Making>,
    /// Tries that have failed since the last one that did not.
    failures: u32,
    /// Connections that were replaced, and that somebody may still wait on.
    old: Vec<WeakConnection>,
}

/// The result of a try to connect, once there is one.
type Making = watch::Receiver<Option<RedisResult<Connection>>>;

impl Request<'_> {
    /// Sends it and waits for the reply; a reply that is an error is one.
    pub(crate) async fn send(&self, driver: &mut MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Request::Command(cmd) => driver.send_packed_command(cmd).await?.extract_error(),
            Request::Pipeline(pipeline) => pipeline.query_async(driver).await,
            Request::Script(script) => script.invoke_async(driver).await,
            Request::Asked(cmd) => asking::one(driver, cmd).await,
            Request::Each(cmds, is_asked) => asking::each(driver, cmds, *is_asked).await,
            Request::Transaction(pipeline, is_asked) => {
                asking::transaction(driver, pipeline, *is_asked).await
            }
        }
    }
}

impl Shared {
    pub(crate) fn new(endpoint: Arc<Endpoint>, connect_limit: Duration, counters: Arc<Counters>) -> Shared {
        Shared {
            endpoint,
            connect_limit,
            counters,
            slot: Mutex::default(),
            handles: Stripes::default(),
        }
    }

    /// Sends `request` and waits for the reply, until the context ends.
    pub(crate) async fn run(self: &Arc<Self>, ctx: &Context, request: Request<'_>) -> Result<Value, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let handle = match self.handle() {
            Some(handle) => handle,
            None => Handle::to(self.connected(ctx).await?),
        };
        self.send(ctx, handle, &request).await
    }

    /// Sends `request` on a connection that is there.
    pub(crate) async fn send(
        self: &Arc<Self>,
        ctx: &Context,
        handle: Handle,
        request: &Request<'_>,
    ) -> Result<Value, Error> {
        let mut flight = Flight::begin(self, handle);
        match ctx.run(flight.handle().send(request)).await {
            Ok(Ok(value)) => {
                flight.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                if is_of_connection(&error) {
                    self.forget(flight.connection());
                }
                flight.answered();
                Err(Error::running(error))
            }
            Err(end) => Err(Error::canceled_in_doubt(end)),
        }
    }

    pub(crate) fn has_connection(&self) -> bool {
        self.open().is_some()
    }

    /// A handle to the connection, if there is one.
    pub(crate) fn handle(&self) -> Option<Handle> {
        loop {
            let Some(handle) = lock(self.handles.mine()).pop() else {
                return self.open().map(Handle::to);
            };
            if handle.connection().is_current() {
                return Some(handle);
            }
        }
    }

    /// Keeps a handle for the next call.
    fn keep(&self, handle: Handle) {
        let mut handles = lock(self.handles.mine());
        if handles.len() < HANDLES && handle.connection().is_current() {
            handles.push(handle);
        }
    }

    async fn connected(self: &Arc<Self>, ctx: &Context) -> Result<Connection, Error> {
        until_connected(ctx, self.connect_limit, |_| self.join()).await
    }

    /// The connection, if there is one.
    fn open(&self) -> Option<Connection> {
        let open = self.slot().open.clone();
        open.filter(Connection::is_current)
    }

    /// The result of the try that is under way, or of one begun now.
    pub(crate) async fn join(self: &Arc<Self>) -> RedisResult<Connection> {
        let mut making = {
            let mut slot = self.slot();
            match (&slot.open, &slot.making) {
                (Some(connection), _) if connection.is_current() => return Ok(connection.clone()),
                (_, Some(making)) => making.clone(),
                (_, None) => self.make(&mut slot),
            }
        };
        let made = making.wait_for(Option::is_some).await;
        match made.ok().and_then(|made| made.clone()) {
            // It may have been lost again before we looked.
            Some(Ok(connection)) if !connection.is_current() => Err(interrupted()),
            Some(result) => result,
            // The task that was connecting is gone, and its runtime with it.
            None => Err(interrupted()),
        }
    }

    /// Begins a try in a task of its own.
    fn make(self: &Arc<Self>, slot: &mut Slot) -> Making {
        let (tell, making) = watch::channel(None);
        slot.making = Some(making.clone());
        let (shared, pause) = (Arc::clone(self), delay(slot.failures));
        let unmade = Unmade(Arc::clone(self));
        tokio::spawn(async move {
            let _unmade = unmade;
            tokio::time::sleep(pause).await;
            let result = connect(&shared.endpoint).await;
            shared.made(&result);
            // Nobody may be waiting any more; the connection is in its place all the same.
            tell.send_replace(Some(result));
        });
        making
    }

    fn made(&self, result: &RedisResult<Connection>) {
        let mut slot = self.slot();
        match result {
            Ok(connection) => {
                self.counters.connected.add();
                slot.failures = 0;
                slot.open = Some(connection.clone());
            }
            Err(_) => {
                self.counters.connect_failed.add();
                slot.failures = slot.failures.saturating_add(1);
            }
        }
    }

    /// Takes a connection out of its place, if it is the one there. Whoever waits on it goes on waiting.
    fn forget(&self, connection: &Connection) -> bool {
        let mut slot = self.slot();
        let is_there = slot.open.as_ref().is_some_and(|open| open.is_same(connection));
        if is_there {
            slot.open = None;
            slot.old.retain(|old| old.upgrade().is_some());
            slot.old.push(connection.downgrade());
        }
        drop(slot);
        connection.retire();
        for handles in self.handles.all() {
            lock(handles).retain(|handle| !handle.connection().is_same(connection));
        }
        is_there
    }

    /// Closes all connections; whoever waits on one is told so.
    pub(crate) fn close(&self) {
        let (open, old) = {
            let mut slot = self.slot();
            (slot.open.take(), std::mem::take(&mut slot.old))
        };
        let all = open
            .into_iter()
            .chain(old.iter().filter_map(WeakConnection::upgrade));
        all.for_each(|connection| connection.close());
    }

    /// Asks a connection, on which somebody waited in vain, for a sign of life, and replaces it if there is none. It is
    /// asked once at a time, however many give up.
    fn suspect(self: &Arc<Self>, connection: &Connection) {
        let Ok(runtime) = runtime::Handle::try_current() else {
            return;
        };
        if connection.is_ended() || !connection.begin_probe() {
            return;
        }
        let (shared, connection) = (Arc::clone(self), connection.clone());
        runtime.spawn(async move {
            let ping = redis::cmd("PING");
            let question = Request::Command(&ping);
            let mut handle = Handle::to(connection.clone());
            let asked = handle.send(&question);
            let is_alive = match tokio::time::timeout(PROBE, asked).await {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => !is_of_connection(&error),
                Err(_) => false,
            };
            if !is_alive && shared.forget(&connection) {
                shared.counters.replaced.add();
            }
            connection.end_probe();
        });
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.slot)
    }
}

fn interrupted() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::Interrupted).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clears the place of the try that has ended, however it did.
struct Unmade(Arc<Shared>);

impl Drop for Unmade {
    fn drop(&mut self) {
        self.0.slot().making = None;
    }
}

/// A request on its way. Dropped before it is answered, it was given up.
struct Flight<'a> {
    shared: &'a Arc<Shared>,
    /// `None` only while dropping.
    handle: Option<Handle>,
    is_answered: bool,
}

impl<'a> Flight<'a> {
    fn begin(shared: &'a Arc<Shared>, handle: Handle) -> Flight<'a> {
        shared.counters.sent.add();
        Flight {
            shared,
            handle: Some(handle),
            is_answered: false,
        }
    }

    fn connection(&self) -> &Connection {
        self.handle.as_ref().expect("not dropped yet").connection()
    }

    fn handle(&mut self) -> &mut Handle {
        self.handle.as_mut().expect("not dropped yet")
    }

    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        if !self.is_answered {
            self.shared.counters.given_up.add();
            self.shared.suspect(handle.connection());
        }
        // The driver reads what was given up by itself; the handle is free.
        self.shared.keep(handle);
    }
}
