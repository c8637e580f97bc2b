//! The suite that every store passes, `bequest_test::conformance`: with one server, and with a cluster of three.
//!
//! Quick commands share one connection and wait for none, so `pool` is passed by the blocking ones. Left out:
//! `long_transactions` and `rows`, which Redis does not have.

mod common;

use std::slice;

use bequest::{Canceled, Context};
use bequest_redis::{Client, Error, Options, redis};
use bequest_test::conformance::{Hosted, Pooled, Store, Transactional};
use bequest_test::servers::{Redis, RedisCluster};
use common::{HANGS, ROOT, blocked, blpop, command, patient, push};

mod one_server {
    use super::{Blocking, Commands, Redis};

    bequest_test::conformance! { Commands<Redis>: base, transactions, server }
    bequest_test::conformance! { Blocking<Redis>: pool }
}

/// What is done to the server is done to all three nodes.
mod cluster {
    use super::{Blocking, Commands, RedisCluster};

    bequest_test::conformance! { Commands<RedisCluster>: base, transactions, server }
    bequest_test::conformance! { Blocking<RedisCluster>: pool }
}

/// Where the commands go.
trait Home: Sized {
    fn start() -> Option<Self>;

    fn options(&self) -> Options;

    fn servers(&self) -> &[Redis];
}

impl Home for Redis {
    fn start() -> Option<Redis> {
        Redis::start_or_leave_out()
    }

    fn options(&self) -> Options {
        patient(self)
    }

    fn servers(&self) -> &[Redis] {
        slice::from_ref(self)
    }
}

impl Home for RedisCluster {
    fn start() -> Option<RedisCluster> {
        RedisCluster::start_or_leave_out(3, 0)
    }

    fn options(&self) -> Options {
        Options::cluster([self.nodes()[0].url()])
            .grace(HANGS)
            .unblock_limit(HANGS)
    }

    fn servers(&self) -> &[Redis] {
        self.nodes()
    }
}

/// A client with one connection for blocking commands, and those who watch the servers.
struct Commands<H> {
    client: Client,
    watchers: Vec<Client>,
    home: H,
}

/// A list that nobody pushes to, and one beside it, at the same node.
const EMPTY: &str = "{mine}:empty";
const JOBS: &str = "{mine}:jobs";

impl<H: Home> Store for Commands<H> {
    type Error = Error;

    async fn open() -> Option<Commands<H>> {
        let home = H::start()?;
        let client = home.options().blocking_connections(1).open().unwrap();
        let watch = |server| patient(server).open().unwrap();
        let watchers = home.servers().iter().map(watch).collect();
        Some(Commands {
            client,
            watchers,
            home,
        })
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        let answer: String = self.client.cmd(ctx, &command("ECHO mine")).await?;
        assert_eq!(answer, "mine", "somebody else's answer");
        Ok(())
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        let popped: redis::Value = self.client.cmd(ctx, &blpop(EMPTY, 0.0)).await?;
        panic!("nobody has pushed {popped:?}")
    }

    /// How many the servers hold blocked.
    async fn running(&self) -> usize {
        let mut all = 0;
        for watcher in &self.watchers {
            all += blocked(watcher).await;
        }
        all
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
struct Blocking<H>(Commands<H>);

impl<H: Home> Store for Blocking<H> {
    type Error = Error;

    async fn open() -> Option<Blocking<H>> {
        Commands::open().await.map(Blocking)
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        push(&self.0.client, JOBS, "mine").await;
        let (_, popped): (String, String) = self.0.client.cmd(ctx, &blpop(JOBS, 0.0)).await?;
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

impl<H: Home> Pooled for Blocking<H> {
    fn waiting(&self) -> usize {
        self.0.client.statistics().blocking.waiting
    }
}

impl<H: Home> Transactional for Commands<H> {
    async fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let mut both = redis::pipe();
        both.atomic();
        for half in ["first", "second"] {
            both.cmd("INCR").arg(format!("{{{key}}}:{half}"));
        }
        before_commit();
        self.client.pipeline::<redis::Value>(ctx, &both).await.map(drop)
    }

    async fn count(&self, key: u64) -> usize {
        let both = command(&format!("MGET {{{key}}}:first {{{key}}}:second"));
        let (first, second): (Option<usize>, Option<usize>) = self.client.cmd(&ROOT, &both).await.unwrap();
        assert_eq!(first, second, "half of a transaction was written");
        first.unwrap_or(0)
    }

    fn is_in_doubt(error: &Error) -> bool {
        error.is_in_doubt()
    }
}

impl<H: Home> Hosted for Commands<H> {
    fn freeze(&self) {
        self.home.servers().iter().for_each(Redis::freeze);
    }

    fn thaw(&self) {
        self.home.servers().iter().for_each(Redis::thaw);
    }

    fn kill(&self) {
        self.home.servers().iter().for_each(Redis::kill);
    }

    fn restart(&self) {
        self.home.servers().iter().for_each(Redis::restart);
    }
}
