//! One PostgreSQL and one Redis server for all tests here, and a database for each service.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bequest::Context;
use bequest_postgres::tokio_postgres::Row;
use bequest_postgres::tokio_postgres::types::ToSql;
use bequest_postgres::{Database, Options};
use bequest_test::servers::{Postgres, Redis};

/// A database of its own on the server that all share, and the cache that all share.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    pub(crate) database: String,
    pub(crate) cache: String,
}

struct Servers {
    postgres: Postgres,
    redis: Redis,
}

/// The servers, if they are installed. They are gone when this process is.
fn servers() -> Option<&'static Servers> {
    static SERVERS: OnceLock<Option<Servers>> = OnceLock::new();
    let start = || {
        let postgres = Postgres::start_or_leave_out()?;
        let redis = Redis::start_or_leave_out()?;
        Some(Servers { postgres, redis })
    };
    SERVERS.get_or_init(start).as_ref()
}

impl Stores {
    /// A new database, if servers are installed.
    pub(crate) fn new() -> Option<Stores> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let servers = servers()?;
        let name = format!("service_{}", LAST.fetch_add(1, Ordering::Relaxed));
        query(&servers.postgres.url(), &format!("CREATE DATABASE {name}"), &[]);
        let database = servers.postgres.url();
        let (server, _) = database.rsplit_once('/').expect("it ends with the database");
        Some(Stores {
            database: format!("{server}/{name}"),
            cache: servers.redis.url(),
        })
    }

    /// What a service has to be told.
    pub(crate) fn flags(&self) -> [&str; 4] {
        ["--database", &self.database, "--cache", &self.cache]
    }

    /// Asks the database itself.
    pub(crate) fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        query(&self.database, sql, params)
    }
}

/// The claim on the sessions, taken by somebody else. Dropping it gives it back.
pub(crate) struct Taken {
    database: Database,
    runtime: tokio::runtime::Runtime,
}

impl Stores {
    /// Takes the claim of the node that has it: ends the server's session of that node and waits for the lock, which the
    /// node takes again only when it looks after it.
    pub(crate) fn steal_claim(&self) -> Taken {
        self.take(async |ctx, database| {
            // Whoever waits in line has it before anybody who only tries.
            let wait = database.query(ctx, "SELECT pg_advisory_lock(7091310, 0)", &[]);
            let end = async {
                let other = Database::open(ctx, &self.database).await.unwrap();
                let sql =
                    "SELECT pg_terminate_backend(holder.pid) FROM pg_locks AS holder JOIN pg_locks AS waiter
                           USING (locktype, database, classid, objid)
                           WHERE holder.granted AND NOT waiter.granted AND classid = 7091310
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
                while other.query(ctx, sql, &[]).await.unwrap().is_empty() {}
                other.close(ctx).await.unwrap();
            };
            let (waited, ()) = tokio::join!(wait, end);
            waited.unwrap();
        })
    }

    /// Says, as a node would, that somebody keeps the sessions of this database in another cache.
    pub(crate) fn claim_another_cache(&self) -> Taken {
        self.take(async |ctx, database| {
            // A mark is from 0 on.
            let say = database.query(ctx, "SELECT pg_advisory_lock_shared(7091313, -1)", &[]);
            say.await.unwrap();
        })
    }

    /// A session of its own, in which `how` takes a lock.
    fn take(&self, how: impl AsyncFnOnce(&Context, &Database)) -> Taken {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let database = runtime.block_on(async {
            let ctx = Context::background();
            let database = Options::from_url(&self.database).unwrap().connections(1);
            let database = database.open(&ctx).await.unwrap();
            how(&ctx, &database).await;
            database
        });
        Taken { database, runtime }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let closed = self.runtime.block_on(self.database.close(&Context::background()));
        assert!(closed.is_ok() || std::thread::panicking());
    }
}

pub(crate) fn query(url: &str, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ctx = Context::background();
        let database = Database::open(&ctx, url).await.unwrap();
        let rows = database.query(&ctx, sql, params).await.unwrap();
        database.close(&ctx).await.unwrap();
        rows
    })
}
