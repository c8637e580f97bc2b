//! Workers whose waits for a job end at random instants, and an account of what became of the jobs. The long run of
//! `examples/figures.rs` uses this too.
#![allow(dead_code)] // each user uses a part

use std::collections::HashMap;
use std::time::Duration;

use bequest::Context;
use bequest_redis::{Client, redis};
use redis::aio::MultiplexedConnection;

use super::{ROOT, Random, blpop, list, push, within};

const WORKERS: u64 = 8;

/// How many jobs were delivered once or are in the list, are nowhere, were delivered more than once.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) once: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
}

/// Pushes `jobs` jobs while eight workers pop as often; `pop` waits for one and gives up at a random instant.
pub(crate) async fn deliver<P, F>(client: &Client, jobs: u64, pop: P) -> Delivery
where
    P: Fn(Random) -> F + Clone + Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let pop = pop.clone();
        workers.spawn(async move {
            let mut random = Random::new(worker + 1);
            let mut delivered = Vec::new();
            for _ in 0..jobs / WORKERS {
                delivered.extend(pop(Random::new(random.below(u64::MAX))).await);
            }
            delivered
        });
    }
    // In bursts about as fast as they are popped: some pops wait, and some find a job.
    let mut bursts = Random::new(WORKERS + 1);
    let mut job = 0;
    while job < jobs {
        for _ in 0..bursts.below(12).min(jobs - job) {
            push(client, "jobs", job).await;
            job += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut seen = HashMap::<String, u64>::new();
    while let Some(delivered) = workers.join_next().await {
        for job in delivered.expect("a worker failed") {
            *seen.entry(job).or_default() += 1;
        }
    }
    within(client.settle(&ROOT)).await.unwrap();
    for left in list(client, "jobs").await {
        *seen.entry(left).or_default() += 1;
    }
    within(client.del(&ROOT, "jobs")).await.unwrap();
    let mut delivery = Delivery::default();
    for job in 0..jobs {
        match seen.get(&job.to_string()) {
            Some(1) => delivery.once += 1,
            Some(_) => delivery.twice += 1,
            None => delivery.lost += 1,
        }
    }
    delivery
}

fn pause(random: &mut Random) -> Duration {
    Duration::from_micros(random.below(800))
}

/// One pop of ours: given up by the end of its context, or by the drop of its future.
pub(crate) async fn popped(client: Client, mut random: Random) -> Option<String> {
    let (pause, pop) = (pause(&mut random), blpop("jobs", 0.0));
    if random.below(2) == 0 {
        let answer = client.cmd::<(String, String)>(&ROOT, &pop);
        let answer = tokio::time::timeout(pause, answer).await.ok()?;
        return Some(answer.unwrap().1);
    }
    let request = Context::background().with_cancel();
    let (answer, ()) = tokio::join!(client.cmd::<(String, String)>(&request, &pop), async {
        tokio::time::sleep(pause).await;
        request.cancel();
    });
    match answer {
        Ok((_, job)) => Some(job),
        Err(error) => {
            assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
            None
        }
    }
}

/// The driver alone, with a connection for each of a few pops.
#[derive(Clone)]
pub(crate) struct Driver(Vec<MultiplexedConnection>);

impl Driver {
    /// Connects as often as there are workers.
    pub(crate) async fn connect(url: &str) -> Driver {
        let driver = redis::Client::open(url).unwrap();
        let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connections = Vec::new();
        for _ in 0..WORKERS {
            let connection = driver.get_multiplexed_async_connection_with_config(&settings);
            connections.push(connection.await.unwrap());
        }
        Driver(connections)
    }

    /// One pop, given up by the drop of its future.
    pub(crate) async fn popped(self, mut random: Random) -> Option<String> {
        let mut connection = self.0[random.below(WORKERS) as usize].clone();
        let pop = blpop("jobs", 0.0);
        let answer = pop.query_async::<(String, String)>(&mut connection);
        let answer = tokio::time::timeout(pause(&mut random), answer).await.ok()?;
        Some(answer.unwrap().1)
    }
}
