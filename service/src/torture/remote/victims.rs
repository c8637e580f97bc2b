//! A cancel that comes late must not hit the next user of the connection.
//!
//! One user gives up at about the instant at which the query ends; the next user's query is right behind it on the same
//! connection. Counted: next users whose query was killed. Beside it the driver's own cancel, which does not wait until
//! it has been heard.

use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::tokio_postgres::NoTls;
use serde_json::{Value, json};

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::{Shown, Stage};

const SCENE: &str = "victims of a cancel that comes late";
const ROUNDS: u64 = 40_000;
/// Of the control: as many as it takes to see.
const NAIVE_ROUNDS: u64 = 4_000;
const FIRST: &str = "SELECT 1, pg_sleep(0.0003)";
const NEXT: &str = "SELECT 2, pg_sleep(0.0005)";

#[derive(Debug, Default)]
struct Counted {
    rounds: u64,
    /// First queries that the cancel met.
    canceled: u64,
    /// Next users' queries that were killed.
    killed: u64,
}

pub(super) async fn scene(stage: &Stage) -> Result<Shown, Failure> {
    let (rounds, naive_rounds) = (stage.count(ROUNDS), stage.count(NAIVE_ROUNDS).max(500));
    let progress = Progress::new(SCENE, (rounds + naive_rounds) as usize);
    let ours = ours(stage, rounds, |done| progress.at(done as usize)).await?;
    let naive = naive(stage, naive_rounds, |done| progress.at((rounds + done) as usize)).await?;
    let raced = ours.canceled > 0 && ours.canceled < ours.rounds;
    Ok(Shown {
        verdict: Verdict {
            scene: SCENE,
            ours: format!("{} of {}", ours.killed, ours.rounds),
            control: format!("the driver's cancel {} of {}", naive.killed, naive.rounds),
            holds: ours.killed == 0 && (raced || stage.ctx.is_done()),
            control_failed: naive.killed > 0,
        },
        figures: json!({ "here": ours.figures(), "naive": naive.figures() }),
    })
}

async fn ours(stage: &Stage, rounds: u64, progress: impl Fn(u64)) -> Result<Counted, Failure> {
    let root = Context::background();
    let db = stage
        .postgres()?
        .options("victims")
        .connections(1)
        .open(&stage.ctx)
        .await?;
    let (mut counted, mut aim) = (Counted::default(), Aim::default());
    while counted.rounds < rounds && !stage.ctx.is_done() {
        let request = root.with_cancel();
        let leaving = async {
            aim.wait().await;
            request.cancel();
        };
        let (first, ()) = tokio::join!(db.query(&request, FIRST, &[]), leaving);
        if let Err(error) = &first
            && !error.is_canceled()
        {
            return Err(error.to_string().into());
        }
        counted.one(first.is_err(), db.query(&root, NEXT, &[]).await.is_err());
        aim.correct(first.is_err());
        progress(counted.rounds);
    }
    db.close(&stage.ctx.cleanup(super::HANGS)).await?;
    Ok(counted)
}

async fn naive(stage: &Stage, rounds: u64, progress: impl Fn(u64)) -> Result<Counted, Failure> {
    let client = stage.postgres()?.plain("victims_naive").await?;
    let (first, next) = (client.prepare(FIRST).await?, client.prepare(NEXT).await?);
    let (mut counted, mut aim) = (Counted::default(), Aim::default());
    while counted.rounds < rounds && !stage.ctx.is_done() {
        let token = client.cancel_token();
        let leaving = async {
            aim.wait().await;
            token.cancel_query(NoTls).await
        };
        let (answer, sent) = tokio::join!(client.query(&first, &[]), leaving);
        sent?;
        counted.one(answer.is_err(), client.query(&next, &[]).await.is_err());
        aim.correct(answer.is_err());
        progress(counted.rounds);
    }
    Ok(counted)
}

impl Counted {
    fn one(&mut self, canceled: bool, killed: bool) {
        self.rounds += 1;
        self.canceled += u64::from(canceled);
        self.killed += u64::from(killed);
    }

    fn figures(&self) -> Value {
        json!({ "rounds": self.rounds, "canceled_in_time": self.canceled, "next_users_killed": self.killed })
    }
}

/// When to cancel, steered towards the instant at which the cancel meets the end of the query.
struct Aim(Duration);

impl Default for Aim {
    fn default() -> Aim {
        Aim(Duration::from_micros(500))
    }
}

impl Aim {
    async fn wait(&self) {
        let until = Instant::now() + self.0;
        while Instant::now() < until {
            tokio::task::yield_now().await;
        }
    }

    fn correct(&mut self, too_early: bool) {
        self.0 = if too_early {
            self.0 * 9 / 8 + Duration::from_micros(2)
        } else {
            self.0 * 7 / 8
        };
    }
}
