//! What is said at the beginning of a connection: login, database, protocol, name. Every kind of connection says it.

mod common;

use bequest::Context;
use bequest_redis::{Client, Options, Step, redis};
use common::{HANGS, ROOT, blpop, command, is_whole, list, push, redis, until_blocked, within};

/// A command blocks and is ended, and a message is heard.
async fn blocks_and_hears(client: &Client) {
    let request = Context::background().with_cancel();
    let pop = tokio::spawn({
        let (client, ctx) = (client.clone(), request.context());
        async move { client.cmd::<redis::Value>(&ctx, &blpop("other", 0.0)).await }
    });
    until_blocked(client, 1).await;
    request.cancel();
    let error = within(pop).await.unwrap().unwrap_err();
    assert!(error.is_canceled() && !error.is_in_doubt(), "{error}");
    let mut news = within(client.subscribe(&ROOT, ["news"])).await.unwrap();
    let publish = command("PUBLISH news a");
    assert_eq!(within(client.cmd::<i64>(&ROOT, &publish)).await.unwrap(), 1);
    assert_eq!(
        within(news.receive(&ROOT)).await.unwrap().get_payload_bytes(),
        b"a"
    );
}

#[tokio::test]
async fn a_user_a_password_and_a_database_hold_for_every_connection() {
    let Some((server, admin)) = redis() else { return };
    let user = command("ACL SETUSER ana on >secret ~* &* +@all");
    within(admin.cmd::<()>(&ROOT, &user)).await.unwrap();
    let url = |password| format!("redis://ana:{password}@{}/3", server.address());
    let client = Options::new(url("secret"))
        .grace(HANGS)
        .unblock_limit(HANGS)
        .open()
        .unwrap();
    is_whole(&client).await;
    blocks_and_hears(&client).await;
    within(client.set(&ROOT, "here", 1)).await.unwrap();
    assert_eq!(
        within(admin.get::<Option<i64>>(&ROOT, "here")).await.unwrap(),
        None
    );
    let users: String = within(admin.cmd(&ROOT, &command("CLIENT LIST"))).await.unwrap();
    assert!(
        users.matches("user=ana").count() >= 3 && users.contains("db=3"),
        "{users}"
    );

    // A wrong one stays wrong: at once, and nobody reads it in an error.
    let stranger = Options::new(url("guessed"))
        .connect_limit(2 * HANGS)
        .open()
        .unwrap();
    let errors = [
        within(stranger.get::<String>(&ROOT, "k")).await.unwrap_err(),
        within(stranger.cmd::<()>(&ROOT, &blpop("k", 0.0)))
            .await
            .unwrap_err(),
        within(stranger.subscribe(&ROOT, ["news"])).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            (error.step(), error.is_in_doubt()),
            (Step::Connecting, false),
            "{error}"
        );
        assert!(
            !error.is_connection() && !format!("{error} {error:?}").contains("guessed"),
            "{error}"
        );
    }
    assert!(!format!("{stranger:?}").contains("guessed"), "{stranger:?}");
}

#[tokio::test]
async fn resp_3_is_spoken_as_well() {
    let Some((server, _)) = redis() else { return };
    let url = format!("{}?protocol=resp3", server.url());
    let client = Options::new(url)
        .grace(HANGS)
        .unblock_limit(HANGS)
        .open()
        .unwrap();
    is_whole(&client).await;
    blocks_and_hears(&client).await;
    let hash: redis::Value = {
        within(client.cmd::<()>(&ROOT, &command("HSET h a 1")))
            .await
            .unwrap();
        within(client.cmd(&ROOT, &command("HGETALL h"))).await.unwrap()
    };
    assert!(matches!(hash, redis::Value::Map(_)), "it is RESP 3: {hash:?}");
    // Scores come as numbers, and go back as such.
    within(client.cmd::<()>(&ROOT, &command("ZADD z 1.5 m")))
        .await
        .unwrap();
    let popped: (String, String, f64) = within(client.cmd(&ROOT, &command("BZPOPMIN z 0"))).await.unwrap();
    assert_eq!(popped, ("z".into(), "m".into(), 1.5));
    push(&client, "l", "a").await;
    assert_eq!(list(&client, "l").await, ["a"]);
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("INCR").arg("n").cmd("INCR").arg("n");
    assert_eq!(
        within(client.pipeline::<(i64, i64)>(&ROOT, &transaction))
            .await
            .unwrap(),
        (1, 2)
    );
}

#[tokio::test]
async fn connections_bear_the_name_that_was_chosen() {
    let Some((server, admin)) = redis() else { return };
    let client = Options::new(server.url()).client_name("orders").open().unwrap();
    is_whole(&client).await;
    let all: String = within(admin.cmd(&ROOT, &command("CLIENT LIST"))).await.unwrap();
    // The shared one, one for blocking commands, and the one by which those are ended.
    assert_eq!(all.matches("name=orders ").count(), 3, "{all}");
    for name in ["", "two words", "line\nbreak", "é"] {
        let error = Options::new(server.url()).client_name(name).open().unwrap_err();
        assert_eq!(error.step(), Step::Connecting, "{error}");
    }
}

/// A script that the server has forgotten is told again.
#[tokio::test]
async fn a_forgotten_script_is_told_again() {
    let Some((_server, client)) = redis() else { return };
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    for expected in 1..=3 {
        let number: i64 = within(client.script(&ROOT, &script.key("n"))).await.unwrap();
        assert_eq!(number, expected);
        within(client.cmd::<()>(&ROOT, &command("SCRIPT FLUSH")))
            .await
            .unwrap();
    }
}
