//! One server with all the connections to it: the one that plain commands share, and those of the blocking ones.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bequest::Context;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::runtime;

use crate::blocking::{Back, Pool};
use crate::cluster::Cluster;
use crate::endpoint::Endpoint;
use crate::handle::Handle;
use crate::options::Settings;
use crate::shared::{Request, Shared};
use crate::statistics::Counters;

/// How long a server may take for a question of our own.
const ANSWER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
}

impl Node {
    /// Nothing is sent. `cluster` is the one that it belongs to; empty for a server of its own.
    pub(crate) fn new(
        endpoint: Endpoint,
        settings: &Settings,
        counters: &Arc<Counters>,
        cluster: Weak<Cluster>,
    ) -> Node {
        let endpoint = Arc::new(endpoint);
        let shared = Shared::new(
            Arc::clone(&endpoint),
            settings.connect_limit,
            Arc::clone(counters),
        );
        let shared = Arc::new(shared);
        let back = Back::new(Arc::clone(&shared), cluster);
        let pool = Pool::new(
            Arc::clone(&endpoint),
            settings.clone(),
            Arc::clone(counters),
            back,
        );
        Node {
            endpoint,
            shared,
            pool: Arc::new(pool),
        }
    }

    /// Asks the server something that changes nothing, once and not for long.
    pub(crate) async fn ask(&self, question: &Cmd) -> RedisResult<Value> {
        let ctx = Context::background().with_timeout(ANSWER);
        let handle = match self.shared.handle() {
            Some(handle) => handle,
            None => match ctx.run(self.shared.join()).await {
                Ok(connection) => Handle::to(connection?),
                Err(_) => return Err(silent()),
            },
        };
        let question = Request::Command(question);
        let answer = self.shared.send(&ctx, handle, &question).await;
        answer.map_err(|error| error.redis().cloned().unwrap_or_else(silent))
    }

    /// The cluster does not name it any more. If it does not answer either, all who wait for it are told that it is lost;
    /// otherwise they are left to it.
    pub(crate) fn depart(self: Arc<Self>) {
        let Ok(runtime) = runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if self.ask(&redis::cmd("PING")).await.is_err() {
                self.shared.close();
                self.pool.close();
            }
        });
    }
}

fn silent() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer").into()
}
