//! Published messages: a connection of their own, and a wait that ends with the context.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bequest::Context;
use futures_util::Stream;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use redis::{Msg, RedisError, RedisResult};

use crate::client::Upstream;
use crate::connection::within_a_try;
use crate::endpoint::{Endpoint, Opened};
use crate::error::{Error, Step};
use crate::retry::{delay, until_connected};
use crate::statistics::Counters;

/// Channels and patterns that are listened to, from [`Client::subscribe`](crate::Client::subscribe) and
/// [`Client::psubscribe`](crate::Client::psubscribe).
///
/// Messages are read as they come and kept until they are received, in order. Nothing holds the server back: a
/// subscriber that does not receive for long keeps all that was published in memory.
///
/// # When the connection is lost
///
/// Redis does not keep messages for those who are away. So a loss is said, not hidden: [`receive`](Subscription::receive)
/// first returns what had arrived, then one error with [`Error::is_connection`], which stands for whatever was
/// published in between; the next call connects and subscribes anew.
#[must_use = "dropped, it no longer listens"]
pub struct Subscription {
    upstream: Upstream,
    connect_limit: Duration,
    counters: Arc<Counters>,
    topics: Topics,
    /// `None` from the loss of a connection to the next `receive`.
    live: Option<Live>,
}

/// What is listened to.
#[derive(Clone, Debug)]
pub(crate) enum Topics {
    Channels(Vec<String>),
    Patterns(Vec<String>),
}

struct Live {
    messages: PubSubStream,
    /// Unused after subscribing; without it the driver would take the subscription to be over.
    _sink: PubSubSink,
}

impl Subscription {
    pub(crate) async fn begin(
        ctx: &Context,
        upstream: Upstream,
        connect_limit: Duration,
        counters: Arc<Counters>,
        topics: Topics,
    ) -> Result<Subscription, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let mut subscription = Subscription {
            upstream,
            connect_limit,
            counters,
            topics,
            live: None,
        };
        subscription.live(ctx).await?;
        Ok(subscription)
    }

    /// Waits for the next message.
    ///
    /// # Cancel safety
    ///
    /// No message is lost: whether the context ends or the future is dropped, what has arrived stays for the next call.
    /// While it connects anew, a dropped future drops that connection; the next call begins afresh.
    ///
    /// # Errors
    ///
    /// The context's end; the loss of the connection, once; no connection within the limit.
    pub async fn receive(&mut self, ctx: &Context) -> Result<Msg, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Receiving, end))?;
        let live = self.live(ctx).await?;
        let next = poll_fn(|task| Pin::new(&mut live.messages).poll_next(task));
        match ctx.run(next).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                self.live = None;
                Err(Error::disconnected(lost()))
            }
            Err(end) => Err(Error::canceled_at(Step::Receiving, end)),
        }
    }

    async fn live(&mut self, ctx: &Context) -> Result<&mut Live, Error> {
        let live = match self.live.take() {
            Some(live) => live,
            None => {
                let (upstream, topics, counters) = (&self.upstream, &self.topics, &*self.counters);
                let attempt = |failures| async move {
                    tokio::time::sleep(delay(failures)).await;
                    let endpoint = upstream.any().await?;
                    let made = within_a_try(subscribe(&endpoint, topics)).await;
                    match &made {
                        Ok(_) => counters.connected.add(),
                        Err(_) => {
                            counters.connect_failed.add();
                            upstream.suspect();
                        }
                    }
                    made
                };
                until_connected(ctx, self.connect_limit, attempt).await?
            }
        };
        Ok(self.live.insert(live))
    }
}

impl Upstream {
    /// Where to subscribe. In a cluster every node hears what is published at any; another one is chosen each time.
    async fn any(&self) -> RedisResult<Arc<Endpoint>> {
        match self {
            Upstream::Server(node) => Ok(Arc::clone(&node.endpoint)),
            Upstream::Cluster(cluster) => cluster.any_endpoint().await,
        }
    }

    /// One of the nodes may be gone.
    fn suspect(&self) {
        if let Upstream::Cluster(cluster) = self {
            cluster.renew();
        }
    }
}

async fn subscribe(endpoint: &Endpoint, topics: &Topics) -> RedisResult<Live> {
    let login = endpoint.login();
    let pubsub = match endpoint.open().await? {
        Opened::Tcp(socket) => PubSub::new(login, socket).await?,
        Opened::Unix(socket) => PubSub::new(login, socket).await?,
        #[cfg(feature = "tls")]
        Opened::Tls(socket) => PubSub::new(login, *socket).await?,
    };
    let (mut sink, messages) = pubsub.split();
    match topics {
        Topics::Channels(names) => sink.subscribe(names).await?,
        Topics::Patterns(names) => sink.psubscribe(names).await?,
    }
    Ok(Live {
        messages,
        _sink: sink,
    })
}

fn lost() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "messages may have been missed").into()
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", &self.topics)
            .field("is_connected", &self.live.is_some())
            .finish_non_exhaustive()
    }
}
