//! The suite that every store passes, `bequest_test::conformance`, against a real server, a private one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bequest::{Canceled, Context};
use bequest_postgres::tokio_postgres::{self, Client, NoTls};
use bequest_postgres::{Database, Error, Options};
use bequest_test::conformance::{Hosted, LongTransactions, Pooled, Store, Streaming, Transactional};
use bequest_test::servers;
use tokio::sync::Mutex;

bequest_test::conformance! { Postgres<Shared>: base, pool, transactions, long_transactions, rows }
bequest_test::conformance! { Postgres<Own>: server }

/// The context of whoever has nothing to do with the cancel.
static ROOT: Context = Context::background();

/// A query that takes longer than any test.
const LONG: &str = "SELECT pg_sleep(600)";

/// A database with one connection, and a table of its own.
struct Postgres<S> {
    db: Database,
    /// Of the table, and of the sessions at the server.
    name: String,
    /// Somebody who watches the server; connected when asked.
    watcher: Mutex<Option<Client>>,
    server: S,
}

/// Where a server is to be had.
trait Server: Sized {
    fn find() -> Option<Self>;
    fn postgres(&self) -> &servers::Postgres;
}

/// The server of all tests that do it no harm; it goes with the process.
struct Shared(&'static servers::Postgres);

/// A server to be mistreated.
struct Own(servers::Postgres);

impl Server for Shared {
    fn find() -> Option<Shared> {
        static SERVER: OnceLock<Option<servers::Postgres>> = OnceLock::new();
        let server = SERVER.get_or_init(servers::Postgres::start_or_leave_out);
        server.as_ref().map(Shared)
    }

    fn postgres(&self) -> &servers::Postgres {
        self.0
    }
}

impl Server for Own {
    fn find() -> Option<Own> {
        servers::Postgres::start_or_leave_out().map(Own)
    }

    fn postgres(&self) -> &servers::Postgres {
        &self.0
    }
}

impl<S: Server> Postgres<S> {
    /// How many of the sessions are in a state like this; none if the server is dead.
    async fn sessions(&self, condition: &str) -> usize {
        let mut watcher = self.watcher.lock().await;
        if watcher.as_ref().is_none_or(Client::is_closed) {
            *watcher = self.watch().await;
        }
        let Some(client) = watcher.as_ref() else { return 0 };
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND {condition}");
        match client.query_one(&sql, &[&self.name]).await {
            Ok(row) => row.get::<_, i64>(0) as usize,
            Err(error) if error.is_closed() || error.as_db_error().is_none() => 0,
            Err(error) => panic!("{error}"),
        }
    }

    async fn watch(&self) -> Option<Client> {
        let url = self.server.postgres().url();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    fn insert(&self, key: u64) -> String {
        format!("INSERT INTO {} VALUES ({key})", self.name)
    }
}

impl<S: Server> Store for Postgres<S> {
    type Error = Error;

    async fn open() -> Option<Self> {
        static TABLES: AtomicU32 = AtomicU32::new(0);
        let server = S::find()?;
        // Relaxed: only uniqueness is asked for.
        let name = format!("conformance_{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let url = format!("{}?application_name={name}", server.postgres().url());
        let db = Options::from_url(&url)
            .unwrap()
            .connections(1)
            .open(&ROOT)
            .await
            .unwrap();
        let table = format!("CREATE TABLE {name} (key bigint)");
        db.batch_execute(&ROOT, &table).await.unwrap();
        Some(Postgres {
            db,
            name,
            watcher: Mutex::new(None),
            server,
        })
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        let row = self.db.query_one(ctx, "SELECT 6 * $1", &[&7]).await?;
        assert_eq!(row.get::<_, i32>(0), 42, "somebody else's answer");
        Ok(())
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        self.db.query_one(ctx, LONG, &[]).await.map(drop)
    }

    async fn running(&self) -> usize {
        self.sessions("state = 'active'").await
    }

    fn end(error: &Error) -> Option<&Canceled> {
        error.canceled()
    }

    async fn whole(&self) -> Result<(), String> {
        let now = self.db.statistics();
        let busy = now.in_use + now.settling + now.connecting + now.waiting + now.cancels;
        if busy != 0 || now.idle != now.connections || now.connections > 1 {
            return Err(format!("{now:?}"));
        }
        match self.sessions("state <> 'idle'").await {
            0 => Ok(()),
            other => Err(format!("{other} sessions are not idle")),
        }
    }
}

impl<S: Server> Pooled for Postgres<S> {
    fn waiting(&self) -> usize {
        self.db.statistics().waiting
    }
}

impl<S: Server> Transactional for Postgres<S> {
    async fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let mut transaction = self.db.transaction(ctx).await?;
        transaction.execute(ctx, &self.insert(key), &[]).await?;
        before_commit();
        transaction.commit(ctx).await
    }

    async fn count(&self, key: u64) -> usize {
        let sql = format!("SELECT count(*) FROM {} WHERE key = $1", self.name);
        let row = self.db.query_one(&ROOT, &sql, &[&(key as i64)]).await.unwrap();
        row.get::<_, i64>(0) as usize
    }

    fn is_in_doubt(error: &Error) -> bool {
        error.is_in_doubt()
    }
}

impl<S: Server> LongTransactions for Postgres<S> {
    async fn write_slowly(&self, ctx: &Context, key: u64) -> Result<(), Error> {
        let mut transaction = self.db.transaction(ctx).await?;
        transaction.execute(ctx, &self.insert(key), &[]).await?;
        transaction.execute(ctx, LONG, &[]).await.map(drop)
    }
}

impl<S: Server> Streaming for Postgres<S> {
    async fn read(&self, ctx: &Context, mut on_row: impl FnMut(u64) + Send + 'static) -> Result<(), Error> {
        // In this form the server makes the rows one by one; there are more of them than any test reads.
        let sql = "SELECT generate_series(1, 9000000000::bigint)";
        let mut rows = self.db.query_stream(ctx, sql, &[]).await?;
        while let Some(row) = rows.next().await? {
            on_row(row.get::<_, i64>(0) as u64);
        }
        Ok(())
    }
}

impl Hosted for Postgres<Own> {
    fn freeze(&self) {
        self.server.0.freeze();
    }

    fn thaw(&self) {
        self.server.0.thaw();
    }

    fn kill(&self) {
        self.server.0.kill();
    }

    fn restart(&self) {
        self.server.0.restart();
    }
}
