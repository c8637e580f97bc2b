//! The behaviours R1 to R11 of go-redis, by their IDs. The README of this folder says what differs and why.

mod common;

use std::time::{Duration, Instant};

use bequest::{Context, Kind, Reason};
use bequest_redis::{Step, redis};
use common::{ROOT, blpop, calls, eventually, list, patient, push, redis, until_blocked, within};

const SOON: Duration = Duration::from_millis(30);

#[tokio::test]
async fn r1_an_ended_context_sends_nothing() {
    let Some((_server, client)) = redis() else { return };
    let request = Context::background().with_cancel();
    request.cancel_for(Reason::ClientGone);
    let spent = Context::background().with_timeout(Duration::ZERO);
    for (ctx, kind) in [(&request, Kind::Canceled), (&spent, Kind::DeadlineExceeded)] {
        let errors = [
            client.set(ctx, "k", 1).await.unwrap_err(),
            client
                .cmd::<redis::Value>(ctx, &blpop("jobs", 0.0))
                .await
                .unwrap_err(),
            client
                .pipeline::<()>(ctx, redis::pipe().cmd("SET").arg("k").arg(1))
                .await
                .unwrap_err(),
            client
                .script::<()>(ctx, &redis::Script::new("return 1").prepare_invoke())
                .await
                .unwrap_err(),
            client.subscribe(ctx, ["news"]).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(*error.canceled().unwrap(), kind, "{error}");
            assert_eq!(error.step(), Step::Waiting);
            assert!(!error.is_in_doubt());
        }
    }
    assert_eq!(client.statistics().connected, 0, "not even a connection was made");
    assert_eq!(
        (calls(&client, "set").await, calls(&client, "blpop").await),
        (0, 0)
    );
}

#[tokio::test]
async fn r2_the_wait_for_a_connection_ends_with_the_context() {
    let Some((server, _)) = redis() else { return };
    let client = patient(&server).blocking_connections(1).open().unwrap();
    let holder = Context::background().with_cancel();
    let held = tokio::spawn({
        let (client, ctx) = (client.clone(), holder.context());
        async move { client.cmd::<redis::Value>(&ctx, &blpop("other", 0.0)).await }
    });
    until_blocked(&client, 1).await;

    let limited = Context::background().with_timeout(SOON);
    let pop = blpop("jobs", 0.0);
    let waiting = client.cmd::<redis::Value>(&limited, &pop);
    let error = within(waiting).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Waiting, false));
    let canceled = Context::background().with_cancel();
    let (answer, ()) = within(async {
        tokio::join!(client.cmd::<redis::Value>(&canceled, &pop), async {
            canceled.cancel();
        })
    })
    .await;
    assert_eq!(answer.unwrap_err().step(), Step::Waiting);

    // Nobody's turn was lost: the next in the queue gets the connection.
    holder.cancel();
    assert!(within(held).await.unwrap().unwrap_err().is_canceled());
    push(&client, "jobs", "a").await;
    let job: (String, String) = within(client.cmd(&ROOT, &blpop("jobs", 0.0))).await.unwrap();
    assert_eq!(job.1, "a");
}

/// The server answers nobody for a while.
async fn paused(client: &bequest_redis::Client) {
    let mut pause = redis::cmd("CLIENT");
    pause.arg("PAUSE").arg(60_000).arg("ALL");
    client.cmd::<()>(&ROOT, &pause).await.unwrap();
}

#[tokio::test]
async fn r3_a_get_in_flight_ends_by_cancel() {
    let Some((_server, client)) = redis() else { return };
    paused(&client).await;
    let request = Context::background().with_cancel();
    let sent = client.statistics().sent;
    let (answer, ()) = within(async {
        tokio::join!(client.get::<Option<String>>(&request, "k"), async {
            eventually("it was sent", || client.statistics().sent > sent).await;
            request.cancel_for(Reason::ClientGone);
        })
    })
    .await;
    let error = answer.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Running, true));
}

#[tokio::test]
async fn r4_a_get_in_flight_ends_by_its_deadline_and_says_so() {
    let Some((_server, client)) = redis() else { return };
    paused(&client).await;
    let request = Context::background().with_timeout(SOON);
    let error = within(client.get::<Option<String>>(&request, "k"))
        .await
        .unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert!(error.canceled().unwrap().is_from(&request));
    assert!(
        error
            .to_string()
            .starts_with("redis, running: context deadline exceeded"),
        "{error}"
    );
}

#[tokio::test]
async fn r5_a_pop_without_end_ends_by_cancel() {
    let Some((_server, client)) = redis() else { return };
    let request = Context::background().with_cancel();
    let pop = blpop("jobs", 0.0);
    let (answer, ()) = within(async {
        tokio::join!(client.cmd::<redis::Value>(&request, &pop), async {
            until_blocked(&client, 1).await;
            request.cancel_for(Reason::Shutdown);
        })
    })
    .await;
    let error = answer.unwrap_err();
    assert_eq!(error.canceled().unwrap().reason(), Reason::Shutdown);
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Running, false));
    // The connection is clean and kept, and the next push is not swallowed.
    let blocking = client.statistics().blocking;
    assert_eq!((blocking.idle, blocking.unblocked, blocking.closed), (1, 1, 0));
    push(&client, "jobs", "a").await;
    assert_eq!(list(&client, "jobs").await, ["a"]);
}

#[tokio::test]
async fn r6_a_pop_without_end_ends_by_its_deadline() {
    let Some((_server, client)) = redis() else { return };
    let request = Context::background().with_timeout(SOON);
    let error = within(client.cmd::<redis::Value>(&request, &blpop("jobs", 0.0)))
        .await
        .unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert!(!error.is_in_doubt(), "{error}");
    until_blocked(&client, 0).await;
    push(&client, "jobs", "a").await;
    assert_eq!(list(&client, "jobs").await, ["a"]);
}

#[tokio::test]
async fn r7_a_pop_with_a_timeout_of_its_own_keeps_to_the_earlier_end() {
    let Some((_server, client)) = redis() else { return };
    // Its own: nothing came, and that is an answer.
    let long = Context::background().with_timeout(common::HANGS);
    for ctx in [&long, &ROOT] {
        let nothing: Option<(String, String)> = within(client.cmd(ctx, &blpop("jobs", 0.02))).await.unwrap();
        assert_eq!(nothing, None);
    }
    // The context's: an error that says so.
    let short = Context::background().with_timeout(SOON);
    let began = Instant::now();
    let error = within(client.cmd::<redis::Value>(&short, &blpop("jobs", 60.0)))
        .await
        .unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert!(began.elapsed() >= SOON, "not before its time");
}

#[tokio::test]
async fn r8_a_pipeline_in_flight_ends_by_its_deadline() {
    let Some((_server, client)) = redis() else { return };
    paused(&client).await;
    for atomic in [false, true] {
        let mut pipeline = redis::pipe();
        if atomic {
            pipeline.atomic();
        }
        pipeline.cmd("GET").arg("a").cmd("GET").arg("b");
        let request = Context::background().with_timeout(SOON);
        let answer = client.pipeline::<(Option<i64>, Option<i64>)>(&request, &pipeline);
        let error = within(answer).await.unwrap_err();
        assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
        assert!(error.is_in_doubt());
    }
}

#[tokio::test]
async fn r9_a_receive_ends_by_cancel_and_loses_no_message() {
    let Some((_server, client)) = redis() else { return };
    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();
    let request = Context::background().with_cancel();
    let (answer, ()) =
        within(async { tokio::join!(news.receive(&request), async { request.cancel() }) }).await;
    let error = answer.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Receiving, false));

    publish(&client, "a").await;
    assert!(
        news.receive(&request).await.is_err(),
        "an ended context takes nothing"
    );
    assert_eq!(
        within(news.receive(&ROOT)).await.unwrap().get_payload_bytes(),
        b"a"
    );
}

#[tokio::test]
async fn r10_a_receive_ends_by_its_deadline_and_the_subscription_stays() {
    let Some((_server, client)) = redis() else { return };
    let mut news = within(client.psubscribe(&ROOT, ["ne?s"])).await.unwrap();
    let connected = client.statistics().connected;
    for message in ["a", "b"] {
        let short = Context::background().with_timeout(SOON);
        let error = within(news.receive(&short)).await.unwrap_err();
        assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
        publish(&client, message).await;
        let received = within(news.receive(&ROOT)).await.unwrap();
        assert_eq!(received.get_payload_bytes(), message.as_bytes());
    }
    // One more for the shared connection, none for the subscription.
    assert_eq!(client.statistics().connected, connected + 1);
}

#[tokio::test]
async fn r11_the_cause_survives() {
    let Some((_server, client)) = redis() else { return };
    let request = Context::background().with_cancel();
    let pop = blpop("jobs", 0.0);
    let (answer, ()) = within(async {
        tokio::join!(client.cmd::<redis::Value>(&request, &pop), async {
            until_blocked(&client, 1).await;
            request.cancel_with("quota used up");
        })
    })
    .await;
    let error = answer.unwrap_err();
    let end = error.canceled().unwrap();
    assert_eq!((*end).cause().unwrap().to_string(), "quota used up");
    assert_eq!(*end, Kind::Canceled);
    assert!(end.is_from(&request));
}

async fn publish(client: &bequest_redis::Client, message: &str) {
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("news").arg(message);
    let receivers: i64 = within(client.cmd(&ROOT, &publish)).await.unwrap();
    assert_eq!(receivers, 1);
}
