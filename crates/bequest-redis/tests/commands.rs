//! Which command runs where, what is refused, and that a connection for blocking commands is clean for the next user.

mod common;

use std::time::Duration;

use bequest::Context;
use bequest_redis::{Step, redis};
use common::{ROOT, blpop, calls, command, list, patient, push, redis, until_blocked, within};

/// Each is ended on the server, as one without a timeout of its own and as one with it.
#[tokio::test]
async fn every_blocking_command_ends_with_its_context() {
    let Some((_server, client)) = redis() else { return };
    within(client.cmd::<()>(&ROOT, &command("XGROUP CREATE stream group $ MKSTREAM")))
        .await
        .unwrap();
    let texts = [
        "BLPOP a b 0",
        "brpop a 60",
        "BLMOVE a b LEFT RIGHT 0",
        "BRPOPLPUSH a b 60",
        "BLMPOP 0 2 a b LEFT",
        "BZPOPMIN z 0",
        "BZPOPMAX z 60",
        "BZMPOP 60 1 z MIN",
        "XREAD BLOCK 0 STREAMS stream $",
        "XREADGROUP GROUP group me BLOCK 60000 STREAMS stream >",
    ];
    for text in texts {
        let request = Context::background().with_cancel();
        let cmd = command(text);
        let (answer, ()) = within(async {
            tokio::join!(client.cmd::<redis::Value>(&request, &cmd), async {
                until_blocked(&client, 1).await;
                request.cancel();
            })
        })
        .await;
        let error = answer.unwrap_err();
        assert!(error.is_canceled() && !error.is_in_doubt(), "{text}: {error}");
        let limited = Context::background().with_timeout(Duration::from_millis(20));
        let error = within(client.cmd::<redis::Value>(&limited, &cmd))
            .await
            .unwrap_err();
        assert!(
            error.canceled().unwrap().is_timeout() && !error.is_in_doubt(),
            "{text}: {error}"
        );
        until_blocked(&client, 0).await;
    }
    let blocking = client.statistics().blocking;
    assert_eq!(
        (blocking.idle, blocking.closed),
        (1, 0),
        "one connection served them all"
    );
}

#[tokio::test]
async fn a_plain_command_goes_on_while_others_block() {
    let Some((_server, client)) = redis() else { return };
    let request = Context::background().with_cancel();
    let pop = tokio::spawn({
        let (client, ctx) = (client.clone(), request.context());
        async move { client.cmd::<redis::Value>(&ctx, &blpop("jobs", 0.0)).await }
    });
    until_blocked(&client, 1).await;
    within(client.set(&ROOT, "k", 7)).await.unwrap();
    assert_eq!(within(client.get::<i64>(&ROOT, "k")).await.unwrap(), 7);
    request.cancel();
    assert!(within(pop).await.unwrap().is_err());
}

/// With the driver alone a blocking command holds up everybody on its connection.
#[tokio::test]
async fn control_a_pop_on_the_shared_connection_holds_up_everybody() {
    let Some((server, client)) = redis() else { return };
    let driver = redis::Client::open(server.url()).unwrap();
    let connection = driver.get_multiplexed_async_connection().await.unwrap();
    let (mut popping, mut getting) = (connection.clone(), connection);
    let pop = blpop("jobs", 0.0);
    let (popped, got) = within(async {
        tokio::join!(pop.query_async::<redis::Value>(&mut popping), async {
            until_blocked(&client, 1).await;
            redis::cmd("GET")
                .arg("k")
                .query_async::<redis::Value>(&mut getting)
                .await
        })
    })
    .await;
    assert!(popped.unwrap_err().is_timeout());
    assert!(got.unwrap_err().is_timeout(), "a plain `GET` was held up");
}

/// An `UNBLOCK` whose reply was not awaited would come like this: late, and at the next user's.
#[tokio::test]
async fn control_a_late_unblock_ends_the_next_users_command() {
    let Some((server, client)) = redis() else { return };
    let driver = redis::Client::open(server.url()).unwrap();
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = driver
        .get_multiplexed_async_connection_with_config(&settings)
        .await
        .unwrap();
    let id: i64 = command("CLIENT ID").query_async(&mut connection).await.unwrap();
    push(&client, "jobs", "a").await;
    let pop = blpop("jobs", 0.0);
    within(pop.query_async::<redis::Value>(&mut connection))
        .await
        .unwrap(); // the first user's, answered
    let (next, ()) = within(async {
        tokio::join!(pop.query_async::<redis::Value>(&mut connection), async {
            until_blocked(&client, 1).await;
            client
                .cmd::<i64>(&ROOT, &command(&format!("CLIENT UNBLOCK {id} ERROR")))
                .await
                .unwrap();
        })
    })
    .await;
    assert_eq!(next.unwrap_err().code(), Some("UNBLOCKED"));
}

#[tokio::test]
async fn what_would_harm_others_is_refused_and_not_sent() {
    let Some((_server, client)) = redis() else { return };
    within(client.set(&ROOT, "k", "v")).await.unwrap();
    let sent = client.statistics().sent;
    for text in [
        "SELECT 1",
        "MULTI",
        "CLIENT REPLY OFF",
        "SUBSCRIBE news",
        "WAIT 0 1",
        "MONITOR",
    ] {
        let error = client
            .cmd::<redis::Value>(&ROOT, &command(text))
            .await
            .unwrap_err();
        assert!(error.is_refused() && !error.is_in_doubt(), "{text}: {error}");
        assert_eq!(error.step(), Step::Waiting);
        let mut pipeline = redis::pipe();
        pipeline.add_command(command("GET k")).add_command(command(text));
        if text != "WAIT 0 1" {
            assert!(
                client
                    .pipeline::<redis::Value>(&ROOT, &pipeline)
                    .await
                    .unwrap_err()
                    .is_refused()
            );
        }
    }
    assert_eq!(client.statistics().sent, sent);
    assert_eq!(within(client.get::<String>(&ROOT, "k")).await.unwrap(), "v");
}

/// With the driver alone, the next user of the connection is answered by the transaction that somebody left open.
#[tokio::test]
async fn control_an_open_transaction_answers_strangers() {
    let Some((server, _)) = redis() else { return };
    let driver = redis::Client::open(server.url()).unwrap();
    let mut connection = driver.get_multiplexed_async_connection().await.unwrap();
    command("MULTI").exec_async(&mut connection).await.unwrap();
    let answer: String = command("GET k").query_async(&mut connection).await.unwrap();
    assert_eq!(answer, "QUEUED");
}

/// `WAIT` counts the writes of its own connection; in a pipeline with them it means what it says, and ends.
#[tokio::test]
async fn a_wait_for_replicas_ends_with_its_context() {
    let Some((_server, client)) = redis() else { return };
    let mut write = redis::pipe();
    write.cmd("SET").arg("k").arg("v").cmd("WAIT").arg(1).arg(0);
    let request = Context::background().with_cancel();
    let (answer, ()) = within(async {
        tokio::join!(client.pipeline::<(String, i64)>(&request, &write), async {
            until_blocked(&client, 1).await;
            request.cancel();
        })
    })
    .await;
    let error = answer.unwrap_err();
    assert!(
        error.is_canceled() && error.is_in_doubt(),
        "the write is done: {error}"
    );
    assert_eq!(within(client.get::<String>(&ROOT, "k")).await.unwrap(), "v");
    assert_eq!(client.statistics().blocking.idle, 1, "and its connection is kept");

    let mut brief = redis::pipe();
    brief.cmd("SET").arg("k").arg("w").cmd("WAIT").arg(1).arg(5);
    let answer: (String, i64) = within(client.pipeline(&ROOT, &brief)).await.unwrap();
    assert_eq!(answer, ("OK".to_owned(), 0));
}

#[tokio::test]
async fn a_declared_command_is_ended_as_well() {
    let Some((server, _)) = redis() else { return };
    let client = patient(&server).blocking_connections(1).open().unwrap();
    let request = Context::background().with_cancel();
    let pop = blpop("jobs", 0.0);
    let (answer, ()) = within(async {
        tokio::join!(client.blocking_cmd::<redis::Value>(&request, &pop), async {
            until_blocked(&client, 1).await;
            request.cancel();
        })
    })
    .await;
    let error = answer.unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
    push(&client, "jobs", "a").await;
    assert_eq!(list(&client, "jobs").await, ["a"]);
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_given_to_it() {
    let Some((server, client)) = redis() else { return };
    let script = redis::Script::new("return ARGV[1] * 2");
    for _ in 0..2 {
        assert_eq!(
            within(client.script::<i64>(&ROOT, &script.arg(21)))
                .await
                .unwrap(),
            42
        );
    }
    assert_eq!(calls(&client, "evalsha").await, 3, "once unknown, then known");
    server.restart();
    let answer = within(async {
        loop {
            match client.script::<i64>(&ROOT, &script.arg(21)).await {
                // It may have met the old server's last moment.
                Err(error) if error.is_connection() => {}
                answer => return answer,
            }
        }
    });
    assert_eq!(answer.await.unwrap(), 42);
}

#[tokio::test]
async fn what_the_server_refuses_is_its_error() {
    let Some((_server, client)) = redis() else { return };
    within(client.set(&ROOT, "k", "text")).await.unwrap();
    let error = within(client.cmd::<i64>(&ROOT, &command("INCR k")))
        .await
        .unwrap_err();
    assert!(
        error.redis().is_some() && !error.is_canceled() && !error.is_in_doubt(),
        "{error}"
    );
    let error = within(client.cmd::<i64>(&ROOT, &blpop("k", 0.0)))
        .await
        .unwrap_err();
    assert_eq!(error.redis().unwrap().code(), Some("WRONGTYPE"));
    // Its timeout is none, and stays so, although the context has one.
    let request = Context::background().with_timeout(common::HANGS);
    let error = within(client.cmd::<i64>(&request, &command("BLPOP k soon")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
    let error = within(client.get::<i64>(&ROOT, "k")).await.unwrap_err();
    assert!(error.is_conversion() && error.redis().is_some(), "{error}");
    assert!(
        !error.is_in_doubt() && !error.is_connection() && error.step() == Step::Running,
        "{error}"
    );
}

#[tokio::test]
async fn a_cached_value_passes() {
    let Some((_server, client)) = redis() else { return };
    within(client.set_for(&ROOT, "k", "v", Duration::from_secs(60)))
        .await
        .unwrap();
    let left: i64 = within(client.cmd(&ROOT, &command("PTTL k"))).await.unwrap();
    assert!((1..=60_000).contains(&left));
    assert_eq!(within(client.del(&ROOT, &["k", "l"])).await.unwrap(), 1);
    assert_eq!(
        within(client.get::<Option<String>>(&ROOT, "k")).await.unwrap(),
        None
    );
}
