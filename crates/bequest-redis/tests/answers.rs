//! An answer reaches the one who asked, whoever else gives up: 64 workers, each asking for its own key, and a third of the
//! calls given up at a random instant. Beside it, a client that puts a connection back after a cancelled read.

mod common;

use std::sync::Arc;

use bequest::Context;
use bequest_redis::{Client, redis};
use common::answers::{Naive, Tally, asked, fill, name, torture};
use common::{HANGS, redis, within};

const CALLS: u64 = 20_000;

/// What became of the calls: answers, foreign answers, cancels.
async fn tortured<A, F>(ask: A) -> (u64, u64, u64)
where
    A: Fn(Context, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let tally = Arc::new(Tally::default());
    let work = torture(CALLS, Arc::clone(&tally), ask);
    tokio::time::timeout(HANGS * 3, work).await.expect("it hangs");
    tally.read()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_reaches_a_stranger() {
    let Some((_server, client)) = redis() else { return };
    within(fill(&client)).await;
    let (answers, foreign, cancels) = tortured(move |ctx, user| asked(client.clone(), ctx, user)).await;
    assert_eq!(foreign, 0, "of {answers} answers, with {cancels} cancels");
    assert!(
        cancels > CALLS / 10 && answers > CALLS / 4,
        "{answers} answers, {cancels} cancels"
    );
}

/// Pipelines, transactions and scripts are on the same connection, and are given up as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_a_pipeline_or_a_script_reaches_a_stranger() {
    let Some((_server, client)) = redis() else { return };
    within(fill(&client)).await;
    let (answers, foreign, cancels) = tortured(move |ctx, user| several(client.clone(), ctx, user)).await;
    assert_eq!(foreign, 0, "of {answers} answers, with {cancels} cancels");
    assert!(cancels > CALLS / 10, "{answers} answers, {cancels} cancels");
}

async fn several(client: Client, ctx: Context, user: u64) -> Option<String> {
    let mut twice = redis::pipe();
    twice.cmd("GET").arg(name(user)).cmd("GET").arg(name(user));
    let answer = match user % 3 {
        0 => both(client.pipeline(&ctx, &twice).await),
        1 => both(client.pipeline(&ctx, twice.atomic()).await),
        _ => {
            let script = redis::Script::new("return redis.call('GET', KEYS[1])");
            client.script(&ctx, &script.key(name(user))).await
        }
    };
    answer
        .inspect_err(|error| assert!(error.is_canceled(), "{error}"))
        .ok()
}

fn both(answer: Result<(String, String), bequest_redis::Error>) -> Result<String, bequest_redis::Error> {
    let (first, second) = answer?;
    assert_eq!(first, second);
    Ok(first)
}

/// A cancelled read leaves its reply on the connection; the next user of it is answered with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_naive_pool_hands_answers_to_strangers() {
    let Some((server, client)) = redis() else { return };
    within(fill(&client)).await;
    let naive = Naive::new(server.address());
    let (_, foreign, _) = tortured(move |ctx, user| naive.clone().asked(ctx, user)).await;
    assert!(foreign > 0);
}
