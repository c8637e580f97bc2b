//! What every test here uses: a private server, a client of it, and waiting by condition.
#![allow(dead_code)] // each test binary uses a part

pub(crate) mod answers;
pub(crate) mod jobs;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bequest::{CancelScope, Context};
use bequest_redis::{Client, Options, redis};
use bequest_test::servers::Redis;

/// The context of whoever has nothing to do with the cancel.
pub(crate) static ROOT: Context = Context::background();

/// A test that takes this long hangs.
pub(crate) const HANGS: Duration = Duration::from_secs(20);

/// A private server and a client of it, or `None` where there is no server.
pub(crate) fn redis() -> Option<(Redis, Client)> {
    let server = Redis::start_or_leave_out()?;
    let client = patient(&server).open().unwrap();
    Some((server, client))
}

/// Settings with which a busy machine alone brings nothing in doubt.
pub(crate) fn patient(server: &Redis) -> Options {
    Options::new(server.url()).grace(HANGS).unblock_limit(HANGS)
}

/// A command, as one would type it.
pub(crate) fn command(text: &str) -> redis::Cmd {
    let mut words = text.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd
}

/// `BLPOP list timeout`.
pub(crate) fn blpop(list: &str, timeout: f64) -> redis::Cmd {
    redis::cmd("BLPOP").arg(list).arg(timeout).take()
}

/// Pushes `element` to the right end, as a user of its own.
pub(crate) async fn push(client: &Client, list: &str, element: impl redis::ToSingleRedisArg) -> i64 {
    let mut rpush = redis::cmd("RPUSH");
    rpush.arg(list).arg(element);
    within(client.cmd(&ROOT, &rpush)).await.unwrap()
}

/// What the list holds, from left to right.
pub(crate) async fn list(client: &Client, list: &str) -> Vec<String> {
    let mut lrange = redis::cmd("LRANGE");
    lrange.arg(list).arg(0).arg(-1);
    within(client.cmd(&ROOT, &lrange)).await.unwrap()
}

/// How many clients the server holds blocked.
pub(crate) async fn blocked(client: &Client) -> usize {
    let info: String = within(client.cmd(&ROOT, redis::cmd("INFO").arg("clients")))
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("blocked_clients:"));
    line.unwrap().trim().parse().unwrap()
}

/// Waits until the server holds `count` clients blocked.
pub(crate) async fn until_blocked(client: &Client, count: usize) {
    let blocks = async {
        while blocked(client).await != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(blocks).await;
}

/// The server's monitor: how often it has run a command of this name.
pub(crate) async fn calls(client: &Client, name: &str) -> u64 {
    let info: String = within(client.cmd(&ROOT, redis::cmd("INFO").arg("commandstats")))
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// All kinds of calls are answered, and nothing is left over.
pub(crate) async fn is_whole(client: &Client) {
    within(client.settle(&ROOT)).await.unwrap();
    within(client.set(&ROOT, "k", "v")).await.unwrap();
    assert_eq!(within(client.get::<String>(&ROOT, "k")).await.unwrap(), "v");
    within(client.del(&ROOT, "jobs")).await.unwrap();
    push(client, "jobs", "a").await;
    let job: (String, String) = within(client.cmd(&ROOT, &blpop("jobs", 0.0))).await.unwrap();
    assert_eq!(job.1, "a");
    push(client, "jobs", "b").await;
    assert_eq!(list(client, "jobs").await, ["b"], "no pop is left on the server");
    let blocking = client.statistics().blocking;
    assert_eq!((blocking.running, blocking.lost), (0, 0), "{blocking:?}");
}

/// `future`, which does not hang.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANGS, future).await.expect("it hangs")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// The answer of `call` to a context that is cancelled as soon as `condition` holds, in the same breath: before anything else
/// can happen.
pub(crate) async fn cancelled_once<'a, F: Future>(
    scope: &'a CancelScope,
    condition: impl Fn() -> bool,
    call: impl FnOnce(&'a Context) -> F,
) -> F::Output {
    let mut call = pin!(call(scope));
    let answer = poll_fn(|task| {
        let polled = call.as_mut().poll(task);
        if polled.is_pending() && condition() {
            scope.cancel();
        }
        polled
    });
    within(answer).await
}

/// Small numbers without a pattern, the same for the same seed: an xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
