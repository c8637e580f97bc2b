//! The handle and its calls.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bequest::Context;
use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, Pipeline, ScriptInvocation, Value, from_redis_value};

use crate::blocking::{Patience, Work, call};
use crate::cluster::Cluster;
use crate::command::{Blocking, Class};
use crate::endpoint::Endpoint;
use crate::error::{Error, Step};
use crate::node::Node;
use crate::options::{Options, Settings};
use crate::pubsub::{Subscription, Topics};
use crate::shared::Request;
use crate::statistics::{Counters, Statistics};

const BLOCKS: &str = "a command that blocks is sent to the one node that has its keys: use `cmd`";

/// A Redis server, or a cluster, whose commands end with their context.
///
/// A handle: clone it freely. Every call takes the context first. Plain commands of all clones share one connection;
/// each blocking command has one to itself for as long as it runs. Connections are made when they are needed, anew when
/// they are lost, and closed after the last handle.
///
/// # Runtime
///
/// Calls must be made on a tokio runtime with I/O and time, the same for all clones: the connections live on the one
/// on which they were made, and end with it. Before it is shut down, [`settle`](Client::settle) waits for what is still
/// being tidied up.
///
/// # Cancel safety
///
/// See [the crate's page](crate) for what the server does. For every call: when it has been answered, or its future has
/// been dropped, no reply of it can reach anybody else. A call that ended without an answer, but may have taken effect,
/// says so by [`Error::is_in_doubt`]. Whoever drops a future learns nothing; better to end the context and wait for the
/// call to return.
///
/// # Panics
///
/// Calls panic outside a tokio runtime.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    connect_limit: Duration,
    counters: Arc<Counters>,
    upstream: Upstream,
}

/// What the client is one of.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    Server(Arc<Node>),
    Cluster(Arc<Cluster>),
}

/// Opening and closing.
impl Client {
    /// A client of the server at `url`, `redis://[user:password@]host[:port][/db]` or `unix:///path`. [`Options`] has
    /// settings.
    ///
    /// Nothing is sent; the first command connects.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// ```
    /// use bequest_redis::{Client, Step};
    ///
    /// assert!(Client::open("redis://127.0.0.1/").is_ok());
    /// assert_eq!(Client::open("no url").unwrap_err().step(), Step::Connecting);
    /// ```
    pub fn open(url: impl Into<String>) -> Result<Client, Error> {
        Options::new(url).open()
    }

    /// A client of the cluster to which the servers at `urls` belong, as in [`open`](Client::open). They are where it is
    /// looked for; one that answers is enough. Its other nodes are found, and spoken to as the first URL says.
    ///
    /// Nothing is sent; the first command connects. [The crate's page](crate#a-cluster) says what differs from one server.
    ///
    /// # Errors
    ///
    /// As [`Options::open`]; without a URL, or with a number of a database: a cluster has but one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use bequest::Context;
    /// use bequest_redis::{Client, redis};
    /// use std::time::Duration;
    ///
    /// # let Some(cluster) = bequest_test::servers::RedisCluster::start_or_leave_out(3, 0) else { return Ok(()) };
    /// let client = Client::open_cluster(cluster.urls())?;
    /// let request = Context::background().with_timeout(Duration::from_secs(5));
    ///
    /// // Keys with the same part in braces are together.
    /// let mut transfer = redis::pipe();
    /// transfer.atomic().cmd("DECRBY").arg("{ana}:a").arg(30).cmd("INCRBY").arg("{ana}:b").arg(30);
    /// let (a, b): (i64, i64) = client.pipeline(&request, &transfer).await?;
    /// assert_eq!((a, b), (-30, 30));
    ///
    /// // Others are somewhere else, and one command cannot have both.
    /// let error = client.del(&request, &["ana", "ben"]).await.unwrap_err();
    /// assert!(error.is_cross_slot());
    /// # Ok(()) }
    /// ```
    pub fn open_cluster<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> Result<Client, Error> {
        Options::cluster(urls).open()
    }

    /// Waits until no blocking command runs, and what the dropped ones had taken is back in its place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait and nothing else.
    ///
    /// # Errors
    ///
    /// The context's end, if that comes first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_redis::{Client, redis};
    /// # use std::time::Duration;
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// # let (ctx, client) = (Context::background(), Client::open(server.url())?);
    /// let mut pop = redis::cmd("BLPOP");
    /// pop.arg("jobs").arg(0);
    /// // The future is dropped while the server waits for a job.
    /// let dropped = tokio::time::timeout(Duration::from_millis(10), client.cmd::<redis::Value>(&ctx, &pop)).await;
    /// assert!(dropped.is_err());
    ///
    /// client.settle(&ctx).await?;
    /// assert_eq!(client.statistics().blocking.running, 0);
    /// // So the next job is not taken for nobody.
    /// assert_eq!(client.cmd::<i64>(&ctx, redis::cmd("RPUSH").arg("jobs").arg("a job")).await?, 1);
    /// assert_eq!(client.cmd::<i64>(&ctx, redis::cmd("LLEN").arg("jobs")).await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn settle(&self, ctx: &Context) -> Result<(), Error> {
        let mut running = self.inner.counters.running.subscribe();
        match ctx.run(running.wait_for(|count| *count == 0)).await {
            // The sender is ours, so it is there.
            Ok(_) => Ok(()),
            Err(end) => Err(Error::canceled_at(Step::Waiting, end)),
        }
    }

    /// What the client is doing now and has done.
    pub fn statistics(&self) -> Statistics {
        let idle = match &self.inner.upstream {
            Upstream::Server(node) => node.pool.idle(),
            Upstream::Cluster(cluster) => cluster.idle(),
        };
        self.inner.counters.read(idle)
    }

    pub(crate) fn start(endpoint: Endpoint, settings: &Settings) -> Client {
        let counters = Arc::<Counters>::default();
        let node = Node::new(endpoint, settings, &counters, Weak::new());
        Client::of(Upstream::Server(Arc::new(node)), settings.connect_limit, counters)
    }

    pub(crate) fn start_cluster(seeds: Vec<Endpoint>, settings: Settings) -> Client {
        let counters = Arc::<Counters>::default();
        let connect_limit = settings.connect_limit;
        let cluster = Cluster::new(seeds, settings, Arc::clone(&counters));
        Client::of(Upstream::Cluster(cluster), connect_limit, counters)
    }

    fn of(upstream: Upstream, connect_limit: Duration, counters: Arc<Counters>) -> Client {
        let inner = Inner {
            connect_limit,
            counters,
            upstream,
        };
        Client {
            inner: Arc::new(inner),
        }
    }
}

/// Commands.
impl Client {
    /// Sends a command and converts its reply.
    ///
    /// A blocking command that Redis itself has (`BLPOP`, `BRPOP`, `BLMOVE`, `BRPOPLPUSH`, `BLMPOP`, `BZPOPMIN`,
    /// `BZPOPMAX`, `BZMPOP`, and `XREAD` or `XREADGROUP` with `BLOCK`) is recognised and runs on a connection to itself,
    /// with no more time as its own timeout than the context has left. Everything else goes over the shared connection. A
    /// command that would change that for all (`SELECT`, `MULTI`, `CLIENT REPLY` …) is refused.
    ///
    /// # Cancel safety
    ///
    /// A plain command that was sent can not be taken back; its reply is read and thrown away. A blocking command is
    /// ended on the server. What it had taken is returned if the context ended, and put back if the future was dropped.
    ///
    /// # Errors
    ///
    /// The context's end; what the server answered; the loss of the connection, or none within the limit; a command that
    /// is refused; a reply that is no `T`. After the last one what a blocking command took is in nobody's hands: ask
    /// for a type that fits every reply, such as [`redis::Value`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use bequest::Context;
    /// use bequest_redis::{Client, redis};
    /// use std::time::Duration;
    ///
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// let client = Client::open(server.url())?;
    /// let request = Context::background().with_timeout(Duration::from_secs(5));
    /// client.cmd::<i64>(&request, redis::cmd("RPUSH").arg("jobs").arg("a job")).await?;
    ///
    /// // Waits for five seconds at most, although the command says for ever.
    /// let (list, job): (String, String) = client.cmd(&request, redis::cmd("BLPOP").arg("jobs").arg(0)).await?;
    /// assert_eq!((list.as_str(), job.as_str()), ("jobs", "a job"));
    /// # Ok(()) }
    /// ```
    pub async fn cmd<T: FromRedisValue>(&self, ctx: &Context, cmd: &Cmd) -> Result<T, Error> {
        let reply = match (Class::of(cmd), &self.inner.upstream) {
            (Class::Plain, Upstream::Server(node)) => node.shared.run(ctx, Request::Command(cmd)).await?,
            (Class::Plain, Upstream::Cluster(cluster)) => cluster.command(ctx, cmd).await?,
            (Class::Blocking(blocking), _) => {
                self.inner
                    .block(ctx, Work::Command(cmd.clone(), blocking))
                    .await?
            }
            (Class::Refused(why), _) => return Err(Error::refused(why)),
        };
        converted(reply)
    }

    /// Sends a command that blocks and that [`cmd`](Client::cmd) does not know: one of a module.
    ///
    /// It runs on a connection to itself and is ended by `CLIENT UNBLOCK`. Its own timeout is left as it is.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd), but what it had taken can not be put back: if the future was dropped, the answer goes to
    /// [`Options::orphans`], or is gone.
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    pub async fn blocking_cmd<T: FromRedisValue>(&self, ctx: &Context, cmd: &Cmd) -> Result<T, Error> {
        let work = Work::Command(cmd.clone(), Blocking::default());
        converted(self.inner.block(ctx, work).await?)
    }

    /// Sends a plain command to each server that holds a part of the data, and returns their replies: for what is about a
    /// whole server, such as `DBSIZE`, `SCAN`, `FLUSHALL` or `SCRIPT LOAD`. A cluster has several, its primaries, in the
    /// order of their slots; otherwise there is one.
    ///
    /// # Cancel safety
    ///
    /// As [`cmd`](Client::cmd), for each of them: some may have run it.
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd); the first, if there are several. It is in doubt as soon as one may have run it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_redis::{Client, redis};
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// # let (ctx, client) = (Context::background(), Client::open(server.url())?);
    /// client.set(&ctx, "k", "v").await?;
    /// let sizes: Vec<u64> = client.cmd_at_each(&ctx, &redis::cmd("DBSIZE")).await?;
    /// assert_eq!(sizes.iter().sum::<u64>(), 1);
    /// # Ok(()) }
    /// ```
    pub async fn cmd_at_each<T: FromRedisValue>(&self, ctx: &Context, cmd: &Cmd) -> Result<Vec<T>, Error> {
        match Class::of(cmd) {
            Class::Plain => {}
            Class::Blocking(_) => return Err(Error::refused(BLOCKS)),
            Class::Refused(why) => return Err(Error::refused(why)),
        }
        let replies = match &self.inner.upstream {
            Upstream::Server(node) => vec![node.shared.run(ctx, Request::Command(cmd)).await],
            Upstream::Cluster(cluster) => {
                let primaries = cluster.primaries(ctx).await?.into_iter();
                join_all(primaries.map(|node| cluster.command_at(ctx, node, cmd))).await
            }
        };
        let may_have_run = replies.iter().any(|reply| match reply {
            Ok(_) => true,
            Err(error) => error.is_in_doubt(),
        });
        let doubted = |error: Error| if may_have_run { error.doubted() } else { error };
        replies
            .into_iter()
            .map(|reply| converted(reply.map_err(doubted)?))
            .collect()
    }

    /// Sends several commands at once and converts their replies, a list; with
    /// [`atomic`](redis::Pipeline::atomic), as one transaction (`MULTI` … `EXEC`).
    ///
    /// A pipeline with a `WAIT` or `WAITAOF` in it runs on a connection to itself, since these count the writes of
    /// their own connection. Other blocking commands are refused here, except in a transaction, where they do not block.
    ///
    /// # Cancel safety
    ///
    /// The commands are sent together or not at all; once sent, all of them run. A transaction takes effect whole or not
    /// at all. A `WAIT` is ended.
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_redis::{Client, redis};
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// # let (ctx, client) = (Context::background(), Client::open(server.url())?);
    /// let mut transfer = redis::pipe();
    /// transfer.atomic().cmd("DECRBY").arg("ana").arg(30).cmd("INCRBY").arg("ben").arg(30);
    /// let (ana, ben): (i64, i64) = client.pipeline(&ctx, &transfer).await?;
    /// assert_eq!((ana, ben), (-30, 30));
    /// # Ok(()) }
    /// ```
    pub async fn pipeline<T: FromRedisValue>(&self, ctx: &Context, pipeline: &Pipeline) -> Result<T, Error> {
        let reply = match (Class::of_pipeline(pipeline), &self.inner.upstream) {
            (Class::Plain, Upstream::Server(node)) => {
                node.shared.run(ctx, Request::Pipeline(pipeline)).await?
            }
            (Class::Plain, Upstream::Cluster(cluster)) => cluster.pipeline(ctx, pipeline).await?,
            (Class::Blocking(_), _) => self.inner.block(ctx, Work::Pipeline(pipeline.clone())).await?,
            (Class::Refused(why), _) => return Err(Error::refused(why)),
        };
        converted(reply)
    }

    /// Runs a script by its hash; a server that does not know it yet is given its text first.
    ///
    /// # Cancel safety
    ///
    /// As a plain command: a script that runs, runs to its end. (`SCRIPT KILL` could not say whose script it means.)
    ///
    /// # Errors
    ///
    /// As [`cmd`](Client::cmd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_redis::{Client, redis};
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// # let (ctx, client) = (Context::background(), Client::open(server.url())?);
    /// let double = redis::Script::new("return ARGV[1] * 2");
    /// assert_eq!(client.script::<i64>(&ctx, &double.arg(21)).await?, 42);
    /// # Ok(()) }
    /// ```
    pub async fn script<T: FromRedisValue>(
        &self,
        ctx: &Context,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Error> {
        converted(match &self.inner.upstream {
            Upstream::Server(node) => node.shared.run(ctx, Request::Script(script)).await?,
            Upstream::Cluster(cluster) => cluster.script(ctx, script).await?,
        })
    }
}

/// Published messages.
impl Client {
    /// Listens to channels, on a connection of its own.
    ///
    /// When it returns, the server has confirmed: whatever is published from then on is received.
    ///
    /// # Cancel safety
    ///
    /// If the context ends or the future is dropped, the connection is closed.
    ///
    /// # Errors
    ///
    /// The context's end; no connection within the limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_redis::{Client, redis};
    /// # use std::time::Duration;
    /// # let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else { return Ok(()) };
    /// # let (ctx, client) = (Context::background(), Client::open(server.url())?);
    /// let mut news = client.subscribe(&ctx, ["news"]).await?;
    /// assert!(news.receive(&ctx.with_timeout(Duration::from_millis(10))).await.unwrap_err().is_canceled());
    ///
    /// client.cmd::<i64>(&ctx, redis::cmd("PUBLISH").arg("news").arg("rain")).await?;
    /// assert_eq!(news.receive(&ctx).await?.get_payload::<String>()?, "rain");
    /// # Ok(()) }
    /// ```
    pub async fn subscribe<S: Into<String>>(
        &self,
        ctx: &Context,
        channels: impl IntoIterator<Item = S>,
    ) -> Result<Subscription, Error> {
        let channels = channels.into_iter().map(S::into).collect();
        self.listen(ctx, Topics::Channels(channels)).await
    }

    /// Listens to all channels whose names match one of `patterns`; otherwise as [`subscribe`](Client::subscribe).
    ///
    /// # Cancel safety
    ///
    /// As [`subscribe`](Client::subscribe).
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Client::subscribe).
    pub async fn psubscribe<S: Into<String>>(
        &self,
        ctx: &Context,
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Subscription, Error> {
        let patterns = patterns.into_iter().map(S::into).collect();
        self.listen(ctx, Topics::Patterns(patterns)).await
    }

    async fn listen(&self, ctx: &Context, topics: Topics) -> Result<Subscription, Error> {
        let Inner {
            upstream,
            connect_limit,
            counters,
        } = &*self.inner;
        Subscription::begin(
            ctx,
            upstream.clone(),
            *connect_limit,
            Arc::clone(counters),
            topics,
        )
        .await
    }
}

impl Inner {
    /// Runs what blocks, on a connection of its own.
    async fn block(&self, ctx: &Context, work: Work) -> Result<Value, Error> {
        match &self.upstream {
            Upstream::Server(node) => call(&node.pool, ctx, work, Patience::Within(self.connect_limit)).await,
            Upstream::Cluster(cluster) => cluster.blocking(ctx, work).await,
        }
    }
}

fn converted<T: FromRedisValue>(reply: Value) -> Result<T, Error> {
    from_redis_value(reply).map_err(|error| Error::unfit(error.into()))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Client");
        // The address alone: the rest of the URL may hold a password.
        match &self.inner.upstream {
            Upstream::Server(node) => out
                .field("address", &format_args!("{}", node.endpoint.address()))
                .field("has_connection", &node.shared.has_connection()),
            Upstream::Cluster(cluster) => out
                .field("cluster_at", &format_args!("{}", cluster.address()))
                .field("nodes", &cluster.picture().nodes().len()),
        };
        out.field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
