//! A network that is slow, goes dark, is cut at any byte, or breaks: an answer is the caller's or there is none, and
//! afterwards everything is whole.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bequest::{Context, Kind};
use bequest_redis::{Client, Options, Step, redis};
use bequest_test::proxy::{Faults, Proxy};
use bequest_test::servers::Redis;
use common::answers::{Naive, Tally, asked, fill, torture};
use common::{HANGS, ROOT, blpop, is_whole, redis, within};

const SOON: Duration = Duration::from_millis(50);

/// A server, a proxy before it, and a client that goes through the proxy.
async fn behind_a_proxy() -> Option<(Redis, Proxy, Client)> {
    let (server, _) = redis()?;
    let proxy = Proxy::start(server.address()).await.unwrap();
    let client = through(&server, &proxy);
    Some((server, proxy, client))
}

fn through(server: &Redis, proxy: &Proxy) -> Client {
    let options = Options::new(server.url_through(proxy.address())).grace(Duration::from_millis(5));
    options.unblock_limit(SOON).open().unwrap()
}

/// So slow that a cancel falls between the sending and the answer.
fn far_away() -> Faults {
    let slow = Faults::none().latency(Duration::from_millis(1));
    slow.jitter(Duration::from_millis(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_away_no_answer_reaches_a_stranger() {
    let Some((_server, proxy, client)) = behind_a_proxy().await else {
        return;
    };
    within(fill(&client)).await;
    proxy.both(far_away());
    let tally = Arc::new(Tally::default());
    let work = torture(20_000, Arc::clone(&tally), move |ctx, user| {
        asked(client.clone(), ctx, user)
    });
    tokio::time::timeout(HANGS * 3, work).await.expect("it hangs");
    let (answers, foreign, cancels) = tally.read();
    assert_eq!(foreign, 0, "of {answers} answers, with {cancels} cancels");
    assert!(
        cancels > 2_000 && answers > 2_000,
        "{answers} answers, {cancels} cancels"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_far_away_a_naive_pool_hands_answers_to_strangers() {
    let Some((_server, proxy, client)) = behind_a_proxy().await else {
        return;
    };
    within(fill(&client)).await;
    proxy.both(far_away());
    let naive = Naive::new(proxy.address());
    let tally = Arc::new(Tally::default());
    let work = torture(5_000, Arc::clone(&tally), move |ctx, user| {
        naive.clone().asked(ctx, user)
    });
    tokio::time::timeout(HANGS * 3, work).await.expect("it hangs");
    assert!(tally.read().1 > 0, "{tally:?}");
}

#[tokio::test]
async fn a_black_hole_holds_nobody_beyond_the_deadline() {
    let Some((_server, proxy, client)) = behind_a_proxy().await else {
        return;
    };
    is_whole(&client).await;
    proxy.both(Faults::none().black_hole());
    for _ in 0..3 {
        let request = Context::background().with_timeout(SOON);
        let pop = blpop("jobs", 0.0);
        let (get, pop) = within(async {
            tokio::join!(
                client.get::<String>(&request, "k"),
                client.cmd::<redis::Value>(&request, &pop),
            )
        })
        .await;
        for error in [get.unwrap_err(), pop.unwrap_err()] {
            assert_eq!(
                *error.canceled().expect("the context's end"),
                Kind::DeadlineExceeded
            );
            assert_eq!(error.is_in_doubt(), error.step() == Step::Running, "{error}");
        }
    }
    within(client.settle(&ROOT)).await.unwrap();
    assert!(
        client.statistics().blocking.closed > 0,
        "{:?}",
        client.statistics()
    );
    proxy.both(Faults::none());
    is_whole(&client).await;
}

/// With the driver alone there is one deadline, its own of half a second, whatever the caller's is.
#[tokio::test]
async fn control_a_black_hole_holds_the_drivers_caller_beyond_the_deadline() {
    let Some((server, proxy, _)) = behind_a_proxy().await else {
        return;
    };
    let driver = redis::Client::open(server.url_through(proxy.address())).unwrap();
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = driver
        .get_multiplexed_async_connection_with_config(&settings)
        .await
        .unwrap();
    proxy.both(Faults::none().black_hole());
    let request = Context::background().with_timeout(SOON);
    let get = redis::cmd("GET").arg("k").to_owned();
    let answer = get.query_async::<Option<String>>(&mut connection);
    assert!(
        tokio::time::timeout(SOON * 4, answer).await.is_err(),
        "nobody answered"
    );
    assert!(request.is_done());
}

/// Of the server's bytes only the first few arrive: within the greeting, or within the answer.
#[tokio::test]
async fn a_cut_at_any_byte_is_an_error_or_the_right_answer() {
    let Some((server, proxy, client)) = behind_a_proxy().await else {
        return;
    };
    within(client.set(&ROOT, "k", "the value")).await.unwrap();
    let (mut errors, mut answers) = (0, 0);
    // The greeting has some 110 bytes, fewer where the server knows all of it.
    for bytes in (0..160).step_by(3) {
        let client = through(&server, &proxy);
        proxy.to_client(Faults::none().cut_after(bytes));
        let request = Context::background().with_timeout(SOON);
        match within(client.get::<String>(&request, "k")).await {
            Ok(answer) => {
                assert_eq!(answer, "the value");
                answers += 1;
            }
            Err(error) => {
                assert!(error.is_connection() || error.is_canceled(), "{error}");
                errors += 1;
            }
        }
        proxy.to_client(Faults::none());
        let answer = within(client.get::<String>(&ROOT, "k")).await;
        assert_eq!(answer.unwrap(), "the value", "cut after {bytes}");
    }
    assert!(errors > 0 && answers > 0, "{errors} errors, {answers} answers");
}

/// Connections break under load, again and again: each call is answered, nobody's answer is another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_resets_every_answer_is_right_and_afterwards_all_is_whole() {
    let Some((_server, proxy, client)) = behind_a_proxy().await else {
        return;
    };
    within(fill(&client)).await;
    let tally = Arc::new(Tally::default());
    let load = torture(20_000, Arc::clone(&tally), {
        let client = client.clone();
        move |ctx, user| {
            let client = client.clone();
            async move {
                let answer = client.get::<String>(&ctx, common::answers::name(user)).await;
                let is_expected = |error: &bequest_redis::Error| error.is_canceled() || error.is_connection();
                answer
                    .inspect_err(|error| assert!(is_expected(error), "{error}"))
                    .ok()
            }
        }
    });
    let resets = async {
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.reset();
        }
    };
    let ended = tokio::time::timeout(HANGS, async { tokio::join!(load, resets) }).await;
    assert!(ended.is_ok(), "it hangs: {client:?}, {tally:?}");
    let (answers, foreign, _) = tally.read();
    assert_eq!(foreign, 0, "of {answers} answers");
    assert!(client.statistics().connected > 1, "{:?}", client.statistics());
    is_whole(&client).await;
}
