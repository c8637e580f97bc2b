//! The suite that every store passes, `bequest_test::conformance`.
//!
//! Quick commands share one connection and wait for none, so `pool` is passed by the blocking ones. Left out:
//! `long_transactions` and `rows`, which Redis does not have.

mod common;

use bequest::{Canceled, Context};
use bequest_redis::{Client, Error, redis};
use bequest_test::conformance::{Hosted, Pooled, Store, Transactional};
use common::{ROOT, blocked, blpop, command, patient, push};

bequest_test::conformance! { Redis: base, transactions, server }
bequest_test::conformance! { Blocking: pool }

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

/// The same, whose quick calls block too, and find an element.
struct Blocking(Redis);

impl Store for Blocking {
    type Error = Error;

    async fn open() -> Option<Blocking> {
        Redis::open().await.map(Blocking)
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        push(&self.0.watcher, "mine", "mine").await;
        let (_, popped): (String, String) = self.0.client.cmd(ctx, &blpop("mine", 0.0)).await?;
        assert_eq!(popped, "mine", "somebody else's answer");
        Ok(())
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        self.0.slow(ctx).await
    }

    async fn running(&self) -> usize {
        self.0.running().await
    }

    fn end(error: &Error) -> Option<&Canceled> {
        error.canceled()
    }

    async fn whole(&self) -> Result<(), String> {
        self.0.whole().await
    }
}

impl Pooled for Blocking {
    fn waiting(&self) -> usize {
        self.0.client.statistics().blocking.waiting
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
