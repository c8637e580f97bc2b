//! Servers that were given: nothing is left in them, and a signal ends the run with the figures so far.

use std::process::{Command, Stdio};
use std::time::Duration;

use bequest::Context;
use bequest_postgres::Database;
use bequest_redis::{Client, redis};
use bequest_test::servers::{Postgres, Redis};
use tokio::runtime::Runtime;

use crate::Torture;

#[test]
fn nothing_is_left_in_a_database_that_was_given() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let mut torture = Torture::of("transactions", "0.02");
    torture
        .command
        .args(["--seed", "17", "--database", &server.url()]);
    let (output, written) = torture.play().expect("the server is there");
    assert_eq!(
        (&written["seed"], &written["stopped"]),
        (&17.into(), &false.into())
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("--seed 17"), "it says how to repeat it: {said}");
    Runtime::new().unwrap().block_on(async {
        let ctx = Context::background();
        let db = Database::open(&ctx, &server.url()).await.unwrap();
        let sql = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bequest%'";
        let left = db.query_one(&ctx, sql, &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 0);
    });
}

/// The numbers of a run that would take minutes, after Ctrl-C.
#[test]
fn a_signal_ends_it_with_the_figures_so_far() {
    let Some(server) = Redis::start_or_leave_out() else {
        return;
    };
    let mut torture = Torture::of("foreign-redis", "10");
    torture.command.args(["--cache", &server.url()]);
    let child = torture
        .command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the binary runs");
    let runtime = Runtime::new().unwrap();
    let client = Client::open(server.url()).unwrap();
    runtime.block_on(until_it_asks(&client));

    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.expect("kill is there").success());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("so far"), "{said}");

    let written = torture.written();
    assert_eq!(written["stopped"], true, "{written:#}");
    let here = &written["scenes"][0]["figures"]["here"];
    assert_eq!(here["foreign"], 0);
    assert!(
        here["answers"].as_u64().is_some_and(|answers| answers > 0),
        "{written:#}"
    );
    let left: Vec<String> = runtime
        .block_on(client.cmd(&Context::background(), redis::cmd("KEYS").arg("*")))
        .unwrap();
    assert_eq!(left, [""; 0], "the keys are removed");
}

/// Waits until the server has answered a thousand questions.
async fn until_it_asks(client: &Client) {
    let limit = Context::background().with_timeout(Duration::from_secs(60));
    loop {
        let about: String = client
            .cmd(&limit, redis::cmd("INFO").arg("commandstats"))
            .await
            .expect("it never asks");
        let gets = about.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_get:calls=")?;
            calls.split(',').next()?.parse::<u64>().ok()
        });
        if gets.is_some_and(|gets| gets > 1_000) {
            return;
        }
        limit
            .sleep(Duration::from_millis(10))
            .await
            .expect("it never asks");
    }
}
