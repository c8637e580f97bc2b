//! What becomes of the next one, when those before have left: clients of a web service, and users of a pool.
//!
//! `cargo run --release --bin impatient -- [clients|next]…`; without a word, both. It prints tables in Markdown.

mod client;
mod next;
mod services;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use bequest_test::servers::Postgres;
use tokio_postgres::{Client, NoTls};

use self::client::Answer;
use self::services::{POOL, Service};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long each of the clients waits before it leaves.
const PATIENCE: Duration = Duration::from_millis(500);
/// After so long without one of them the server is looked at.
const MOMENT: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|given| given == word);
    let server = Postgres::start()?;
    if wanted("clients") {
        clients(&server).await?;
    }
    if wanted("next") {
        next::users(&server).await?;
    }
    Ok(())
}

/// Four clients on a pool of four ask for an 8 s query and leave after half a second. Then comes the next client.
async fn clients(server: &Postgres) -> Result<()> {
    let watcher = plain(server).await?;
    say("| service | still running 100 ms after the clients left | the next client |\n|---|---|---|")?;
    for open in [Service::bequest, Service::sqlx, Service::deadpool] {
        let (mut running, mut answers) = (Vec::new(), Vec::new());
        let mut name = "";
        for _ in 0..ROUNDS {
            let service = open(server.url()).await?;
            name = service.name;
            let leaving: Vec<_> = (0..POOL)
                .map(|_| tokio::spawn(client::leave(service.address, "/slow", PATIENCE)))
                .collect();
            for client in leaving {
                client.await??;
            }
            tokio::time::sleep(MOMENT).await;
            running.push(active(&watcher).await?);
            let began = Instant::now();
            let answer = client::ask(service.address, "/quick").await?;
            answers.push((answer, began.elapsed()));
            drop(service);
            end_all(&watcher).await?;
        }
        say(&format!(
            "| {name} | {} | {} |",
            list(&running),
            outcomes(&answers)
        ))?;
    }
    Ok(())
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers
        .iter()
        .map(|number| format!("{number} of {POOL}"))
        .collect();
    numbers.join(", ")
}

fn outcomes(answers: &[(Answer, Duration)]) -> String {
    let told: Vec<String> = answers
        .iter()
        .map(|(answer, took)| {
            format!(
                "{} `{}` after {:.3} s",
                answer.status,
                answer.body.trim(),
                took.as_secs_f64()
            )
        })
        .collect();
    told.join("; ")
}

/// How many statements of others run.
async fn active(watcher: &Client) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(8)%' \
               AND pid <> pg_backend_pid()";
    Ok(watcher.query_one(sql, &[]).await?.get(0))
}

/// Ends all other sessions, so that the next round begins with none.
async fn end_all(watcher: &Client) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
               AND pid <> pg_backend_pid()";
    watcher.query(sql, &[]).await?;
    Ok(())
}

async fn plain(server: &Postgres) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
