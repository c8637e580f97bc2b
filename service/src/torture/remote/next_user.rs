//! How long the next user of a pool of one waits, when a query of 8 s was given up.
//!
//! It is given up after a few milliseconds, by the end of its context and by the drop of its future in turn. Counted:
//! given-up queries that ran to their end all the same, each of which would have left a row. Told: how long until the
//! server had let go, and until the next user had an answer.

use std::time::{Duration, Instant};

use bequest::Context;
use bequest_postgres::Database;
use serde_json::json;

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::count::{Spans, told};
use super::foreign::is_whole;
use super::plot::{self, Line};
use super::{Shown, Stage, write};

const SCENE: &str = "next user, after an 8 s query was given up";
const ROUNDS: u64 = 1_000;
const NAIVE_ROUNDS: u64 = 3;
const LONG: &str = "INSERT INTO ran SELECT 1 FROM pg_sleep(8)";

/// What was measured.
#[derive(Debug, Default)]
struct Waits {
    /// From the giving up to the instant at which the connection was clean.
    ended: Spans,
    dropped: Spans,
    /// From the giving up to the next user's answer.
    served: Spans,
    /// Given-up queries that ran to their end.
    ran: i64,
}

pub(super) async fn scene(stage: &Stage) -> Result<Shown, Failure> {
    let rounds = stage.count(ROUNDS).max(20);
    let naive_rounds = stage.count(NAIVE_ROUNDS);
    let progress = Progress::new(SCENE, (rounds + 600 * naive_rounds) as usize);
    let witness = stage.postgres()?.plain("witness").await?;
    witness.batch_execute("CREATE TABLE ran (n int)").await?;
    let ran = async || -> Result<i64, Failure> {
        let count = witness.query_one("SELECT count(*) FROM ran", &[]).await?.get(0);
        witness.batch_execute("TRUNCATE ran").await?;
        Ok(count)
    };
    let mut ours = ours(stage, rounds, |done| progress.at(done as usize)).await?;
    ours.ran = ran().await?;
    let mut naive = naive(stage, naive_rounds, |done| {
        progress.at((rounds + 600 * done) as usize)
    })
    .await?;
    naive.ran = ran().await?;
    if let Some(file) = &stage.svg {
        write(file, &picture(&ours, &naive))?;
    }
    Ok(Shown {
        verdict: Verdict {
            scene: SCENE,
            ours: format!(
                "p50 {}, p99 {}; {} ran on",
                told(ours.served.quantile(0.5)),
                told(ours.served.quantile(0.99)),
                ours.ran
            ),
            control: format!(
                "future dropped: p50 {}; {} of {} ran on",
                told(naive.served.quantile(0.5)),
                naive.ran,
                naive.served.len()
            ),
            holds: ours.ran == 0 && (!ours.served.is_empty() || stage.ctx.is_done()),
            control_failed: naive.ran > 0,
        },
        figures: json!({
            "here": {
                "clean_after_context_ended": ours.ended.figures(),
                "clean_after_future_dropped": ours.dropped.figures(),
                "next_user_served": ours.served.figures(),
                "ran_to_their_end": ours.ran,
            },
            "naive": { "next_user_served": naive.served.figures(), "ran_to_their_end": naive.ran },
        }),
    })
}

fn picture(ours: &Waits, naive: &Waits) -> String {
    let line = |label, color, spans: &Spans| Line {
        label,
        color,
        spans: spans.sorted(),
    };
    plot::svg(
        "From giving up an 8 s query to a connection that can be used again",
        &[
            line("bequest-postgres, the context ended", "#0a7d38", &ours.ended),
            line(
                "bequest-postgres, the future was dropped",
                "#1668c9",
                &ours.dropped,
            ),
            line("tokio-postgres, the future was dropped", "#c62828", &naive.served),
        ],
    )
}

async fn ours(stage: &Stage, rounds: u64, progress: impl Fn(u64)) -> Result<Waits, Failure> {
    let root = Context::background();
    let db = stage
        .postgres()?
        .options("next")
        .connections(1)
        .open(&stage.ctx)
        .await?;
    let (mut waits, mut chance) = (Waits::default(), stage.chance(SCENE, 0));
    for round in 0..rounds {
        if stage.ctx.is_done() {
            break;
        }
        let after = Duration::from_micros(chance.u64(2_000..12_000));
        let drops = round % 2 == 1;
        let given_up = give_up(&db, after, drops).await?;
        let clean = async {
            // Asked again and again: a timer would round up to its next tick.
            while !is_whole(&db) {
                tokio::task::yield_now().await;
            }
            given_up.elapsed()
        };
        let next = async {
            let answer = db.query(&root, "SELECT 1", &[]).await;
            answer.map(|_| given_up.elapsed())
        };
        // In turns: who looks when it is clean must not be behind the next user.
        if round % 4 < 2 {
            let clean = clean.await;
            if drops {
                waits.dropped.add(clean)
            } else {
                waits.ended.add(clean)
            }
        } else {
            waits.served.add(next.await?);
        }
        progress(round + 1);
    }
    db.close(&stage.ctx.cleanup(super::HANGS)).await?;
    Ok(waits)
}

/// Begins the long query and gives it up. When that was.
async fn give_up(db: &Database, after: Duration, drops: bool) -> Result<Instant, Failure> {
    let root = Context::background();
    if drops {
        let limit = root.with_timeout(after);
        return match limit.run(db.execute(&root, LONG, &[])).await {
            Ok(answer) => Err(format!("it was to take 8 s: {answer:?}").into()),
            Err(_) => Ok(Instant::now()),
        };
    }
    let request = root.with_cancel();
    let leaving = async {
        root.sleep(after).await?;
        let now = Instant::now();
        request.cancel();
        Ok::<_, bequest::Canceled>(now)
    };
    let (answer, left) = tokio::join!(db.execute(&request, LONG, &[]), leaving);
    match answer {
        Err(error) if error.is_canceled() => Ok(left?),
        answer => Err(format!("it was to take 8 s: {answer:?}").into()),
    }
}

/// The driver alone, whose future is dropped.
async fn naive(stage: &Stage, rounds: u64, progress: impl Fn(u64)) -> Result<Waits, Failure> {
    let client = stage.postgres()?.plain("next_naive").await?;
    let mut waits = Waits::default();
    for round in 0..rounds {
        let limit = stage.ctx.with_timeout(Duration::from_millis(10));
        if limit.run(client.execute(LONG, &[])).await.is_ok() {
            return Err("it was to take 8 s".into());
        }
        let began = Instant::now();
        if stage.ctx.run(client.query("SELECT 1", &[])).await.is_err() {
            break;
        }
        waits.served.add(began.elapsed());
        progress(round + 1);
    }
    Ok(waits)
}
