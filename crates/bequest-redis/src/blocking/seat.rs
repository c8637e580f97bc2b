//! One connection for blocking commands, and the control connection by which its command is ended.

use std::time::Duration;

use redis::{Cmd, RedisError, RedisResult, Value, from_redis_value};

use crate::connection::{Connection, within_a_try};
use crate::error::is_of_connection;
use crate::handle::Handle;
use crate::shared::Request;

/// The first pause before the server is told again.
const AGAIN: Duration = Duration::from_millis(1);
const AGAIN_AT_MOST: Duration = Duration::from_millis(50);

/// A connection that only ever says `CLIENT UNBLOCK`.
#[derive(Clone)]
pub(super) struct Control {
    connection: Connection,
    /// Which run of which server it leads to; `None` if the server does not tell.
    run: Option<String>,
}

/// A connection for one blocking command at a time.
pub(super) struct Seat {
    pub(super) connection: Connection,
    /// `None` if the server does not tell ids and runs, or if the two lead to different servers: then a command can only
    /// be ended by closing its connection.
    unblock: Option<Unblock>,
}

struct Unblock {
    control: Connection,
    command: Cmd,
}

/// The server could not be asked to end the command.
pub(super) struct Unreachable;

impl Control {
    pub(super) async fn prepare(connection: Connection) -> RedisResult<Control> {
        let run = within_a_try(run(&connection)).await?;
        Ok(Control { connection, run })
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.connection.is_ended()
    }
}

impl Seat {
    pub(super) async fn prepare(connection: Connection, control: &Control) -> RedisResult<Seat> {
        let asked = async {
            let id = ask::<i64>(&connection, redis::cmd("CLIENT").arg("ID")).await?;
            Ok((id, run(&connection).await?))
        };
        let (id, run) = within_a_try(asked).await?;
        let is_same_run = run.is_some() && run == control.run;
        let unblock = id.filter(|_| is_same_run).map(|id| Unblock {
            control: control.connection.clone(),
            command: redis::cmd("CLIENT").arg("UNBLOCK").arg(id).arg("ERROR").take(),
        });
        Ok(Seat { connection, unblock })
    }

    /// Whether another command may be begun on it. Without its control connection it could not be ended.
    pub(super) fn is_usable(&self) -> bool {
        let is_controlled = self
            .unblock
            .as_ref()
            .is_none_or(|unblock| !unblock.control.is_ended());
        is_controlled && !self.connection.is_ended()
    }

    /// Ends the command that runs here, and returns its reply. It is told again and again: the first time may come
    /// before the server has read the command.
    pub(super) async fn unblock<R>(&self, mut reply: R) -> Result<RedisResult<Value>, Unreachable>
    where
        R: Future<Output = RedisResult<Value>> + Unpin,
    {
        let Some(unblock) = &self.unblock else {
            return Err(Unreachable);
        };
        let mut pause = AGAIN;
        loop {
            // Awaited alone: the reply to `UNBLOCK` is read before the connection can be handed on.
            match ask::<i64>(&unblock.control, &unblock.command).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(Unreachable),
            }
            match tokio::time::timeout(pause, &mut reply).await {
                Ok(reply) => return Ok(reply),
                Err(_) => pause = (pause * 2).min(AGAIN_AT_MOST),
            }
        }
    }
}

/// The answer, or `None` if the server does not allow the question.
async fn ask<T: redis::FromRedisValue>(connection: &Connection, question: &Cmd) -> RedisResult<Option<T>> {
    let mut handle = Handle::to(connection.clone());
    match handle.send(&Request::Command(question)).await {
        Ok(value) => from_redis_value(value).map(Some).map_err(RedisError::from),
        Err(error) if is_of_connection(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

async fn run(connection: &Connection) -> RedisResult<Option<String>> {
    let text: Option<String> = ask(connection, redis::cmd("INFO").arg("server")).await?;
    let line = text.as_deref().and_then(|text| {
        text.lines()
            .find_map(|line| line.trim_end().strip_prefix("run_id:"))
    });
    Ok(line.map(str::to_owned))
}
