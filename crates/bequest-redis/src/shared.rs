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

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bequest::Context;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisResult, ScriptInvocation, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::connection::{Connection, connect};
use crate::error::{Error, Step, is_of_connection};
use crate::retry::{delay, until_connected};
use crate::statistics::Counters;

/// How long a silent connection may take for the sign of life that it is asked for.
const PROBE: Duration = Duration::from_secs(1);

/// What can be sent.
pub(crate) enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a ScriptInvocation<'a>),
}

#[derive(Debug)]
pub(crate) struct Shared {
    info: Arc<ConnectionInfo>,
    connect_limit: Duration,
    counters: Arc<Counters>,
    slot: Mutex<Slot>,
}

/// Guarded by its lock.
#[derive(Debug, Default)]
struct Slot {
    open: Option<Connection>,
    making: Option<Making>,
    /// Tries that have failed since the last one that did not.
    failures: u32,
}

/// The result of a try to connect, once there is one.
type Making = watch::Receiver<Option<RedisResult<Connection>>>;

impl Request<'_> {
    /// Sends it and waits for the reply; a reply that is an error is one.
    pub(crate) async fn send(&self, mut driver: MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Request::Command(cmd) => driver.send_packed_command(cmd).await?.extract_error(),
            Request::Pipeline(pipeline) => pipeline.query_async(&mut driver).await,
            Request::Script(script) => script.invoke_async(&mut driver).await,
        }
    }
}

impl Shared {
    pub(crate) fn new(info: Arc<ConnectionInfo>, connect_limit: Duration, counters: Arc<Counters>) -> Shared {
        Shared {
            info,
            connect_limit,
            counters,
            slot: Mutex::default(),
        }
    }

    /// Sends `request` and waits for the reply, until the context ends.
    pub(crate) async fn run(self: &Arc<Self>, ctx: &Context, request: Request<'_>) -> Result<Value, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let connection = match self.open() {
            Some(connection) => connection,
            None => self.connected(ctx).await?,
        };
        let flight = Flight::begin(self, connection);
        match ctx.run(request.send(flight.connection.driver())).await {
            Ok(Ok(value)) => {
                flight.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                if is_of_connection(&error) {
                    self.forget(&flight.connection);
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

    async fn connected(self: &Arc<Self>, ctx: &Context) -> Result<Connection, Error> {
        until_connected(ctx, self.connect_limit, |_| self.join()).await
    }

    /// The connection, if there is one.
    fn open(&self) -> Option<Connection> {
        let open = self.slot().open.clone();
        open.filter(|connection| !connection.is_ended())
    }

    /// The result of the try that is under way, or of one begun now.
    async fn join(self: &Arc<Self>) -> RedisResult<Connection> {
        let mut making = {
            let mut slot = self.slot();
            match (&slot.open, &slot.making) {
                (Some(connection), _) if !connection.is_ended() => return Ok(connection.clone()),
                (_, Some(making)) => making.clone(),
                (_, None) => self.make(&mut slot),
            }
        };
        let made = making.wait_for(Option::is_some).await;
        match made.ok().and_then(|made| made.clone()) {
            Some(result) => result,
            // The task that was connecting is gone, and its runtime with it.
            None => Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into()),
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
            let result = connect(&shared.info).await;
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
        }
        is_there
    }

    /// Asks a connection, on which somebody waited in vain, for a sign of life, and replaces it if there is none.
    fn suspect(self: &Arc<Self>, connection: &Connection) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if connection.is_ended() || !connection.begin_probe() {
            return;
        }
        let (shared, connection) = (Arc::clone(self), connection.clone());
        runtime.spawn(async move {
            let before = connection.answers();
            let ping = redis::cmd("PING");
            let question = Request::Command(&ping);
            let asked = question.send(connection.driver());
            let is_alive = match tokio::time::timeout(PROBE, asked).await {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => !is_of_connection(&error),
                // Others were answered meanwhile: it is slow, not dead.
                Err(_) => connection.answers() != before,
            };
            if !is_alive && shared.forget(&connection) {
                shared.counters.replaced.add();
            }
            connection.end_probe();
        });
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    connection: Connection,
    answers_before: u64,
    is_answered: bool,
}

impl<'a> Flight<'a> {
    fn begin(shared: &'a Arc<Shared>, connection: Connection) -> Flight<'a> {
        shared.counters.sent.add();
        Flight {
            shared,
            answers_before: connection.answers(),
            connection,
            is_answered: false,
        }
    }

    fn answered(mut self) {
        self.connection.answered();
        self.is_answered = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.shared.counters.given_up.add();
        // As long as others are answered there is no need to ask.
        if self.connection.answers() == self.answers_before {
            self.shared.suspect(&self.connection);
        }
    }
}
