//! Short names for the four commands that a cache needs. For every other there is [`Client::cmd`].

use std::time::Duration;

use bequest::Context;
use redis::{FromRedisValue, ToRedisArgs, ToSingleRedisArg};

use crate::client::Client;
use crate::error::Error;

/// The commands that a cache needs.
impl Client {
    /// `GET`: the value under `key`; `None` for an `Option` if there is none.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    pub async fn get<T: FromRedisValue>(
        &self,
        ctx: &Context,
        key: impl ToSingleRedisArg,
    ) -> Result<T, Error> {
        self.cmd(ctx, redis::cmd("GET").arg(key)).await
    }

    /// `SET`: puts `value` under `key`.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    pub async fn set(
        &self,
        ctx: &Context,
        key: impl ToSingleRedisArg,
        value: impl ToSingleRedisArg,
    ) -> Result<(), Error> {
        self.cmd(ctx, redis::cmd("SET").arg(key).arg(value)).await
    }

    /// `SET … PX`: puts `value` under `key` for `time`, in whole milliseconds and at least one.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    pub async fn set_for(
        &self,
        ctx: &Context,
        key: impl ToSingleRedisArg,
        value: impl ToSingleRedisArg,
        time: Duration,
    ) -> Result<(), Error> {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(millis);
        self.cmd(ctx, &set).await
    }

    /// `DEL`: removes the keys and says how many there were.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    pub async fn del(&self, ctx: &Context, keys: impl ToRedisArgs) -> Result<u64, Error> {
        self.cmd(ctx, redis::cmd("DEL").arg(keys)).await
    }
}
