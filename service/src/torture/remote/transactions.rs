//! A cancel is a rollback, at whichever await it comes, and nothing is written outside of the transaction afterwards.
//!
//! Begin, insert and commit are ended at every await, in every way: dropped, cancelled, out of time. After each, somebody
//! else looks at the server: counted are sessions left `idle in transaction`, rows that were acknowledged and are not
//! there, rows that are there twice, and rows that were refused and are there. Then transactions whose context ends in
//! their midst, and a statement after it: counted are those that ran in autocommit.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bequest::Context;
use bequest_postgres::tokio_postgres::{Client, Error};
use bequest_postgres::{Database, Options};
use bequest_test::cancel_at;
use serde_json::{Value, json};

use super::super::progress::Progress;
use super::super::{Failure, Verdict};
use super::foreign::is_whole;
use super::{Shown, Stage, eventually};

const SCENE: &str = "transactions ended at every await";
/// How often all awaits are gone through.
const SWEEPS: u64 = 50;
const NAIVE_SWEEPS: u64 = 1;
/// Transactions with a statement after their end.
const LATE: u64 = 2_000;
const NAIVE_LATE: u64 = 200;

#[derive(Debug, Default)]
struct Counted {
    /// Transactions that were ended at some await.
    ended: u64,
    /// Those after which a session was idle in a transaction.
    left_open: u64,
    acknowledged: u64,
    /// Acknowledged, and not there.
    lost: u64,
    /// There more than once.
    twice: u64,
    /// Refused, and there all the same.
    refused_but_there: u64,
    /// Statements after the end of their transaction.
    late: u64,
    /// Those of them that ran, in autocommit.
    autocommitted: u64,
}

/// What the answer to one transaction said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Done,
    Refused,
    /// Dropped, or in doubt.
    Nothing,
}

/// Who looks at the server from outside.
struct Witness {
    client: Client,
    table: &'static str,
    said: RefCell<Vec<(i64, Said)>>,
}

pub(super) async fn scene(stage: &Stage) -> Result<Shown, Failure> {
    let (sweeps, late) = (stage.count(SWEEPS), stage.count(LATE));
    let progress = Progress::new(SCENE, (sweeps + 1) as usize);
    let ours = ours(stage, sweeps, late, |done| progress.at(done as usize)).await?;
    let naive = naive(stage, NAIVE_SWEEPS, stage.count(NAIVE_LATE).max(20)).await?;
    Ok(Shown {
        verdict: Verdict {
            scene: SCENE,
            ours: format!(
                "{} of {} left open, {} wrong, {} late",
                ours.left_open,
                ours.ended,
                ours.lost + ours.twice + ours.refused_but_there,
                ours.autocommitted
            ),
            control: format!(
                "BEGIN by hand: {} of {} left open, {} of {} late",
                naive.left_open, naive.ended, naive.autocommitted, naive.late
            ),
            holds: ours.is_clean() && (ours.acknowledged > 0 || stage.ctx.is_done()),
            control_failed: naive.left_open > 0 && naive.autocommitted > 0,
        },
        figures: json!({ "here": ours.figures(), "naive": naive.figures() }),
    })
}

async fn ours(stage: &Stage, sweeps: u64, late: u64, progress: impl Fn(u64)) -> Result<Counted, Failure> {
    let (server, root) = (stage.postgres()?, Context::background());
    let witness = Witness::new(stage, "ours").await?;
    let options: Options = server.options("transactions").connections(1);
    let db = options.open(&stage.ctx).await?;
    let (mut counted, numbers) = (Counted::default(), Cell::new(0i64));
    let left_open = Cell::new(0);
    for sweep in 0..sweeps {
        if stage.ctx.is_done() {
            break;
        }
        let report = cancel_at::every(
            async || next(&numbers),
            async |number, ctx| insert(&db, ctx, *number).await,
        )
        .check(async |number, outcome| {
            let said = match outcome.output() {
                Some(Ok(())) => Said::Done,
                Some(Err(error)) if !error.is_in_doubt() => Said::Refused,
                Some(Err(_)) | None => Said::Nothing,
            };
            let whole = eventually("the pool is whole", || is_whole(&db)).await;
            whole.unwrap_or_else(|error| panic!("{error}"));
            witness.note(*number, said);
            left_open.set(left_open.get() + witness.open("transactions", stage).await);
        })
        .try_drive()
        .await?;
        counted.ended += report.injected().len() as u64;
        progress(sweep + 1);
    }
    counted.left_open = left_open.get();
    witness.account(&mut counted).await?;

    let mut chance = stage.chance(SCENE, 0);
    while counted.late < late && !stage.ctx.is_done() {
        let request = root.with_cancel();
        let mut tx = db.transaction(&request).await?;
        tx.execute(&request, "INSERT INTO ours VALUES ($1)", &[&next(&numbers)])
            .await?;
        request.cancel();
        yield_for(chance.u8(..64)).await;
        // By somebody who does not know yet: under a context that lives.
        let number = next(&numbers);
        let ran = tx
            .execute(&root, "INSERT INTO ours VALUES ($1)", &[&number])
            .await;
        counted.late += 1;
        counted.autocommitted += u64::from(ran.is_ok() || witness.has(number).await?);
    }
    db.close(&stage.ctx.cleanup(super::HANGS)).await?;
    Ok(counted)
}

async fn insert(db: &Database, ctx: &Context, number: i64) -> Result<(), bequest_postgres::Error> {
    let mut tx = db.transaction(ctx).await?;
    tx.execute(ctx, "INSERT INTO ours VALUES ($1)", &[&number])
        .await?;
    tx.commit(ctx).await
}

/// The driver, a transaction begun by hand, and a future that is dropped when its context ends.
async fn naive(stage: &Stage, sweeps: u64, late: u64) -> Result<Counted, Failure> {
    let server = stage.postgres()?;
    let witness = Witness::new(stage, "naive").await?;
    let client = server.plain("transactions_naive").await?;
    let (mut counted, numbers, left_open) = (Counted::default(), Cell::new(0i64), Cell::new(0));
    for _ in 0..sweeps {
        if stage.ctx.is_done() {
            break;
        }
        let report = cancel_at::every(
            async || next(&numbers),
            async |number, ctx| ctx.run(insert_by_hand(&client, *number)).await,
        )
        .check(async |number, outcome| {
            let said = match outcome.output() {
                Some(Ok(Ok(()))) => Said::Done,
                _ => Said::Nothing,
            };
            witness.note(*number, said);
            left_open.set(left_open.get() + witness.open("transactions_naive", stage).await);
        })
        .try_drive()
        .await?;
        counted.ended += report.injected().len() as u64;
    }
    counted.left_open = left_open.get();
    client.batch_execute("ROLLBACK").await?;
    witness.account(&mut counted).await?;

    let mut chance = stage.chance(SCENE, 1);
    while counted.late < late && !stage.ctx.is_done() {
        client.batch_execute("BEGIN").await?;
        client
            .execute("INSERT INTO naive VALUES ($1)", &[&next(&numbers)])
            .await?;
        // Who watches the context rolls back; who works goes on for a moment.
        let number = next(&numbers);
        let (rolled_back, ran) = tokio::join!(client.batch_execute("ROLLBACK"), async {
            yield_for(chance.u8(..64)).await;
            client.execute("INSERT INTO naive VALUES ($1)", &[&number]).await
        });
        rolled_back?;
        ran?;
        counted.late += 1;
        counted.autocommitted += u64::from(witness.has(number).await?);
    }
    Ok(counted)
}

async fn insert_by_hand(client: &Client, number: i64) -> Result<(), Error> {
    client.batch_execute("BEGIN").await?;
    client
        .execute("INSERT INTO naive VALUES ($1)", &[&number])
        .await?;
    client.batch_execute("COMMIT").await
}

impl Witness {
    /// Of a new table.
    async fn new(stage: &Stage, table: &'static str) -> Result<Witness, Failure> {
        let client = stage.postgres()?.plain("witness").await?;
        client
            .batch_execute(&format!("CREATE TABLE {table} (n int8 NOT NULL)"))
            .await?;
        Ok(Witness {
            client,
            table,
            said: RefCell::default(),
        })
    }

    fn note(&self, number: i64, said: Said) {
        self.said.borrow_mut().push((number, said));
    }

    /// How many sessions called `name` are idle in a transaction, once none of them is at work.
    async fn open(&self, name: &str, stage: &Stage) -> u64 {
        let count = async |state: &str| -> Result<i64, Failure> {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state LIKE $2";
            let name = stage.postgres()?.name(name);
            Ok(self.client.query_one(sql, &[&name, &state]).await?.get(0))
        };
        let looked = async {
            while count("active").await? > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            count("idle in transaction%").await
        };
        // A check has no other way to tell; the run is a failure then, with these words.
        let open = looked.await.unwrap_or_else(|error| panic!("{error}"));
        u64::try_from(open).unwrap_or_default()
    }

    async fn has(&self, number: i64) -> Result<bool, Failure> {
        let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE n = $1)", self.table);
        Ok(self.client.query_one(&sql, &[&number]).await?.get(0))
    }

    /// Compares what was said with what is there.
    async fn account(&self, counted: &mut Counted) -> Result<(), Failure> {
        let sql = format!("SELECT n, count(*) FROM {} GROUP BY n", self.table);
        let mut there = std::collections::HashMap::<i64, i64>::new();
        for row in self.client.query(&sql, &[]).await? {
            there.insert(row.get(0), row.get(1));
        }
        for &(number, said) in self.said.borrow().iter() {
            let times = there.get(&number).copied().unwrap_or_default();
            counted.acknowledged += u64::from(said == Said::Done);
            counted.lost += u64::from(said == Said::Done && times == 0);
            counted.refused_but_there += u64::from(said == Said::Refused && times > 0);
            counted.twice += u64::from(times > 1);
        }
        Ok(())
    }
}

impl Counted {
    fn is_clean(&self) -> bool {
        self.left_open + self.lost + self.twice + self.refused_but_there + self.autocommitted == 0
    }

    fn figures(&self) -> Value {
        json!({
            "ended": self.ended,
            "left_idle_in_transaction": self.left_open,
            "acknowledged": self.acknowledged,
            "acknowledged_and_lost": self.lost,
            "there_twice": self.twice,
            "refused_but_there": self.refused_but_there,
            "statements_after_the_end": self.late,
            "run_in_autocommit": self.autocommitted,
        })
    }
}

fn next(numbers: &Cell<i64>) -> i64 {
    numbers.set(numbers.get() + 1);
    numbers.get()
}

async fn yield_for(times: u8) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
