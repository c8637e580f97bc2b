//! A job is delivered once or still in the list, whatever is cancelled or dropped. Beside it, the driver alone, which
//! swallows jobs.

mod common;

use std::pin::pin;
use std::sync::{Arc, Mutex};

use bequest_redis::{Client, redis};
use common::jobs::{Driver, deliver, popped};
use common::{HANGS, ROOT, blpop, command, eventually, list, patient, push, redis, until_blocked, within};

const JOBS: u64 = 2_000;

/// Begins a pop, waits until the server holds it, and drops its future.
async fn dropped_while_blocked(client: &Client, command: &redis::Cmd) {
    let mut pop = pin!(client.cmd::<redis::Value>(&ROOT, command));
    tokio::select! {
        biased;
        answer = &mut pop => panic!("answered: {answer:?}"),
        () = until_blocked(client, 1) => {}
    }
}

#[tokio::test]
async fn a_dropped_pop_swallows_nothing() {
    let Some((_server, client)) = redis() else { return };
    dropped_while_blocked(&client, &blpop("jobs", 0.0)).await;
    within(client.settle(&ROOT)).await.unwrap();
    push(&client, "jobs", "a").await;
    assert_eq!(list(&client, "jobs").await, ["a"]);
    let blocking = client.statistics().blocking;
    assert_eq!((blocking.running, blocking.idle, blocking.unblocked), (0, 1, 1));
}

/// With the driver alone, the abandoned pop goes on and takes the next job for nobody.
#[tokio::test]
async fn control_the_driver_alone_swallows_a_job() {
    let Some((server, client)) = redis() else { return };
    let driver = redis::Client::open(server.url()).unwrap();
    let mut connection = driver.get_multiplexed_async_connection().await.unwrap();
    let pop = blpop("jobs", 0.0);
    // Its own limit of 500 ms: the future ends, the command does not.
    let error = within(pop.query_async::<redis::Value>(&mut connection))
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
    until_blocked(&client, 1).await;
    push(&client, "jobs", "a").await;
    assert_eq!(list(&client, "jobs").await, [""; 0], "the job is gone");
}

/// The answer has come when the future is dropped, and nobody has seen it.
#[tokio::test]
async fn what_was_popped_for_nobody_is_put_back_in_its_place() {
    let Some((_server, client)) = redis() else { return };
    let fill = command("RPUSH jobs a b c");
    for pop in [
        "BLPOP jobs 0",
        "BRPOP jobs 0",
        "BLMPOP 0 1 jobs LEFT COUNT 2",
        "BLMPOP 0 1 jobs RIGHT COUNT 2",
    ] {
        answered_unseen(&client, &command(pop), &fill).await;
        assert_eq!(list(&client, "jobs").await, ["a", "b", "c"], "{pop}");
        within(client.del(&ROOT, "jobs")).await.unwrap();
    }
    let blocking = client.statistics().blocking;
    assert_eq!((blocking.put_back, blocking.lost), (4, 0));
}

#[tokio::test]
async fn a_member_popped_for_nobody_is_put_back_with_its_score() {
    let Some((_server, client)) = redis() else { return };
    let fill = command("ZADD ranks 1.5 m inf n");
    let all = command("ZRANGE ranks 0 -1 WITHSCORES");
    for pop in [
        "BZPOPMIN ranks 0",
        "BZPOPMAX ranks 0",
        "BZMPOP 0 1 ranks MAX COUNT 2",
    ] {
        answered_unseen(&client, &command(pop), &fill).await;
        let ranks: Vec<String> = within(client.cmd(&ROOT, &all)).await.unwrap();
        assert_eq!(ranks, ["m", "1.5", "n", "inf"], "{pop}");
        within(client.del(&ROOT, "ranks")).await.unwrap();
    }
    assert_eq!(client.statistics().blocking.put_back, 3);
}

#[tokio::test]
async fn a_sink_is_given_what_was_popped_for_nobody() {
    let Some((server, _)) = redis() else { return };
    let orphans = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&orphans);
    let client = patient(&server)
        .orphans(move |orphan| sink.lock().unwrap().push(orphan.reply))
        .open()
        .unwrap();
    answered_unseen(&client, &blpop("jobs", 0.0), &command("RPUSH jobs a")).await;
    let text = |text: &str| redis::Value::BulkString(text.into());
    assert_eq!(
        *orphans.lock().unwrap(),
        [redis::Value::Array(vec![text("jobs"), text("a")])]
    );
    assert_eq!(client.statistics().blocking.handed_over, 1);
    assert_eq!(list(&client, "jobs").await, [""; 0]);
}

/// An element that was moved is where it was to go; there is nothing to put back.
#[tokio::test]
async fn what_was_moved_for_nobody_is_in_its_destination() {
    let Some((_server, client)) = redis() else { return };
    let work = command("BLMOVE jobs work LEFT RIGHT 0");
    answered_unseen(&client, &work, &command("RPUSH jobs a")).await;
    assert_eq!(list(&client, "work").await, ["a"]);
    assert_eq!(client.statistics().blocking.put_back, 0);
}

/// Has `pop` wait on the server, then be answered by `fill`, and drops its future without having looked again.
async fn answered_unseen(client: &Client, pop: &redis::Cmd, fill: &redis::Cmd) {
    let mut answer = Box::pin(client.cmd::<redis::Value>(&ROOT, pop));
    tokio::select! {
        biased;
        answer = &mut answer => panic!("answered: {answer:?}"),
        () = until_blocked(client, 1) => {}
    }
    within(client.cmd::<i64>(&ROOT, fill)).await.unwrap();
    eventually("it was answered", || client.statistics().blocking.running == 0).await;
    drop(answer);
    within(client.settle(&ROOT)).await.unwrap();
}

/// A cancel and a push at the same instant: the job is returned, or it is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_pops_cancelled_at_random_lose_no_job() {
    let Some((server, _)) = redis() else { return };
    let client = patient(&server).blocking_connections(8).open().unwrap();
    let popping = client.clone();
    let work = deliver(&client, JOBS, move |random| popped(popping.clone(), random));
    let delivery = tokio::time::timeout(HANGS * 3, work).await.expect("it hangs");
    assert_eq!(
        (delivery.lost, delivery.twice),
        (0, 0),
        "{:?}",
        client.statistics()
    );
    let blocking = client.statistics().blocking;
    assert!(
        blocking.unblocked > 0,
        "some were cancelled while they waited: {blocking:?}"
    );
    assert_eq!((blocking.running, blocking.lost, blocking.closed), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_two_thousand_pops_of_the_driver_dropped_at_random_lose_jobs() {
    let Some((server, client)) = redis() else { return };
    let driver = Driver::connect(&server.url()).await;
    let work = deliver(&client, JOBS, move |random| driver.clone().popped(random));
    let delivery = tokio::time::timeout(HANGS * 3, work).await.expect("it hangs");
    assert!(delivery.lost > 0, "{delivery:?}");
}
