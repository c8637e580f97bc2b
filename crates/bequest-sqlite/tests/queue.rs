//! Waiting for a thread: first in, first out, within the context's budget, and out of the queue without a trace.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_sqlite::rusqlite;
use bequest_sqlite::{Database, Lane, Options, Step};
use common::{ROOT, database, eventually, poll_once, told, within};
use tokio::task::JoinHandle;

/// Occupies the only reader until told to let go.
async fn occupy(db: &Database) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (started, begun) = mpsc::channel();
    let db = db.clone();
    let occupying = tokio::spawn(async move {
        let work = db.read(&ROOT, move |_| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        });
        work.await.unwrap();
    });
    told(&begun).await;
    (release, occupying)
}

/// Every accepted call is in exactly one number.
fn assert_adds_up(lane: Lane) {
    let ended = lane.completed + lane.failed + lane.interrupted + lane.panicked + lane.abandoned;
    assert_eq!(
        lane.accepted,
        ended + lane.queued as u64 + lane.running as u64,
        "{lane:?}"
    );
}

/// D1: the context is checked before anything is taken.
#[tokio::test]
async fn d1_an_ended_context_takes_nothing() {
    let db = database().await;
    let before = db.statistics();
    let request = ROOT.with_cancel();
    request.cancel_for(Reason::ClientGone);
    let read = db.read(&request, |_| -> rusqlite::Result<()> { panic!("it ran") });
    let error = within(read).await.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    let write = db.write(&request, |_| -> rusqlite::Result<()> { panic!("it ran") });
    assert_eq!(within(write).await.unwrap_err().step(), Step::Waiting);
    assert_eq!(db.statistics(), before);
}

/// D2: a waiter whose context ends is answered at once, is never run, and the lane is as wide as before.
#[tokio::test]
async fn d2_a_cancelled_waiter_leaves() {
    let db = database().await;
    let (release, occupying) = occupy(&db).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let request = ROOT.with_cancel();
    let count = |ran: &Arc<AtomicUsize>| {
        let ran = Arc::clone(ran);
        move |_: &rusqlite::Connection| Ok(ran.fetch_add(1, Ordering::SeqCst))
    };
    let mut stays = Box::pin(db.read(&ROOT, count(&ran)));
    let mut leaves = Box::pin(db.read(&request, count(&ran)));
    poll_once(&mut stays).await;
    poll_once(&mut leaves).await;
    assert_eq!(db.statistics().readers.queued, 2);

    request.cancel_for(Reason::StreamReset);
    let error = within(leaves).await.unwrap_err(); // while the reader is still occupied
    assert_eq!(error.step(), Step::Waiting);
    assert_eq!(error.canceled().unwrap().reason(), Reason::StreamReset);
    let readers = db.statistics().readers;
    assert_eq!((readers.queued, readers.running, readers.abandoned), (1, 1, 1));

    release.send(()).unwrap();
    within(stays).await.unwrap();
    within(occupying).await.unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1, "the cancelled waiter never ran");
    assert_adds_up(db.statistics().readers);
}

/// D2: a waiter whose future is dropped is gone at once, with all that it held.
#[tokio::test]
async fn d2_a_dropped_waiter_leaves() {
    let db = database().await;
    let (release, occupying) = occupy(&db).await;
    let held = Arc::new(());
    let mut leaves = Box::pin(db.read(&ROOT, {
        let held = Arc::clone(&held);
        move |_| -> rusqlite::Result<()> { panic!("it ran, holding {held:?}") }
    }));
    poll_once(&mut leaves).await;
    assert_eq!(Arc::strong_count(&held), 2);
    drop(leaves);
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(db.statistics().readers.queued, 0);
    release.send(()).unwrap();
    within(occupying).await.unwrap();
    assert_adds_up(db.statistics().readers);
}

/// Waiting is part of the budget.
#[tokio::test]
async fn a_deadline_ends_the_wait_for_a_thread() {
    let db = database().await;
    let (release, occupying) = occupy(&db).await;
    let request = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.query(&request, "SELECT 1", (), |_| Ok(())))
        .await
        .unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert_eq!(error.step(), Step::Waiting);
    release.send(()).unwrap();
    within(occupying).await.unwrap();
}

/// D3: nothing but the context limits the wait for a thread, the limit for locks least of all.
#[tokio::test]
async fn d3_no_limit_but_the_context() {
    let options = Options::temporary()
        .unwrap()
        .readers(1)
        .busy_limit(Duration::ZERO);
    let db = options.open(&ROOT).await.unwrap();
    let (release, occupying) = occupy(&db).await;
    let mut waits = Box::pin(db.query_one(&ROOT, "SELECT 1", (), |row| row.get::<_, i64>(0)));
    poll_once(&mut waits).await;
    // Something that has a limit has long ended, and this still waits.
    let other = ROOT.with_timeout(Duration::from_millis(20));
    within(db.query(&other, "SELECT 1", (), |_| Ok(())))
        .await
        .unwrap_err();
    poll_once(&mut waits).await;
    release.send(()).unwrap();
    assert_eq!(within(waits).await.unwrap(), 1);
    within(occupying).await.unwrap();
}

/// D2, better: Go serves waiters in random order; here none is overtaken.
#[tokio::test]
async fn d2_first_in_first_out() {
    let db = database().await;
    let (release, occupying) = occupy(&db).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for number in 0..100 {
        let order = Arc::clone(&order);
        let mut call = Box::pin(db.read(&ROOT, move |_| {
            order.lock().unwrap().push(number);
            Ok(())
        }));
        poll_once(&mut call).await;
        calls.push(call);
    }
    for dropped in (0..100).rev().step_by(3) {
        drop(calls.remove(dropped)); // leaving does not disturb the others
    }
    release.send(()).unwrap();
    for call in calls {
        within(call).await.unwrap();
    }
    within(occupying).await.unwrap();
    let expected: Vec<i32> = (0..100).filter(|number| number % 3 != 0).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_adds_up(db.statistics().readers);
}

/// A deadline that passes between the queue and the thread: the thread looks before it begins.
#[tokio::test]
async fn a_job_whose_context_ended_unnoticed_is_not_begun() {
    let db = database().await;
    let (release, occupying) = occupy(&db).await;
    let request = ROOT.with_cancel();
    let mut call = Box::pin(db.read(&request, |_| Ok(())));
    poll_once(&mut call).await;
    request.cancel(); // nobody polls the call
    release.send(()).unwrap();
    within(occupying).await.unwrap();
    eventually("the thread has passed it over", || {
        db.statistics().readers.abandoned == 1
    })
    .await;
    let error = within(call).await.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(error.step(), Step::Waiting);
    assert_adds_up(db.statistics().readers);
}

#[test]
fn handles_and_calls_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn send_sync_clone<T: Send + Sync + Clone + std::fmt::Debug>() {}
    send_sync_clone::<Database>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<bequest_sqlite::Error>();
    let _ = |db: Database, ctx: Context| {
        drop(send(db.read(&ctx, |_| Ok(()))));
        drop(send(db.write(&ctx, |_| Ok(()))));
        drop(send(db.query(&ctx, "", [1], |_| Ok(()))));
        drop(send(db.close(&ctx)));
        drop(send(Database::open(&ctx, "")));
    };
}
