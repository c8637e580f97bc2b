//! What every test here uses: the private server, somebody who watches it, and waiting by condition.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use bequest::Context;
use bequest_postgres::tokio_postgres::{Client, NoTls, connect};
use bequest_postgres::{Database, Options};
use bequest_test::servers::Postgres;

/// The context of whoever has nothing to do with the cancel.
pub(crate) static ROOT: Context = Context::background();

/// A query that takes longer than any test.
pub(crate) const LONG: &str = "SELECT pg_sleep(600)";

/// A test that takes this long hangs.
const HANGS: Duration = Duration::from_secs(20);

/// The server that the tests of this process share; it goes with the process. `None` where there is none to start.
pub(crate) fn server() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    SERVER.get_or_init(Postgres::start_or_leave_out).as_ref()
}

/// Options for the shared server, under the name by which it is watched.
pub(crate) fn options(server: &Postgres, name: &str) -> Options {
    Options::from_url(&format!("{}?application_name={name}", server.url())).unwrap()
}

/// A database with one connection, so that who uses it next is certain.
pub(crate) async fn single(server: &Postgres, name: &str) -> Database {
    within(options(server, name).connections(1).open(&ROOT))
        .await
        .unwrap()
}

/// Who looks at the server from outside.
pub(crate) struct Watcher {
    client: Client,
    name: String,
}

impl Watcher {
    /// Of the sessions called `name`.
    pub(crate) async fn new(server: &Postgres, name: &str) -> Watcher {
        Watcher {
            client: plain(server, "watcher").await,
            name: name.into(),
        }
    }

    /// How many of the sessions are in `state`: `active`, `idle`, `idle in transaction`.
    pub(crate) async fn count(&self, state: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state LIKE $2";
        let row = self.client.query_one(sql, &[&self.name, &state]).await.unwrap();
        row.get(0)
    }

    /// Waits until so many sessions are in `state`.
    pub(crate) async fn until(&self, state: &str, number: i64) {
        let what = format!("{number} sessions of {} are {state}", self.name);
        let holds = async {
            while self.count(state).await != number {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(HANGS, holds)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// What a query of the watcher's own says.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Statements of the watcher's own.
    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }
}

/// The plain driver's connection, driven in the background.
pub(crate) async fn plain(server: &Postgres, name: &str) -> Client {
    let url = format!("{}?application_name={name}", server.url());
    let (client, connection) = connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Whether the pool has all that it had: nobody in it, nothing being settled.
pub(crate) fn is_whole(db: &Database) -> bool {
    let now = db.statistics();
    now.in_use + now.settling + now.connecting + now.waiting + now.cancels == 0 && now.idle == now.connections
}

/// `future`, which does not hang.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANGS, future).await.expect("it hangs")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Polls `future` to its end, but for at most `most` times; `None` if that was not enough, and then it is dropped.
pub(crate) async fn polled<F: Future>(future: F, most: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    std::future::poll_fn(|task| {
        polls += 1;
        match future.as_mut().poll(task) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == most => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
