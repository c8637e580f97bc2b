//! A cancel is a rollback; nothing is written outside of the transaction; acknowledged means written.

use std::time::Duration;

use bequest::{Context, Reason};
use bequest_postgres::{Database, Error, Step};
use bequest_test::proxy::{Faults, Proxy};

use crate::common::{
    LONG, ROOT, Watcher, eventually, is_whole, options, plain, polled, server, single, within,
};

/// As often as a whole transaction is polled at most, when each answer comes alone.
const POLLS: usize = 25;

async fn insert(db: &Database, ctx: &Context, table: &str, number: i64) -> Result<(), Error> {
    let sql = format!("INSERT INTO {table} VALUES ($1)");
    let mut tx = db.transaction(ctx).await?;
    tx.execute(ctx, &sql, &[&number]).await?;
    tx.commit(ctx).await
}

/// At every await of begin, insert, commit: the future dropped there, and the context ended there.
#[tokio::test]
async fn d10_given_up_at_every_await_it_is_all_or_nothing() {
    let Some(server) = server() else { return };
    for drops in [true, false] {
        let table = if drops { "d10_dropped" } else { "d10_canceled" };
        let db = single(server, table).await;
        let watcher = Watcher::new(server, table).await;
        watcher
            .run(&format!("CREATE TABLE {table} (n int8 PRIMARY KEY)"))
            .await;
        let (mut number, mut acknowledged) = (0i64, Vec::new());
        for polls in 1..=POLLS {
            for _ in 0..4 {
                number += 1;
                let request = ROOT.with_cancel();
                let work = insert(&db, &request, table, number);
                let answer = if drops {
                    polled(work, polls).await
                } else {
                    Some(canceled_after(work, polls, || request.cancel()).await)
                };
                match answer {
                    Some(Ok(())) => acknowledged.push(number),
                    Some(Err(error)) => assert!(error.is_canceled(), "{error}"),
                    None => {}
                }
            }
        }
        eventually("the pool is whole", || is_whole(&db)).await;
        assert_eq!(watcher.count("idle in transaction%").await, 0);
        assert_eq!(watcher.count("active").await, 0);
        assert!(!acknowledged.is_empty() && acknowledged.len() < number as usize);
        for number in &acknowledged {
            let sql = format!("SELECT count(*) FROM {table} WHERE n = {number}");
            assert_eq!(watcher.number(&sql).await, 1, "{number} was acknowledged");
        }
        assert_eq!(db.statistics().opened, 1);
    }
}

/// Polls `work`, and from the poll after `polls` on with `cancel` called.
async fn canceled_after<F: Future>(work: F, polls: usize, cancel: impl FnOnce()) -> F::Output {
    let mut work = std::pin::pin!(work);
    match polled(work.as_mut(), polls).await {
        Some(output) => output,
        None => {
            cancel();
            within(work).await
        }
    }
}

/// The control: the driver's transaction, abandoned by the task that ran it, with the statement still running.
#[tokio::test]
async fn control_the_drivers_transaction_stays_open_while_its_statement_runs() {
    let Some(server) = server() else { return };
    let watcher = Watcher::new(server, "d10_control").await;
    let mut client = plain(server, "d10_control").await;
    let tx = within(client.transaction()).await.unwrap();
    assert!(polled(tx.batch_execute(LONG), 1).await.is_none());
    drop(tx); // queues a rollback, behind the statement
    watcher.until("active", 1).await;
    let next = client.batch_execute("SELECT 1");
    let waited = tokio::time::timeout(Duration::from_millis(200), next).await;
    assert!(
        waited.is_err(),
        "the next user waits for a statement that nobody wants"
    );
}

#[tokio::test]
async fn d10_a_context_that_ends_between_two_statements_rolls_back_at_once() {
    let Some(server) = server() else { return };
    let db = single(server, "d10_between").await;
    let watcher = Watcher::new(server, "d10_between").await;
    watcher.run("CREATE TABLE d10_between (n int8)").await;
    let request = ROOT.with_cancel();
    let mut tx = within(db.transaction(&request)).await.unwrap();
    let sql = "INSERT INTO d10_between VALUES ($1)";
    within(tx.execute(&request, sql, &[&1i64])).await.unwrap();
    watcher.until("idle in transaction", 1).await;
    request.cancel_for(Reason::ClientGone);
    watcher.until("idle in transaction", 0).await;
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();

    // With a context that lives, and a connection that is somebody else's by now.
    let error = within(tx.execute(&ROOT, sql, &[&2i64])).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    let error = within(tx.commit(&ROOT)).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!(error.step(), Step::Committing);
    assert_eq!(
        watcher.number("SELECT count(*) FROM d10_between").await,
        0,
        "in autocommit"
    );
}

#[tokio::test]
async fn d10_no_statement_runs_after_one_that_was_given_up() {
    let Some(server) = server() else { return };
    let db = single(server, "d10_after").await;
    let watcher = Watcher::new(server, "d10_after").await;
    watcher.run("CREATE TABLE d10_after (n int8)").await;
    let sql = "INSERT INTO d10_after VALUES ($1)";

    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    let short = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(tx.query(&short, LONG, &[])).await.unwrap_err();
    assert!(error.canceled().unwrap().is_from(&short));
    let error = within(tx.execute(&ROOT, sql, &[&1i64])).await.unwrap_err();
    assert!(error.canceled().unwrap().is_from(&short));
    assert!(within(tx.commit(&ROOT)).await.unwrap_err().is_canceled());

    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    assert!(polled(tx.query(&ROOT, LONG, &[]), 1).await.is_none());
    let error = within(tx.execute(&ROOT, sql, &[&2i64])).await.unwrap_err();
    assert!(error.is_transaction_lost() && !error.is_canceled(), "{error}");
    drop(tx);
    assert_eq!(watcher.number("SELECT count(*) FROM d10_after").await, 0);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(db.statistics().opened, 1);
}

#[tokio::test]
async fn d11_after_a_rollback_the_connection_is_kept() {
    let Some(server) = server() else { return };
    let db = single(server, "d11").await;
    for _ in 0..5 {
        drop(within(db.transaction(&ROOT)).await.unwrap());
        let tx = within(db.transaction(&ROOT)).await.unwrap();
        within(tx.rollback(&ROOT)).await.unwrap();
        within(db.batch_execute(&ROOT, "BEGIN")).await.unwrap(); // left open by a script
        let row = within(db.query_one(&ROOT, "SELECT pg_current_xact_id_if_assigned()::text", &[])).await;
        assert_eq!(row.unwrap().get::<_, Option<String>>(0), None);
    }
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded), (1, 0), "{now:?}");
}

#[tokio::test]
async fn d12_each_end_has_its_own_error() {
    let Some(server) = server() else { return };
    let db = single(server, "d12").await;
    let watcher = Watcher::new(server, "d12").await;
    watcher
        .run("CREATE TABLE d12 (n int8 UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        .await;

    // A statement that failed: the server itself would answer this commit well.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.query(&ROOT, "SELECT 1 / 0", &[])).await.unwrap_err();
    let error = within(tx.commit(&ROOT)).await.unwrap_err();
    assert!(error.is_transaction_lost() && !error.is_in_doubt());

    // A statement that ended the transaction by itself: the next one is not run in autocommit.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.batch_execute(&ROOT, "COMMIT")).await.unwrap();
    let error = within(tx.execute(&ROOT, "INSERT INTO d12 VALUES (1)", &[]))
        .await
        .unwrap_err();
    assert!(error.is_transaction_lost(), "{error}");

    // As above, and failing at it.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.batch_execute(&ROOT, "INSERT INTO d12 VALUES (1), (1)"))
        .await
        .unwrap();
    assert!(
        within(tx.batch_execute(&ROOT, "COMMIT"))
            .await
            .unwrap_err()
            .is_constraint()
    );
    let error = within(tx.execute(&ROOT, "INSERT INTO d12 VALUES (1)", &[]))
        .await
        .unwrap_err();
    assert!(error.is_transaction_lost(), "{error}");

    // A constraint found at the commit.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.batch_execute(&ROOT, "INSERT INTO d12 VALUES (1), (1)"))
        .await
        .unwrap();
    let error = within(tx.commit(&ROOT)).await.unwrap_err();
    assert!(error.is_constraint() && !error.is_in_doubt());
    assert_eq!(error.step(), Step::Committing);
    assert_eq!(watcher.number("SELECT count(*) FROM d12").await, 0);
}

#[tokio::test]
async fn d13_a_commit_before_which_the_context_ends_is_a_rollback() {
    let Some(server) = server() else { return };
    let db = single(server, "d13").await;
    let watcher = Watcher::new(server, "d13").await;
    watcher.run("CREATE TABLE d13 (n int8)").await;
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, "INSERT INTO d13 VALUES (1)", &[]))
        .await
        .unwrap();
    let request = ROOT.with_cancel();
    request.cancel();
    let error = within(tx.commit(&request)).await.unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt());
    assert_eq!(error.step(), Step::Committing);
    eventually("the pool is whole", || is_whole(&db)).await;
    assert_eq!(watcher.number("SELECT count(*) FROM d13").await, 0);
}

#[tokio::test]
async fn d13_a_commit_that_is_not_answered_is_in_doubt() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let url = server.url_through(proxy.address());
    let open = bequest_postgres::Options::from_url(&url)
        .unwrap()
        .connections(1)
        .open(&ROOT);
    let db = within(open).await.unwrap();
    let watcher = Watcher::new(server, "doubt").await;
    watcher.run("CREATE TABLE doubt (n int8)").await;

    // The answer is lost, the commit was done.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, "INSERT INTO doubt VALUES (1)", &[]))
        .await
        .unwrap();
    proxy.to_client(Faults::none().black_hole());
    let request = ROOT.with_timeout(Duration::from_millis(50));
    let error = within(tx.commit(&request)).await.unwrap_err();
    assert!(error.is_in_doubt() && error.is_canceled(), "{error}");
    let done = async {
        while watcher.number("SELECT count(*) FROM doubt").await != 1 {
            tokio::task::yield_now().await;
        }
    };
    within(done).await;
    proxy.to_client(Faults::none());

    // The connection is lost.
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, "INSERT INTO doubt VALUES (2)", &[]))
        .await
        .unwrap();
    proxy.to_server(Faults::none().black_hole());
    let mut committing = Box::pin(tx.commit(&ROOT));
    assert!(polled(&mut committing, 1).await.is_none());
    proxy.reset();
    let answer = within(committing).await;
    let error = answer.unwrap_err();
    assert!(error.is_in_doubt() && error.is_unreachable(), "{error}");
    assert_eq!(watcher.number("SELECT count(*) FROM doubt").await, 1);
}

#[tokio::test]
async fn savepoints_nest_and_go_back_when_dropped() {
    let Some(server) = server() else { return };
    let db = single(server, "points").await;
    let watcher = Watcher::new(server, "points").await;
    watcher.run("CREATE TABLE points (n int8)").await;
    let sql = "INSERT INTO points VALUES ($1)";
    let mut tx = within(db.transaction(&ROOT)).await.unwrap();
    within(tx.execute(&ROOT, sql, &[&1i64])).await.unwrap();
    {
        let mut outer = within(tx.savepoint(&ROOT)).await.unwrap();
        within(outer.execute(&ROOT, sql, &[&2i64])).await.unwrap();
        let mut inner = within(outer.savepoint(&ROOT)).await.unwrap();
        within(inner.query(&ROOT, "SELECT 1 / 0", &[])).await.unwrap_err();
        drop(inner); // and with it the failure
        within(outer.execute(&ROOT, sql, &[&3i64])).await.unwrap();
        within(outer.release(&ROOT)).await.unwrap();
        let mut last = within(tx.savepoint(&ROOT)).await.unwrap();
        within(last.execute(&ROOT, sql, &[&4i64])).await.unwrap();
        drop(last);
    }
    within(tx.commit(&ROOT)).await.unwrap();
    assert_eq!(watcher.number("SELECT sum(n)::int8 FROM points").await, 6);
}

#[tokio::test]
async fn d15_a_statement_is_prepared_on_each_connection_and_anew_when_it_is_stale() {
    let Some(server) = server() else { return };
    let db = within(options(server, "d15").connections(2).statements(1).open(&ROOT))
        .await
        .unwrap();
    let watcher = Watcher::new(server, "d15").await;
    watcher
        .run("CREATE TABLE d15 (a int); INSERT INTO d15 VALUES (1)")
        .await;
    let sql = "SELECT * FROM d15";
    let both = async { tokio::join!(db.query(&ROOT, sql, &[]), db.query(&ROOT, sql, &[])) };
    let (first, second) = within(both).await;
    assert_eq!((first.unwrap()[0].len(), second.unwrap()[0].len()), (1, 1));
    watcher.run("ALTER TABLE d15 ADD COLUMN b int").await;
    let both = async { tokio::join!(db.query(&ROOT, sql, &[]), db.query(&ROOT, sql, &[])) };
    let (first, second) = within(both).await;
    assert_eq!((first.unwrap()[0].len(), second.unwrap()[0].len()), (2, 2));
    // Only one is kept on each.
    within(db.query(&ROOT, "SELECT 2", &[])).await.unwrap();
    let kept = within(db.query_one(&ROOT, "SELECT count(*) FROM pg_prepared_statements", &[])).await;
    assert!(kept.unwrap().get::<_, i64>(0) <= 2);
}
