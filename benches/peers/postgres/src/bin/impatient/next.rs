//! How long the next user of a pool of one waits, after an 8 s query was given up at 10 ms.

use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::Options;
use bequest_test::servers::Postgres;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use crate::services::deadpool;
use crate::{Result, say};

const ROUNDS: usize = 1_000;
/// Each takes as long as the query.
const PEER_ROUNDS: usize = 5;
const SLOW: &str = "SELECT pg_sleep(8)";
const QUICK: &str = "SELECT 1";
const SOON: Duration = Duration::from_millis(10);

pub(crate) async fn users(server: &Postgres) -> Result<()> {
    say("\n| pool of one | the next user's wait |\n|---|---|")?;
    say(&format!(
        "| bequest-postgres, the context ends | {} |",
        ours(server, false).await?
    ))?;
    say(&format!(
        "| bequest-postgres, the future is dropped | {} |",
        ours(server, true).await?
    ))?;

    let pool = deadpool(&server.url(), 1)?;
    let mut waits = Vec::new();
    for _ in 0..PEER_ROUNDS {
        {
            let client = pool.get().await?;
            given_up(timeout(SOON, client.query(SLOW, &[])).await)?;
        }
        let began = Instant::now();
        pool.get().await?.query(QUICK, &[]).await?;
        waits.push(began.elapsed());
    }
    say(&format!("| deadpool-postgres 0.14 | {} |", percentiles(waits)))?;

    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await?;
    let mut waits = Vec::new();
    for _ in 0..PEER_ROUNDS {
        given_up(timeout(SOON, sqlx::query(SLOW).fetch_all(&pool)).await)?;
        let began = Instant::now();
        sqlx::query(QUICK).fetch_all(&pool).await?;
        waits.push(began.elapsed());
    }
    say(&format!(
        "| sqlx 0.9, its own 30 s for a connection | {} |",
        percentiles(waits)
    ))
}

async fn ours(server: &Postgres, drops: bool) -> Result<String> {
    let root = Context::background();
    let db = Options::from_url(&server.url())?
        .connections(1)
        .open(&root)
        .await?;
    let mut waits = Vec::new();
    for _ in 0..ROUNDS {
        if drops {
            given_up(timeout(SOON, db.query(&root, SLOW, &[])).await)?;
        } else {
            let request = root.with_timeout(SOON);
            if !db
                .query(&request, SLOW, &[])
                .await
                .is_err_and(|error| error.is_canceled())
            {
                return Err("it was to be given up".into());
            }
        }
        let began = Instant::now();
        db.query(&root, QUICK, &[]).await?;
        waits.push(began.elapsed());
    }
    db.close(&root).await?;
    Ok(percentiles(waits))
}

fn given_up<T, E>(answer: std::result::Result<T, E>) -> Result<()> {
    match answer {
        Err(_) => Ok(()),
        Ok(_) => Err("it was to be given up".into()),
    }
}

fn percentiles(mut waits: Vec<Duration>) -> String {
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    format!(
        "p50 {:.2?}, p99 {:.2?}, max {:.2?} of {}",
        at(50),
        at(99),
        at(100),
        waits.len()
    )
}
