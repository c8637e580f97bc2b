//! The server hangs, dies and comes back: every call is answered by its deadline, and afterwards everything is whole.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bequest::{Context, Kind};
use bequest_redis::{Client, Options, Step, redis};
use bequest_test::servers::Redis;
use common::{ROOT, blpop, command, eventually, is_whole, list, patient, push, redis, until_blocked, within};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_millis(50);

/// Settings with which a hanging server is given up soon.
fn brisk(server: &Redis) -> Client {
    let options = Options::new(server.url()).grace(Duration::from_millis(5));
    options.unblock_limit(SOON).open().unwrap()
}

#[tokio::test]
async fn a_frozen_server_holds_nobody_beyond_the_deadline() {
    let Some((server, _)) = redis() else { return };
    let client = brisk(&server);
    is_whole(&client).await;
    server.freeze();
    for _ in 0..3 {
        let request = Context::background().with_timeout(SOON);
        let (pop, pipeline) = (blpop("jobs", 0.0), redis::pipe().cmd("GET").arg("k").to_owned());
        let (get, pop, pipeline) = within(async {
            tokio::join!(
                client.get::<String>(&request, "k"),
                client.cmd::<redis::Value>(&request, &pop),
                client.pipeline::<(String,)>(&request, &pipeline),
            )
        })
        .await;
        let errors = [get.unwrap_err(), pop.unwrap_err(), pipeline.unwrap_err()];
        for error in errors {
            assert_eq!(
                *error.canceled().expect("the context's end"),
                Kind::DeadlineExceeded
            );
            // Whatever was sent may run when the server goes on.
            assert_eq!(error.is_in_doubt(), error.step() == Step::Running, "{error}");
        }
    }
    within(client.settle(&ROOT)).await.unwrap();
    assert!(
        client.statistics().blocking.closed > 0,
        "{:?}",
        client.statistics()
    );
    server.thaw();
    is_whole(&client).await;
}

/// Without a deadline a hanging server holds its callers for as long as it hangs.
#[tokio::test]
async fn control_without_a_deadline_a_frozen_server_holds_its_caller() {
    let Some((server, client)) = redis() else { return };
    within(client.set(&ROOT, "k", "v")).await.unwrap();
    server.freeze();
    let driver = client.get::<String>(&ROOT, "k");
    assert!(
        tokio::time::timeout(SOON * 4, driver).await.is_err(),
        "nobody answered"
    );
    server.thaw();
}

/// A connection on which nothing is answered any more is replaced, although nothing says that it is broken.
#[tokio::test]
async fn a_silent_connection_is_replaced() {
    let Some((server, client)) = redis() else { return };
    within(client.set(&ROOT, "k", "v")).await.unwrap();
    server.freeze();
    let request = Context::background().with_timeout(SOON);
    assert!(
        within(client.get::<String>(&request, "k"))
            .await
            .unwrap_err()
            .is_in_doubt()
    );
    eventually("it is replaced", || client.statistics().replaced == 1).await;
    // From here on nothing is sent on the silent connection.
    let request = Context::background().with_timeout(SOON);
    let error = within(client.get::<String>(&request, "k")).await.unwrap_err();
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Connecting, false));
    server.thaw();
    is_whole(&client).await;
}

#[tokio::test]
async fn a_killed_server_is_an_error_and_a_restarted_one_is_found_again() {
    let Some((server, client)) = redis() else { return };
    is_whole(&client).await;
    let pop = tokio::spawn({
        let client = client.clone();
        async move { client.cmd::<redis::Value>(&ROOT, &blpop("other", 0.0)).await }
    });
    until_blocked(&client, 1).await;
    server.kill();
    let error = within(pop).await.unwrap().unwrap_err();
    assert!(error.is_connection() && error.is_in_doubt(), "{error}");

    // While it is away: tried again and again, until the deadline.
    let request = Context::background().with_timeout(SOON);
    let error = within(client.get::<String>(&request, "k")).await.unwrap_err();
    assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    assert_eq!((error.step(), error.is_in_doubt()), (Step::Connecting, false));
    let error = within(client.cmd::<redis::Value>(&request, &blpop("jobs", 0.0)))
        .await
        .unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt());

    // Back again, while a call is waiting for it.
    let (answer, ()) = within(async {
        tokio::join!(client.set(&ROOT, "k", "v"), async {
            let failed = client.statistics().connect_failed;
            eventually("it is tried", || client.statistics().connect_failed > failed).await;
            server.restart();
        })
    })
    .await;
    answer.unwrap();
    is_whole(&client).await;
}

#[tokio::test]
async fn without_a_deadline_the_connect_limit_holds() {
    let Some((server, _)) = redis() else { return };
    server.kill();
    let client = Options::new(server.url()).connect_limit(SOON).open().unwrap();
    for _ in 0..2 {
        let errors = [
            within(client.set(&ROOT, "k", "v")).await.unwrap_err(),
            within(client.cmd::<redis::Value>(&ROOT, &blpop("jobs", 0.0)))
                .await
                .unwrap_err(),
            within(client.subscribe(&ROOT, ["news"])).await.unwrap_err(),
        ];
        for error in errors {
            assert!(
                error.is_connection() && !error.is_in_doubt() && !error.is_canceled(),
                "{error}"
            );
            assert_eq!(error.step(), Step::Connecting);
        }
    }
}

/// A call after a restart finds that its connection has ended, and connects anew: no error, no doubt.
#[tokio::test]
async fn a_restart_between_two_calls_is_not_noticed() {
    let Some((server, client)) = redis() else { return };
    is_whole(&client).await;
    server.restart();
    let connected = client.statistics().connected;
    // The driver learns of the end by itself; until it has, a call may be sent to nobody.
    eventually("the end was noticed", || {
        let debug = format!("{client:?}");
        debug.contains("has_connection: false")
    })
    .await;
    is_whole(&client).await;
    assert!(client.statistics().connected > connected);
}

#[tokio::test]
async fn a_lost_subscription_is_said_once_and_renewed() {
    let Some((server, client)) = redis() else { return };
    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();
    let publish = command("PUBLISH news a");
    assert_eq!(within(client.cmd::<i64>(&ROOT, &publish)).await.unwrap(), 1);
    server.restart();
    assert_eq!(
        within(news.receive(&ROOT)).await.unwrap().get_payload_bytes(),
        b"a",
        "it had arrived"
    );
    let error = within(news.receive(&ROOT)).await.unwrap_err();
    assert!(
        error.is_connection() && error.step() == Step::Receiving,
        "{error}"
    );
    let (message, ()) = within(async {
        tokio::join!(news.receive(&ROOT), async {
            let publish = command("PUBLISH news b");
            // Published until it is heard: the first ones come before the subscription is renewed.
            while client.cmd::<i64>(&ROOT, &publish).await.unwrap_or(0) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    })
    .await;
    assert_eq!(message.unwrap().get_payload_bytes(), b"b");
}

/// Behind one address there may be several servers, each with numbers of its own for its clients: an `UNBLOCK` for a
/// connection to one must not reach a stranger who has that number at the other.
#[tokio::test]
async fn no_unblock_reaches_a_stranger_at_another_server() {
    let (Some((first, at_first)), Some((second, at_second))) = (redis(), redis()) else {
        return;
    };
    let other = redis::Client::open(first.url()).unwrap();
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut stranger = other
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .unwrap();
        strangers.spawn(async move {
            blpop("strangers", 0.0)
                .query_async::<redis::Value>(&mut stranger)
                .await
        });
    }
    until_blocked(&at_first, 16).await;

    // The control connection comes first, and leads to the first server; the pop, to the second.
    let address = by_turns([first.address(), second.address()]).await;
    let options = Options::new(first.url_through(address));
    let client = options.open().unwrap();
    let request = Context::background().with_cancel();
    let pop = tokio::spawn({
        let (client, ctx) = (client.clone(), request.context());
        async move { client.cmd::<redis::Value>(&ctx, &blpop("jobs", 0.0)).await }
    });
    until_blocked(&at_second, 1).await;
    request.cancel();
    let error = within(pop).await.unwrap().unwrap_err();
    assert!(error.is_canceled() && error.is_in_doubt(), "{error}");
    assert_eq!(client.statistics().blocking.closed, 1);

    // Its connection was closed, and so nothing is swallowed; the strangers wait as before.
    until_blocked(&at_second, 0).await;
    push(&at_second, "jobs", "a").await;
    assert_eq!(list(&at_second, "jobs").await, ["a"]);
    until_blocked(&at_first, 16).await;
    assert!(strangers.try_join_next().is_none(), "a stranger was ended");
}

/// An address that leads to each of `servers` in turn.
async fn by_turns(servers: [SocketAddr; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for server in servers.iter().cycle() {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

/// The server hangs when the context ends, and goes on later with a job: the call has long been answered, in doubt, and the
/// job is in its list.
#[tokio::test]
async fn a_job_in_doubt_is_back_in_its_list() {
    let Some((server, friend)) = redis() else { return };
    let options = patient(&server).grace(Duration::from_millis(5));
    let client = options.open().unwrap();
    for round in 1..=10 {
        let request = Context::background().with_cancel();
        let pop = tokio::spawn({
            let (client, ctx) = (client.clone(), request.context());
            async move { client.cmd::<redis::Value>(&ctx, &blpop("jobs", 0.0)).await }
        });
        until_blocked(&friend, 1).await;
        server.freeze();
        // Either is before the server when it goes on: the push, or the end of the pop.
        let pushed = tokio::spawn({
            let friend = friend.clone();
            async move { push(&friend, "jobs", "a").await }
        });
        let sent = friend.statistics().sent;
        if round % 2 == 0 {
            eventually("it is pushed", || friend.statistics().sent > sent).await;
        }
        request.cancel();
        let error = within(pop).await.unwrap().unwrap_err();
        assert!(error.is_canceled() && error.is_in_doubt(), "{error}");
        server.thaw();
        within(pushed).await.unwrap();
        within(client.settle(&ROOT)).await.unwrap();
        assert_eq!(list(&friend, "jobs").await, ["a"], "round {round}");
        within(friend.del(&ROOT, "jobs")).await.unwrap();
    }
    let blocking = client.statistics().blocking;
    assert_eq!((blocking.lost, blocking.closed), (0, 0), "{blocking:?}");
    assert_eq!(blocking.unblocked + blocking.put_back, 10, "{blocking:?}");
}
