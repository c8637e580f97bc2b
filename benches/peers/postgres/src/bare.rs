//! What a query costs that nobody cancels, beside the driver alone and beside another pool on it.
//!
//! One caller on one thread. The ways take turns in slices of some ten milliseconds, and each round begins with another one,
//! so that what disturbs the machine disturbs them alike. A ratio is that of two slices of the same round.
//!
//! Each way has a process of the server to itself, and on which processor the system puts that decides more than anything that is
//! compared here: a wake-up across two of a virtual machine costs twice a whole query. So it is to be run on one of them,
//! `taskset -c 0 cargo run --release -- bare`.

use std::time::{Duration, Instant};

use bequest::CancelScope;
use bequest_postgres::{Database, Options};
use bequest_test::servers::Postgres;
use deadpool_postgres::Pool;
use tokio_postgres::{Client, Statement};

use crate::{ROOT, Result, deadpool, plain, say};

const SQL: &str = "SELECT $1::int8";
const ROUNDS: usize = 120;
const QUERIES: u32 = 500;

/// The way in which a query is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Driver,
    Deadpool,
    Ours,
    /// A new deadline for each query.
    OursWithDeadline,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Driver, "tokio-postgres, a statement in hand"),
    (Way::Deadpool, "deadpool-postgres, prepare_cached"),
    (Way::Ours, "bequest-postgres"),
    (
        Way::OursWithDeadline,
        "bequest-postgres, a new deadline at each query",
    ),
];

/// What a slice cost: queries per second, and this thread's own time for each, which says more on a busy machine.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    cpu_micros: f64,
}

/// Those who are asked.
struct Bench {
    client: Client,
    statement: Statement,
    pool: Pool,
    db: Database,
    scope: CancelScope,
}

pub(crate) async fn bare(server: &Postgres) -> Result<()> {
    let client = plain(server).await?;
    let bench = Bench {
        statement: client.prepare(SQL).await?,
        client,
        pool: deadpool(server, 1)?,
        db: Options::from_url(&server.url())?
            .connections(1)
            .open(&ROOT)
            .await?,
        scope: ROOT.with_cancel(),
    };
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut costs = [None; WAYS.len()];
        for turn in 0..WAYS.len() {
            let place = (round + turn) % WAYS.len();
            costs[place] = Some(bench.slice(WAYS[place].0).await?);
        }
        // The first only warms up.
        if round > 0 {
            rounds.push(costs.map(|cost| cost.expect("each had its turn")));
        }
    }
    for (place, (_, name)) in WAYS.iter().enumerate() {
        let ratio = |beside: usize| {
            quartiles(
                rounds
                    .iter()
                    .map(|costs| costs[place].per_second / costs[beside].per_second),
            )
        };
        let [_, per_second, _] = quartiles(rounds.iter().map(|costs| costs[place].per_second));
        let [_, cpu, _] = quartiles(rounds.iter().map(|costs| costs[place].cpu_micros));
        let ([low, of_driver, high], [_, of_deadpool, _]) = (ratio(0), ratio(1));
        say(&format!(
            "bare query, {name}: {per_second:.0}/s, {of_driver:.3} of the driver's ({low:.3} to {high:.3}), \
             {of_deadpool:.3} of deadpool's; {cpu:.2} µs of our thread"
        ))?;
    }
    Ok(())
}

impl Bench {
    async fn slice(&self, way: Way) -> Result<Cost> {
        let (began, cpu) = (Instant::now(), cpu_time()?);
        for number in 0..QUERIES {
            self.query(way, number.into()).await?;
        }
        Ok(Cost {
            per_second: f64::from(QUERIES) / began.elapsed().as_secs_f64(),
            cpu_micros: (cpu_time()? - cpu) / f64::from(QUERIES),
        })
    }

    async fn query(&self, way: Way, number: i64) -> Result<()> {
        match way {
            Way::Driver => drop(self.client.query(&self.statement, &[&number]).await?),
            Way::Deadpool => {
                let client = self.pool.get().await?;
                let statement = client.prepare_cached(SQL).await?;
                drop(client.query(&statement, &[&number]).await?);
            }
            Way::Ours => drop(self.db.query(&self.scope, SQL, &[&number]).await?),
            Way::OursWithDeadline => {
                let request = self.scope.with_timeout(Duration::from_secs(5));
                drop(self.db.query(&request, SQL, &[&number]).await?);
            }
        }
        Ok(())
    }
}

/// Microseconds that this thread has run (Linux).
fn cpu_time() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().unwrap_or_default();
    Ok(nanos.parse::<f64>()? / 1000.0)
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
