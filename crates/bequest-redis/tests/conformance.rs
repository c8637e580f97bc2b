//! The suite that every store passes, `bequest_test::conformance`.
//!
//! Left out: `pool`, since quick commands share one connection and wait for none; `long_transactions` and `rows`, which
//! Redis does not have.

mod common;

use bequest::{Canceled, Context};
use bequest_redis::{Client, Error, redis};
use bequest_test::conformance::{Hosted, Store, Transactional};
use common::{ROOT, blocked, blpop, command, patient};

bequest_test::conformance! { Redis: base, transactions, server }

/// A client with one connection for blocking commands, and somebody who watches the server.
struct Redis {
    client: Client,
    watcher: Client,
    server: bequest_test::servers::Redis,
}

impl Store for Redis {
    type Error = Error;

    async fn open() -> Option<Redis> {
        let server = bequest_test::servers::Redis::start_or_leave_out()?;
        let client = patient(&server).blocking_connections(1).open().unwrap();
        let watcher = patient(&server).open().unwrap();
        Some(Redis {
            client,
            watcher,
            server,
        })
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        let answer: String = self.client.cmd(ctx, &command("ECHO mine")).await?;
        assert_eq!(answer, "mine", "somebody else's answer");
        Ok(())
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        let popped: redis::Value = self.client.cmd(ctx, &blpop("never pushed to", 0.0)).await?;
        panic!("nobody has pushed {popped:?}")
    }

    /// How many the server holds blocked.
    async fn running(&self) -> usize {
        blocked(&self.watcher).await
    }

    fn end(error: &Error) -> Option<&Canceled> {
        error.canceled()
    }

    async fn whole(&self) -> Result<(), String> {
        let now = self.client.statistics().blocking;
        match now.running == 0 && now.idle <= 1 && now.lost == 0 {
            true => Ok(()),
            false => Err(format!("{now:?}")),
        }
    }
}

impl Transactional for Redis {
    async fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let mut both = redis::pipe();
        both.atomic();
        for half in ["first", "second"] {
            both.cmd("INCR").arg(format!("{half}:{key}"));
        }
        before_commit();
        self.client.pipeline::<redis::Value>(ctx, &both).await.map(drop)
    }

    async fn count(&self, key: u64) -> usize {
        let both = command(&format!("MGET first:{key} second:{key}"));
        let (first, second): (Option<usize>, Option<usize>) = self.client.cmd(&ROOT, &both).await.unwrap();
        assert_eq!(first, second, "half of a transaction was written");
        first.unwrap_or(0)
    }

    fn is_in_doubt(error: &Error) -> bool {
        error.in_doubt()
    }
}

impl Hosted for Redis {
    fn freeze(&self) {
        self.server.freeze();
    }

    fn thaw(&self) {
        self.server.thaw();
    }

    fn kill(&self) {
        self.server.kill();
    }

    fn restart(&self) {
        self.server.restart();
    }
}
