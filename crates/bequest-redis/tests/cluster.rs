//! A cluster: commands reach the node that has their keys, whatever moves or dies, and each is run once or said to be in
//! doubt.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bequest::{Context, Kind};
use bequest_redis::{Client, Options, Step, redis};
use bequest_test::proxy::{Faults, Proxy};
use bequest_test::servers::RedisCluster;
use common::answers::{Tally, asked, fill, torture};
use common::jobs::{deliver, popped};
use common::{
    HANGS, ROOT, blpop, cancelled_once, command, eventually, list, patient, push, redis, until_blocked,
    within,
};

/// Short enough for a test, and longer than a round trip.
const SOON: Duration = Duration::from_millis(100);

/// Three nodes and a client that was told of the first.
fn cluster() -> Option<(RedisCluster, Client)> {
    let cluster = RedisCluster::start_or_leave_out(3, 0)?;
    let client = at(&cluster).open().unwrap();
    Some((cluster, client))
}

fn at(cluster: &RedisCluster) -> Options {
    let options = Options::cluster([cluster.nodes()[0].url()]);
    options.grace(HANGS).unblock_limit(HANGS)
}

/// Clients of the single nodes, who look and do not follow.
fn watchers(cluster: &RedisCluster) -> Vec<Client> {
    cluster
        .nodes()
        .iter()
        .map(|node| patient(node).open().unwrap())
        .collect()
}

async fn slot_of(client: &Client, key: &str) -> u16 {
    within(client.cmd(&ROOT, &command(&format!("CLUSTER KEYSLOT {key}"))))
        .await
        .unwrap()
}

/// Which of three nodes was given the slot at the start.
fn place_of(slot: u16) -> usize {
    (0..3)
        .find(|place| usize::from(slot) < 16384 * (place + 1) / 3)
        .unwrap()
}

/// A key of each node.
async fn keys(client: &Client) -> [String; 3] {
    let mut keys: [Option<String>; 3] = Default::default();
    for number in 0.. {
        let key = format!("key:{number}");
        let place = place_of(slot_of(client, &key).await);
        keys[place].get_or_insert(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    keys.map(Option::unwrap)
}

#[tokio::test]
async fn commands_reach_the_node_of_their_slot() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    for number in 0..300 {
        within(client.set(&ROOT, format!("user:{number}"), number))
            .await
            .unwrap();
    }
    for number in 0..300 {
        let value: i64 = within(client.get(&ROOT, format!("user:{number}"))).await.unwrap();
        assert_eq!(value, number);
    }
    let sizes: Vec<u64> = within(client.cmd_at_each(&ROOT, &command("DBSIZE")))
        .await
        .unwrap();
    assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (3, 300));
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
    let statistics = client.statistics();
    assert_eq!(
        (statistics.redirected, statistics.refreshed),
        (0, 1),
        "{statistics:?}"
    );
    // Keys that are made to be together can be used together.
    let together = command("MSET {ana}:name Ana {ana}:age 30");
    within(client.cmd::<()>(&ROOT, &together)).await.unwrap();
    let both: (String, i64) = within(client.cmd(&ROOT, &command("MGET {ana}:name {ana}:age")))
        .await
        .unwrap();
    assert_eq!(both, ("Ana".into(), 30));
    assert_eq!(
        within(client.cmd::<String>(&ROOT, &command("PING")))
            .await
            .unwrap(),
        "PONG"
    );
    assert!(format!("{client:?}").contains("nodes: 3"), "{client:?}");
    drop(cluster);
}

/// Who knows one node only is sent away by it.
#[tokio::test]
async fn control_one_node_alone_does_not_have_most_keys() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let [_, _, at_the_third] = keys(&client).await;
    let alone = Client::open(cluster.nodes()[0].url()).unwrap();
    let error = within(alone.get::<Option<String>>(&ROOT, at_the_third))
        .await
        .unwrap_err();
    assert_eq!(error.redis().unwrap().code(), Some("MOVED"), "{error}");
}

#[tokio::test]
async fn what_no_one_node_can_do_is_refused_and_not_sent() {
    let Some((_cluster, client)) = cluster() else {
        return;
    };
    within(client.set(&ROOT, "a", 1)).await.unwrap();
    let sent = client.statistics().sent;
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("INCR").arg("a").cmd("INCR").arg("b");
    let script = redis::Script::new("return 1");
    let errors = [
        within(client.del(&ROOT, &["a", "b"])).await.unwrap_err(),
        within(client.cmd::<()>(&ROOT, &command("MSET a 1 b 2")))
            .await
            .unwrap_err(),
        within(client.cmd::<()>(&ROOT, &command("BLPOP a b 0")))
            .await
            .unwrap_err(),
        within(client.pipeline::<()>(&ROOT, &transaction))
            .await
            .unwrap_err(),
        within(client.script::<()>(&ROOT, script.key("a").key("b")))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert!(
            error.is_cross_slot() && error.is_refused() && !error.is_in_doubt(),
            "{error}"
        );
        assert_eq!(
            error.to_string(),
            "redis, waiting: its keys are in several slots of the cluster"
        );
    }
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg("a").cmd("FLUSHALL");
    let errors = [
        within(client.cmd::<()>(&ROOT, &command("FLUSHALL")))
            .await
            .unwrap_err(),
        within(client.cmd::<()>(&ROOT, &command("SCAN 0")))
            .await
            .unwrap_err(),
        within(client.pipeline::<()>(&ROOT, &pipeline)).await.unwrap_err(),
        within(client.cmd_at_each::<()>(&ROOT, &blpop("a", 0.0)))
            .await
            .unwrap_err(),
        within(client.cmd::<()>(&ROOT, &command("SELECT 1")))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_refused() && !error.is_cross_slot(), "{error}");
    }
    assert_eq!(client.statistics().sent, sent);
    // What only the server can know is told by the same predicate.
    let undeclared = command("EVAL redis.call('set','a',1)redis.call('set','b',1) 0");
    let error = within(client.cmd::<()>(&ROOT, &undeclared)).await.unwrap_err();
    assert!(!error.is_refused() && error.redis().is_some(), "{error}");
}

#[test]
fn what_cannot_be_a_cluster_is_refused_at_the_edge() {
    for urls in [
        vec![],
        vec!["redis://127.0.0.1/1"],
        vec!["unix:///a"],
        vec!["none"],
    ] {
        let error = Client::open_cluster(urls).unwrap_err();
        assert_eq!(error.step(), Step::Connecting, "{error}");
    }
}

/// At once, not after the limit.
#[tokio::test]
async fn a_server_of_its_own_says_that_it_is_no_cluster() {
    let Some((server, _)) = redis() else { return };
    let client = Options::cluster([server.url()])
        .connect_limit(2 * HANGS)
        .open()
        .unwrap();
    let errors = [
        within(client.get::<String>(&ROOT, "k")).await.unwrap_err(),
        within(client.cmd::<()>(&ROOT, &blpop("k", 0.0)))
            .await
            .unwrap_err(),
        within(client.pipeline::<()>(&ROOT, redis::pipe().cmd("GET").arg("k")))
            .await
            .unwrap_err(),
        within(client.subscribe(&ROOT, ["news"])).await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("cluster support disabled"), "{error}");
        assert!(
            !error.is_in_doubt() && error.step() == Step::Connecting,
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_pipeline_is_cut_by_node_and_its_replies_are_in_order() {
    let Some((_cluster, client)) = cluster() else {
        return;
    };
    let mut pipeline = redis::pipe();
    for number in 0..60 {
        pipeline
            .cmd("SET")
            .arg(format!("n:{number}"))
            .arg(number)
            .ignore();
        pipeline.cmd("INCR").arg(format!("n:{number}"));
    }
    pipeline.cmd("PING");
    let mut replies: Vec<redis::Value> = within(client.pipeline(&ROOT, &pipeline)).await.unwrap();
    assert_eq!(replies.pop(), Some(redis::Value::SimpleString("PONG".into())));
    let numbers: Vec<i64> = replies
        .into_iter()
        .map(|reply| redis::from_redis_value(reply).unwrap())
        .collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    // An error is that of the whole, as with one server; the others have run.
    let mut wrong = redis::pipe();
    wrong
        .cmd("LPUSH")
        .arg("n:0")
        .arg(1)
        .cmd("INCR")
        .arg("n:1")
        .cmd("INCR")
        .arg("n:2");
    let error = within(client.pipeline::<redis::Value>(&ROOT, &wrong))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("WRONGTYPE") && !error.is_in_doubt(),
        "{error}"
    );
    let both: (i64, i64) = (
        within(client.get(&ROOT, "n:1")).await.unwrap(),
        within(client.get(&ROOT, "n:2")).await.unwrap(),
    );
    assert_eq!(both, (3, 4));
    let mut transaction = redis::pipe();
    transaction
        .atomic()
        .cmd("SET")
        .arg("{t}a")
        .arg(1)
        .ignore()
        .cmd("INCR")
        .arg("{t}a");
    assert_eq!(
        within(client.pipeline::<(i64,)>(&ROOT, &transaction))
            .await
            .unwrap(),
        (2,)
    );
    let mut failing = redis::pipe();
    failing.atomic().cmd("INCR").arg("{t}a").cmd("NOSUCH").arg("{t}a");
    assert!(
        within(client.pipeline::<redis::Value>(&ROOT, &failing))
            .await
            .is_err()
    );
    assert_eq!(
        within(client.get::<i64>(&ROOT, "{t}a")).await.unwrap(),
        2,
        "nothing of it ran"
    );
    // Who counts the writes of its own connection goes along with them.
    let mut counted = redis::pipe();
    counted.cmd("SET").arg("{t}b").arg(1).cmd("WAIT").arg(0).arg(10);
    assert!(
        within(client.pipeline::<redis::Value>(&ROOT, &counted))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_script_is_made_known_to_each_node_that_runs_it() {
    let Some((_cluster, client)) = cluster() else {
        return;
    };
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    for key in keys(&client).await {
        for expected in 1..=2 {
            let number: i64 = within(client.script(&ROOT, &script.key(&key))).await.unwrap();
            assert_eq!(number, expected);
        }
    }
}

#[tokio::test]
async fn a_blocking_command_is_ended_at_the_node_where_it_waits() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let watchers = watchers(&cluster);
    for (place, key) in keys(&client).await.into_iter().enumerate() {
        let request = Context::background().with_cancel();
        let pop = tokio::spawn({
            let (client, ctx, pop) = (client.clone(), request.context(), blpop(&key, 0.0));
            async move { client.cmd::<redis::Value>(&ctx, &pop).await }
        });
        until_blocked(&watchers[place], 1).await;
        request.cancel();
        let error = within(pop).await.unwrap().unwrap_err();
        assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
        until_blocked(&watchers[place], 0).await;
        push(&client, &key, "a").await;
        assert_eq!(list(&client, &key).await, ["a"], "no pop is left on the server");
        let popped: (String, String) = within(client.cmd(&ROOT, &blpop(&key, 0.0))).await.unwrap();
        assert_eq!(popped, (key, "a".into()));
    }
    let blocking = client.statistics().blocking;
    assert_eq!(
        (blocking.unblocked, blocking.closed, blocking.idle),
        (3, 0, 3),
        "{blocking:?}"
    );
}

/// Half-way, then for good: the calls go where the keys are, and nobody outside sees a redirection.
#[tokio::test]
async fn a_moving_slot_is_followed() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let slot = slot_of(&client, "{m}").await;
    let (from, to) = (place_of(slot), (place_of(slot) + 1) % 3);
    within(client.set(&ROOT, "{m}old", "o")).await.unwrap();
    cluster.begin_move(slot, from, to);
    within(client.set(&ROOT, "{m}new", "n")).await.unwrap(); // `ASK`
    assert_eq!(within(client.get::<String>(&ROOT, "{m}old")).await.unwrap(), "o");
    assert_eq!(within(client.get::<String>(&ROOT, "{m}new")).await.unwrap(), "n");
    let mut both = redis::pipe();
    both.cmd("GET")
        .arg("{m}new")
        .cmd("GET")
        .arg("{m}old")
        .cmd("GET")
        .arg("{m}new");
    let three: (String, String, String) = within(client.pipeline(&ROOT, &both)).await.unwrap();
    assert_eq!(three, ("n".into(), "o".into(), "n".into()));
    let mut transaction = redis::pipe();
    transaction
        .atomic()
        .cmd("APPEND")
        .arg("{m}new")
        .arg("!")
        .cmd("GET")
        .arg("{m}new");
    let appended: (i64, String) = within(client.pipeline(&ROOT, &transaction)).await.unwrap();
    assert_eq!(appended, (2, "n!".into()));
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    assert_eq!(
        within(client.script::<String>(&ROOT, &script.key("{m}new")))
            .await
            .unwrap(),
        "n!"
    );

    // A pop at the old node waits there, and one for a new list is asked of the new one.
    let pop = tokio::spawn({
        let (client, pop) = (client.clone(), blpop("{m}jobs", 0.0));
        async move { client.cmd::<(String, String)>(&ROOT, &pop).await }
    });
    let watchers = watchers(&cluster);
    until_blocked(&watchers[to], 1).await;

    // What needs keys from both is for neither (`TRYAGAIN`): it waits, for as long as its context allows. It is given up
    // when it has been asked for patience for longer than directions are followed without a pause.
    let torn = command("MGET {m}old {m}new");
    let asked = client.statistics().redirected;
    let request = ROOT.with_cancel();
    let has_paused = || client.statistics().redirected > asked + 8;
    let call = |ctx| client.cmd::<redis::Value>(ctx, &torn);
    let error = cancelled_once(&request, has_paused, call).await.unwrap_err();
    assert_eq!(*error.canceled().expect("the context's end"), Kind::Canceled);
    assert_eq!(
        (error.step(), error.is_in_doubt()),
        (Step::Connecting, false),
        "{error}"
    );
    let redirected = client.statistics().redirected;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.cmd::<(String, String)>(&ROOT, &torn).await }
    });
    eventually("it is tried", || client.statistics().redirected > redirected).await;
    cluster.finish_move(slot, from, to);
    assert_eq!(within(waiting).await.unwrap().unwrap(), ("o".into(), "n!".into()));

    push(&client, "{m}jobs", "j").await; // `MOVED`, or known by now
    assert_eq!(within(pop).await.unwrap().unwrap().1, "j");
    // Once the cluster has told, nothing is sent the long way any more.
    let settled = async {
        loop {
            let redirected = client.statistics().redirected;
            within(client.get::<String>(&ROOT, "{m}old")).await.unwrap();
            if client.statistics().redirected == redirected {
                break;
            }
        }
    };
    within(settled).await;
}

/// Blocked at a node when the slot leaves it: the node says so, and the call waits at the next one.
#[tokio::test]
async fn a_blocked_pop_moves_with_its_slot() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let slot = slot_of(&client, "jobs").await;
    let (from, to) = (place_of(slot), (place_of(slot) + 1) % 3);
    let watchers = watchers(&cluster);
    let pop = tokio::spawn({
        let client = client.clone();
        async move { client.cmd::<(String, String)>(&ROOT, &blpop("jobs", 0.0)).await }
    });
    until_blocked(&watchers[from], 1).await;
    cluster.begin_move(slot, from, to);
    cluster.finish_move(slot, from, to);
    until_blocked(&watchers[to], 1).await;
    push(&client, "jobs", "a").await;
    assert_eq!(within(pop).await.unwrap().unwrap().1, "a");
}

/// The slot of the list goes round and round while workers give up and jobs are pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_while_its_slot_moves() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let slot = slot_of(&client, "jobs").await;
    let (is_over, over) = std::sync::mpsc::channel::<()>();
    let moving = std::thread::spawn(move || {
        let mut at = place_of(slot);
        while over.try_recv().is_err() {
            cluster.begin_move(slot, at, (at + 1) % 3);
            cluster.finish_move(slot, at, (at + 1) % 3);
            at = (at + 1) % 3;
        }
        cluster
    });
    let popping = client.clone();
    let delivery = deliver(&client, 1_000, move |random| popped(popping.clone(), random)).await;
    is_over.send(()).unwrap();
    drop(moving.join().unwrap());
    assert_eq!(
        (delivery.once, delivery.lost, delivery.twice),
        (1_000, 0, 0),
        "{delivery:?}"
    );
    let statistics = client.statistics();
    assert!(
        statistics.redirected > 0 && statistics.blocking.lost == 0,
        "{statistics:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_reaches_the_one_who_asked() {
    let Some((_cluster, client)) = cluster() else {
        return;
    };
    fill(&client).await;
    let tally = Arc::new(Tally::default());
    torture(20_000, Arc::clone(&tally), move |ctx, user| {
        asked(client.clone(), ctx, user)
    })
    .await;
    let (answers, foreign, cancels) = tally.read();
    assert_eq!(foreign, 0);
    assert!(answers > 0 && cancels > 0, "{answers} {cancels}");
}

#[tokio::test]
async fn a_dead_node_is_an_error_for_its_keys_and_for_no_others() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let keys = keys(&client).await;
    for key in &keys {
        within(client.set(&ROOT, key, "v")).await.unwrap();
    }
    let pop = tokio::spawn({
        let (client, pop) = (client.clone(), blpop(&format!("{{{}}}", keys[1]), 0.0));
        async move { client.cmd::<redis::Value>(&ROOT, &pop).await }
    });
    until_blocked(&watchers(&cluster)[1], 1).await;
    cluster.nodes()[1].kill();
    let error = within(pop).await.unwrap().unwrap_err();
    assert!(
        error.is_connection() && error.is_in_doubt(),
        "what it had taken is unknown: {error}"
    );
    let in_vain = || {
        let failed = || client.statistics().connect_failed;
        let before = failed();
        move || failed() > before
    };
    for _ in 0..2 {
        // Each is given up when it has tried to connect in vain. The first may find the dead connection; later ones find
        // none.
        let get = |ctx| client.get::<String>(ctx, &keys[1]);
        let error = cancelled_once(&ROOT.with_cancel(), in_vain(), get)
            .await
            .unwrap_err();
        assert!(error.is_canceled() || error.is_connection(), "{error}");
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(&keys[1]);
        let piped = |ctx| client.pipeline::<(String,)>(ctx, &pipeline);
        let error = cancelled_once(&ROOT.with_cancel(), in_vain(), piped)
            .await
            .unwrap_err();
        assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
        let pop = blpop(&keys[1], 0.0);
        let popped = |ctx| client.cmd::<()>(ctx, &pop);
        let error = cancelled_once(&ROOT.with_cancel(), in_vain(), popped)
            .await
            .unwrap_err();
        assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
    }
    let limited = at(&cluster).connect_limit(SOON).open().unwrap();
    let error = within(limited.get::<String>(&ROOT, &keys[1])).await.unwrap_err();
    assert!(!error.is_canceled() && !error.is_in_doubt(), "{error}");
    assert_eq!(error.step(), Step::Connecting);
    // The others serve until they notice; without the whole the cluster is down for all, by its own setting.
    cluster.nodes()[1].restart();
    for key in [&keys[0], &keys[2]] {
        assert_eq!(within(client.get::<String>(&ROOT, key)).await.unwrap(), "v");
    }
    within(client.set(&ROOT, &keys[1], "again")).await.unwrap();
    assert_eq!(
        within(client.get::<String>(&ROOT, &keys[1])).await.unwrap(),
        "again"
    );
}

/// Calls that have the time for it do not notice that a replica takes the place of its primary.
#[tokio::test]
async fn a_failover_is_waited_for() {
    let Some(cluster) = RedisCluster::start_or_leave_out(3, 1) else {
        return;
    };
    let client = at(&cluster).connect_limit(HANGS).open().unwrap();
    let keys = keys(&client).await;
    for key in &keys {
        within(client.set(&ROOT, key, "v")).await.unwrap();
    }
    eventually("it is replicated", || {
        (3..6).all(|place| size(&cluster, place) > 0)
    })
    .await;
    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();

    // Killed: who is on its connection at that instant is told; who comes later waits for the replica.
    cluster.nodes()[0].kill();
    if let Err(error) = within(client.get::<String>(&ROOT, &keys[0])).await {
        assert!(error.is_connection() && error.is_in_doubt(), "{error}");
    }
    let pop = blpop(&format!("{{{}}}", keys[0]), 0.05);
    let (value, popped) = within(async {
        tokio::join!(
            client.get::<String>(&ROOT, &keys[0]),
            client.cmd::<redis::Value>(&ROOT, &pop)
        )
    })
    .await;
    assert_eq!(value.unwrap(), "v");
    assert_eq!(popped.unwrap(), redis::Value::Nil);

    // Frozen: it does not even fail. Whoever waits on it is told once the cluster has given it up.
    let on_it = tokio::spawn({
        let (client, pop) = (client.clone(), blpop(&format!("{{{}}}", keys[1]), 0.0));
        async move { client.cmd::<redis::Value>(&ROOT, &pop).await }
    });
    until_blocked(&watchers(&cluster)[1], 1).await;
    cluster.nodes()[1].freeze();
    let plain = tokio::spawn({
        let (client, key) = (client.clone(), keys[1].clone());
        async move { client.get::<String>(&ROOT, key).await }
    });
    let answered = async {
        loop {
            let request = Context::background().with_timeout(SOON);
            match client.get::<String>(&request, &keys[1]).await {
                Ok(value) => return value,
                Err(error) => assert!(error.is_canceled() || error.is_connection(), "{error}"),
            }
        }
    };
    assert_eq!(within(answered).await, "v");
    for waiting in [
        within(plain).await.unwrap().map(drop),
        within(on_it).await.unwrap().map(drop),
    ] {
        let error = waiting.unwrap_err();
        assert!(error.is_connection() && error.is_in_doubt(), "{error}");
    }
    cluster.nodes()[1].thaw();

    // The subscription was at one of them: it is told if so, and hears again.
    let heard = async {
        loop {
            let publish = async {
                let publish = command("PUBLISH news a");
                loop {
                    within(client.cmd::<i64>(&ROOT, &publish)).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let message = tokio::select! {
                message = news.receive(&ROOT) => message,
                () = publish => unreachable!("it goes on for ever"),
            };
            match message {
                Ok(message) => return message.get_payload::<String>().unwrap(),
                Err(error) => assert!(error.is_connection(), "{error}"),
            }
        }
    };
    assert_eq!(within(heard).await, "a");
}

/// How many keys a node has.
fn size(cluster: &RedisCluster, place: usize) -> u64 {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(cluster.nodes()[place].address()).unwrap();
    socket.write_all(b"DBSIZE\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text.lines()
        .next()
        .unwrap()
        .trim_start_matches(':')
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_message_published_anywhere_is_heard_anywhere() {
    let Some((cluster, client)) = cluster() else {
        return;
    };
    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();
    for (place, watcher) in watchers(&cluster).iter().enumerate() {
        let publish = command(&format!("PUBLISH news {place}"));
        let heard = async {
            loop {
                within(watcher.cmd::<i64>(&ROOT, &publish)).await.unwrap();
                // What is published while two nodes have no connection to each other, as in their first moments, is lost.
                let soon = Context::background().with_timeout(SOON);
                match news.receive(&soon).await {
                    Ok(message) if message.get_payload::<usize>().unwrap() == place => return,
                    Ok(_of_a_former_place) => {}
                    Err(error) => assert!(error.is_canceled(), "{error}"),
                }
            }
        };
        within(heard).await;
    }
    let nothing_more = async {
        loop {
            let soon = Context::background().with_timeout(SOON);
            if let Err(error) = news.receive(&soon).await {
                return error;
            }
        }
    };
    let error = within(nothing_more).await;
    assert!(error.is_canceled() && error.step() == Step::Receiving, "{error}");
}

/// A cluster of one node that is reached through a proxy, and the proxy.
async fn through_a_proxy() -> Option<(RedisCluster, Client, Proxy)> {
    let cluster = RedisCluster::start_or_leave_out(1, 0)?;
    let near = patient(&cluster.nodes()[0]).open().unwrap();
    let proxy = Proxy::start(cluster.nodes()[0].address()).await.unwrap();
    let announce = command(&format!(
        "CONFIG SET cluster-announce-port {}",
        proxy.address().port()
    ));
    within(near.cmd::<()>(&ROOT, &announce)).await.unwrap();
    Some((cluster, near, proxy))
}

/// Loses the answer to the `INCR` that has been sent: the network swallows it, and then breaks.
async fn lose_the_answer(near: &Client, proxy: &Proxy) {
    let has_run = async {
        while within(near.get::<Option<i64>>(&ROOT, "n")).await.unwrap() != Some(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(has_run).await;
    let accepted = proxy.accepted();
    proxy.reset();
    // Who connects anew has seen the end of the old one.
    let is_over = || proxy.open() == 0 || proxy.accepted() > accepted;
    eventually("the connections are gone", is_over).await;
    proxy.both(Faults::none());
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_run_once_and_in_doubt() {
    let Some((cluster, near, proxy)) = through_a_proxy().await else {
        return;
    };
    let client = Client::open_cluster([cluster.nodes()[0].url_through(proxy.address())]).unwrap();
    within(client.set(&ROOT, "k", "v")).await.unwrap();
    proxy.to_client(Faults::none().black_hole());
    let increment = command("INCR n");
    let (answer, ()) = tokio::join!(
        within(client.cmd::<i64>(&ROOT, &increment)),
        lose_the_answer(&near, &proxy)
    );
    let error = answer.unwrap_err();
    assert!(error.is_connection() && error.is_in_doubt(), "{error}");
    // The client is whole, and has not repeated itself.
    assert_eq!(within(client.get::<i64>(&ROOT, "n")).await.unwrap(), 1);
}

#[tokio::test]
async fn control_the_drivers_cluster_runs_a_command_twice() {
    let Some((cluster, near, proxy)) = through_a_proxy().await else {
        return;
    };
    let driver = redis::cluster::ClusterClientBuilder::new([cluster.nodes()[0].url_through(proxy.address())]);
    let driver = driver.response_timeout(HANGS).build().unwrap();
    let mut connection = within(driver.get_async_connection()).await.unwrap();
    within(command("SET k v").query_async::<()>(&mut connection))
        .await
        .unwrap();
    proxy.to_client(Faults::none().black_hole());
    let increment = command("INCR n");
    let (answer, ()) = tokio::join!(
        within(increment.query_async::<i64>(&mut connection)),
        lose_the_answer(&near, &proxy)
    );
    assert_eq!(answer.unwrap(), 2, "it was told of one, and did two");
}
