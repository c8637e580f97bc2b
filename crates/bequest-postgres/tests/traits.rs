//! What may be sent, shared and printed: a table that fails to compile when it is no longer true.

use std::fmt::Debug;

use bequest::Context;
use bequest_postgres::{
    CopyIn, CopyOut, Database, Error, Listener, Options, Rows, Savepoint, Statistics, Step, Transaction,
};

fn shared<T: Send + Sync + Debug>() {}
fn cloned<T: Send + Sync + Debug + Clone>() {}
fn sent<T: Send + Debug>() {}
fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_types() {
    cloned::<Database>();
    cloned::<Options>();
    cloned::<Statistics>();
    cloned::<Step>();
    shared::<Error>();
    sent::<Transaction>();
    sent::<Savepoint<'_>>();
    sent::<Rows<'_>>();
    sent::<CopyIn<'_>>();
    sent::<CopyOut<'_>>();
    sent::<Listener>();
    #[cfg(feature = "tls")]
    cloned::<bequest_postgres::Tls>();
}

#[test]
fn calls_can_be_spawned() {
    // Named, so that they are checked; not run.
    let _ = |db: Database, ctx: Context| {
        sendable(async move {
            db.query(&ctx, "SELECT $1", &[&7]).await?;
            let mut transaction = db.transaction(&ctx).await?;
            transaction.execute(&ctx, "SELECT 1", &[]).await?;
            transaction.commit(&ctx).await?;
            let mut rows = db.query_stream(&ctx, "SELECT 1", &[]).await?;
            rows.next().await?;
            db.copy_in(&ctx, "COPY t FROM STDIN").await?.finish().await?;
            db.listen(&ctx, &["jobs"]).await?.recv(&ctx).await
        })
    };
}
