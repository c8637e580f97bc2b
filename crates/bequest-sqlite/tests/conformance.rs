//! The suite that every store passes, `bequest_test::conformance`.

mod common;

use bequest::{Canceled, Context};
use bequest_sqlite::{Database, Error};
use bequest_test::conformance::{LongTransactions, Pooled, Store, Streaming, Transactional};
use common::{ENDLESS, ROOT, database};

bequest_test::conformance! { Sqlite: base, pool, transactions, long_transactions, rows }

/// A database with one reader and, as always, one writer.
struct Sqlite(Database);

impl Store for Sqlite {
    type Error = Error;

    async fn open() -> Option<Sqlite> {
        Some(Sqlite(database().await))
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        let answer: i64 = self.0.query_one(ctx, "SELECT 42", (), |row| row.get(0)).await?;
        assert_eq!(answer, 42, "somebody else's answer");
        Ok(())
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        self.0
            .query_one(ctx, ENDLESS, (), |row| row.get::<_, i64>(0))
            .await
            .map(drop)
    }

    /// The threads themselves lower it, after the last statement has returned.
    async fn running(&self) -> usize {
        self.0.statistics().running()
    }

    fn end(error: &Error) -> Option<&Canceled> {
        error.canceled()
    }

    async fn whole(&self) -> Result<(), String> {
        let now = self.0.statistics();
        let is_idle = now.running() + now.queued() == 0;
        let has_all = now.readers.threads == 1 && now.writer.threads == 1;
        let kept_all = now.readers.discarded + now.writer.discarded == 0;
        if !(is_idle && has_all && kept_all) {
            return Err(format!("{now:?}"));
        }
        // A snapshot that somebody left open would hide the rows of all later writers.
        match self.0.read(&ROOT, |conn| Ok(conn.is_autocommit())).await {
            Ok(true) => Ok(()),
            other => Err(format!("the reader is in a transaction: {other:?}")),
        }
    }
}

impl Pooled for Sqlite {
    fn waiting(&self) -> usize {
        self.0.statistics().queued()
    }
}

impl Transactional for Sqlite {
    async fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let work = move |tx: &bequest_sqlite::rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO t VALUES (?1)", [key as i64])?;
            before_commit();
            Ok(())
        };
        self.0.write(ctx, work).await
    }

    async fn count(&self, key: u64) -> usize {
        let sql = "SELECT count(*) FROM t WHERE x = ?1";
        let count = self
            .0
            .query_one(&ROOT, sql, [key as i64], |row| row.get::<_, i64>(0));
        count.await.unwrap() as usize
    }

    /// SQLite always knows, but after an error of the file system.
    fn is_in_doubt(_error: &Error) -> bool {
        false
    }
}

impl LongTransactions for Sqlite {
    async fn write_slowly(&self, ctx: &Context, key: u64) -> Result<(), Error> {
        let work = move |tx: &bequest_sqlite::rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO t VALUES (?1)", [key as i64])?;
            tx.execute(&format!("INSERT INTO t {ENDLESS}"), ()).map(drop)
        };
        self.0.write(ctx, work).await
    }
}

impl Streaming for Sqlite {
    async fn read(&self, ctx: &Context, mut on_row: impl FnMut(u64) + Send + 'static) -> Result<(), Error> {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        let rows = self.0.query(ctx, sql, (), move |row| {
            on_row(row.get::<_, i64>(0)? as u64);
            Ok(())
        });
        rows.await.map(drop)
    }
}
