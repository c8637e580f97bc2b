//! Figures of bequest-postgres, each beside its peer or its negative control, in one run.
//!
//! `cargo run --release -- [victims|next|bare|pooler]…`; without a word, all of them. `pooler` needs PgBouncer.

mod bare;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::Options;
use bequest_test::servers::{PgBouncer, Pooling, Postgres};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

static ROOT: Context = Context::background();

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|given| given == word);
    let server = Postgres::start()?;
    if wanted("next") {
        threads()?.block_on(next_user(&server))?;
    }
    if wanted("victims") {
        threads()?.block_on(victims(&server, 40_000, 4_000))?;
    }
    if wanted("pooler") {
        for pooling in [Pooling::Session, Pooling::Transaction] {
            let pooler = PgBouncer::start(&server, pooling)?;
            let said = match threads()?.block_on(drivers_victims_behind(&pooler, 4_000)) {
                Ok(killed) => format!("{killed} of 4000"),
                Err(error) => error.to_string(),
            };
            say(&format!(
                "victims behind PgBouncer ({pooling:?} pooling), driver's own cancel_query: {said}"
            ))?;
            drop(pooler);
            let pooler = PgBouncer::start(&server, pooling)?;
            for discard in [false, true] {
                let killed = threads()?.block_on(victims_behind(&pooler, discard, 10_000))?;
                say(&format!(
                    "victims behind PgBouncer ({pooling:?} pooling, discard {discard}): {killed}"
                ))?;
            }
        }
    }
    if wanted("bare") {
        // On one thread, so that no figure hangs on which thread was awake.
        Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bare::bare(&server))?;
    }
    Ok(())
}

fn threads() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// How long the next user of a pool of one waits after an 8 s query was given up.
async fn next_user(server: &Postgres) -> Result<()> {
    let db = Options::from_url(&server.url())?
        .connections(1)
        .open(&ROOT)
        .await?;
    let (mut waits, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let request = ROOT.with_timeout(Duration::from_millis(10));
        let error = db.query(&request, "SELECT pg_sleep(8)", &[]).await.unwrap_err();
        assert!(error.is_canceled());
        let began = Instant::now();
        db.query(&ROOT, "SELECT 1", &[]).await?;
        waits.push(began.elapsed());
        settled.extend(db.statistics().last_settled);
    }
    assert_eq!(db.statistics().opened, 1);
    say(&format!("next user, bequest:  {}", percentiles(&mut waits)))?;
    say(&format!("cancel to clean:     {}", percentiles(&mut settled)))?;

    let pool = deadpool(server, 1)?;
    let mut waits = Vec::new();
    for _ in 0..5 {
        {
            let client = pool.get().await?;
            let query = client.batch_execute("SELECT pg_sleep(8)");
            assert!(
                tokio::time::timeout(Duration::from_millis(10), query)
                    .await
                    .is_err()
            );
        }
        let began = Instant::now();
        pool.get().await?.query("SELECT 1", &[]).await?;
        waits.push(began.elapsed());
    }
    say(&format!("next user, deadpool: {}", percentiles(&mut waits)))
}

/// How many next users are killed by a cancel that races the end of a query.
async fn victims(server: &Postgres, rounds: u32, control: u32) -> Result<()> {
    let db = Options::from_url(&server.url())?
        .connections(1)
        .open(&ROOT)
        .await?;
    let (mut killed, mut canceled, mut delay) = (0, 0, Duration::from_micros(500));
    for _ in 0..rounds {
        let request = ROOT.with_cancel();
        let first = db.query(&request, "SELECT 1, pg_sleep(0.0003)", &[]);
        let leaving = async {
            spin(delay).await;
            request.cancel();
        };
        let (first, ()) = tokio::join!(first, leaving);
        delay = steer(delay, first.is_err());
        canceled += u32::from(first.is_err());
        let next = db.query(&ROOT, "SELECT 2, pg_sleep(0.0005)", &[]).await;
        killed += u32::from(next.is_err());
    }
    say(&format!(
        "victims, bequest:    {killed} of {rounds} ({canceled} first queries were cancelled in time)"
    ))?;

    let client = plain(server).await?;
    let first = client.prepare("SELECT 1, pg_sleep(0.0003)").await?;
    let second = client.prepare("SELECT 2, pg_sleep(0.0005)").await?;
    let (mut killed, mut delay) = (0, Duration::from_micros(500));
    for _ in 0..control {
        let token = client.cancel_token();
        let leaving = async {
            spin(delay).await;
            token.cancel_query(NoTls).await
        };
        let (answer, sent) = tokio::join!(client.query(&first, &[]), leaving);
        sent?;
        delay = steer(delay, answer.is_err());
        killed += u32::from(client.query(&second, &[]).await.is_err());
    }
    say(&format!(
        "victims, driver's own cancel_query: {killed} of {control}"
    ))
}

/// As `victims`, through a pooler, which has one connection to the server.
async fn victims_behind(pooler: &PgBouncer, discard: bool, rounds: u32) -> Result<String> {
    let db = Options::from_url(&pooler.url())?
        .connections(1)
        .server_limits(false)
        .discard_after_cancel(discard)
        .open(&ROOT)
        .await?;
    let (mut killed, mut canceled, mut delay) = (0, 0, Duration::from_micros(800));
    for _ in 0..rounds {
        let request = ROOT.with_cancel();
        // Without prepared statements, which this pooler does not know of.
        let first = db.batch_execute(&request, "SELECT 1, pg_sleep(0.0003)");
        let leaving = async {
            spin(delay).await;
            request.cancel();
        };
        let (first, ()) = tokio::join!(first, leaving);
        delay = steer(delay, first.is_err());
        canceled += u32::from(first.is_err());
        let next = db.batch_execute(&ROOT, "SELECT 2, pg_sleep(0.0005)").await;
        killed += u32::from(next.is_err());
    }
    let opened = db.statistics().opened;
    Ok(format!(
        "{killed} of {rounds} ({canceled} cancelled in time, {opened} connections opened)"
    ))
}

/// The same by the driver's own cancel, which does not wait for its end.
async fn drivers_victims_behind(pooler: &PgBouncer, rounds: u32) -> Result<u32> {
    let (client, connection) = tokio_postgres::connect(&pooler.url(), NoTls).await?;
    tokio::spawn(connection);
    let (mut killed, mut delay) = (0, Duration::from_micros(800));
    for _ in 0..rounds {
        let token = client.cancel_token();
        let leaving = async {
            spin(delay).await;
            token.cancel_query(NoTls).await
        };
        let (answer, sent) = tokio::join!(client.batch_execute("SELECT 1, pg_sleep(0.0003)"), leaving);
        sent?;
        delay = steer(delay, answer.is_err());
        killed += u32::from(client.batch_execute("SELECT 2, pg_sleep(0.0005)").await.is_err());
    }
    Ok(killed)
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!(
        "p50 {:.2?}, p99 {:.2?}, max {:.2?} of {}",
        at(50),
        at(99),
        at(100),
        times.len()
    )
}

async fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// Towards the instant at which the cancel meets the end of the query.
fn steer(delay: Duration, cancel_won: bool) -> Duration {
    if cancel_won {
        delay * 9 / 8 + Duration::from_micros(2)
    } else {
        delay * 7 / 8
    }
}

async fn plain(server: &Postgres) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn deadpool(server: &Postgres, size: usize) -> Result<Pool> {
    let method = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(server.url().parse()?, NoTls, method);
    Ok(Pool::builder(manager).max_size(size).build()?)
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
