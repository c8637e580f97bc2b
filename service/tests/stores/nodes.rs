//! Two nodes on one database and one cache: what is ended on one is ended on the other, whatever happens to the cache.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use bequest_test::servers::Redis;

use crate::servers::Stores;
use crate::support::client::Client;
use crate::support::instance::{Folder, Instance, command};
use crate::support::until;
use crate::{BINARY, SESSION, ask, me, session};

/// Rounds of the race; `BEQUEST_TEST_ROUNDS` for figures.
fn rounds() -> usize {
    let given = std::env::var("BEQUEST_TEST_ROUNDS").ok();
    given.map_or(40, |rounds| rounds.parse().expect("a number"))
}

const READERS: usize = 8;
/// Reads of each reader that begin after the logout.
const PROBES: usize = 6;

#[test]
fn nobody_is_signed_in_after_a_logout_whoever_races_it() {
    let Some(stores) = Stores::new() else { return };
    let start = || {
        Instance::start(
            BINARY,
            &[&stores.flags()[..], &["--session-ttl", "50ms"]].concat(),
        )
    };
    let nodes = [start(), start()];
    let (mut probes, mut accepted) = (0, 0);
    for _ in 0..rounds() {
        let id = session(&nodes[0], "ann");
        let (begun, over) = (Barrier::new(READERS + 1), AtomicBool::new(false));
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for reader in 0..READERS {
                let addr = nodes[reader % 2].public;
                let (id, begun, over, counts) = (&id, &begun, &over, &counts);
                scope.spawn(move || {
                    let mut client = Client::connect(addr).unwrap();
                    begun.wait();
                    let mut left = PROBES;
                    while left > 0 {
                        let began_after = over.load(Ordering::SeqCst);
                        client.send("GET", "/me", &[(SESSION, id)]).unwrap();
                        let status = client.answer().unwrap().status;
                        assert!(status == 200 || status == 403, "{status}");
                        if began_after {
                            left -= 1;
                            counts[0].fetch_add(1, Ordering::SeqCst);
                            counts[1].fetch_add(u64::from(status == 200), Ordering::SeqCst);
                        }
                    }
                });
            }
            begun.wait();
            let ended = ask(&nodes[0], "DELETE", "/sessions/current", &[(SESSION, &id)]);
            assert_eq!(ended.json()["holds"], "at once");
            over.store(true, Ordering::SeqCst);
        });
        probes += counts[0].load(Ordering::SeqCst);
        accepted += counts[1].load(Ordering::SeqCst);
    }
    eprintln!(
        "{accepted} accepted of {probes} reads after the logout, in {} rounds",
        rounds()
    );
    // The control, a cache without tombstones, is a scene of `bequest torture sessions` on the same servers.
    assert_eq!(accepted, 0);
}

#[test]
fn what_one_node_begins_and_ends_the_other_knows() {
    let Some(stores) = Stores::new() else { return };
    let start = || Instance::start(BINARY, &stores.flags());
    let (one, other) = (start(), start());
    let (first, second) = (session(&one, "ann"), session(&other, "ann"));
    for node in [&one, &other] {
        assert_eq!((me(node, &first), me(node, &second)), (200, 200));
    }
    let all = ask(&other, "DELETE", "/sessions", &[(SESSION, &second)]);
    assert_eq!(
        (&all.json()["ended"], &all.json()["holds"]),
        (&2.into(), &"at once".into())
    );
    for node in [&one, &other] {
        assert_eq!((me(node, &first), me(node, &second)), (403, 403));
    }
}

#[test]
fn a_stopped_cache_stops_nobody() {
    let Some(stores) = Stores::new() else { return };
    let Some(redis) = Redis::start_or_leave_out() else {
        return;
    };
    let cache = redis.url();
    let start = || Instance::start(BINARY, &["--database", &stores.database, "--cache", &cache]);
    let nodes = [start(), start()];
    let id = session(&nodes[0], "ann");
    let (stop, phase) = (AtomicBool::new(false), AtomicU64::new(0));
    // Milliseconds, by phase: the cache is there, has stopped, is back.
    let took: [Mutex<Vec<f64>>; 3] = Default::default();
    let asked: u64 = thread::scope(|scope| {
        for reader in 0..READERS {
            let addr = nodes[reader % 2].public;
            let (id, stop, phase, took) = (&id, &stop, &phase, &took);
            scope.spawn(move || {
                let mut client = Client::connect(addr).unwrap();
                while !stop.load(Ordering::SeqCst) {
                    let (phase, begun) = (phase.load(Ordering::SeqCst), Instant::now());
                    client.send("GET", "/me", &[(SESSION, id)]).unwrap();
                    let answer = client.answer().unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    let took = &took[usize::try_from(phase).unwrap()];
                    took.lock().unwrap().push(begun.elapsed().as_secs_f64() * 1e3);
                }
            });
        }
        let hits = || -> u64 {
            let hits = nodes
                .iter()
                .map(|node| node.metric("bequest_session_cache_hits_total"));
            hits.sum()
        };
        let fails = || -> u64 {
            let fails = nodes
                .iter()
                .map(|node| node.metric("bequest_session_cache_failed_total"));
            fails.sum()
        };
        until("hits", || (hits() > 500).then_some(()));
        redis.freeze();
        phase.store(1, Ordering::SeqCst);
        // The control: who waits for the cache without a limit waits.
        let mut naive = TcpStream::connect(redis.address()).unwrap();
        naive.write_all(b"PING\r\n").unwrap();
        let failed = fails();
        until("many reads without a cache", || {
            (fails() > failed + 400).then_some(())
        });
        naive.set_nonblocking(true).unwrap();
        let waits = naive.read(&mut [0; 16]).unwrap_err();
        assert_eq!(waits.kind(), ErrorKind::WouldBlock, "and waits");

        redis.thaw();
        phase.store(2, Ordering::SeqCst);
        let (back, before) = (Instant::now(), hits());
        until("hits again", || (hits() > before + 500).then_some(()));
        eprintln!("hits again {:?} after the cache was back", back.elapsed());
        stop.store(true, Ordering::SeqCst);
        fails() - failed
    });
    assert!(asked > 400);
    for (phase, took) in ["there", "stopped", "back"].iter().zip(&took) {
        let mut took = took.lock().unwrap();
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        eprintln!(
            "cache {phase}: {} reads, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            took.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[test]
fn a_logout_without_a_cache_says_so_and_holds_on_the_database() {
    let Some(stores) = Stores::new() else { return };
    let Some(redis) = Redis::start_or_leave_out() else {
        return;
    };
    let cache = redis.url();
    let start = || Instance::start(BINARY, &["--database", &stores.database, "--cache", &cache]);
    let (one, other) = (start(), start());
    let id = session(&one, "ann");
    assert_eq!(me(&other, &id), 200);
    redis.freeze();
    let ended = ask(&one, "DELETE", "/sessions/current", &[(SESSION, &id)]);
    assert_eq!(ended.json()["holds"], "within 1m0s", "{}", ended.body);
    assert_eq!(
        (me(&one, &id), me(&other, &id)),
        (403, 403),
        "the database is asked"
    );
    redis.thaw();
}

pub(crate) fn refused(flags: &[&str]) -> Output {
    let folder = Folder::new();
    let mut command = command(BINARY.as_ref());
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    let output = command
        .arg(folder.path().join("data"))
        .args(flags)
        .output()
        .unwrap();
    assert!(!output.status.success());
    output
}

#[test]
fn two_nodes_on_one_database_need_a_shared_cache() {
    let Some(stores) = Stores::new() else { return };
    let alone = ["--database", &stores.database];
    let shared = stores.flags();
    for (first, second) in [(&alone[..], &alone[..]), (&alone, &shared), (&shared, &alone)] {
        let mut running = Instance::start(BINARY, first);
        running.get("/me");
        let output = refused(second);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("another node uses it") && said.contains("shared cache"),
            "{said}"
        );
        running.signal("TERM");
        assert!(running.ended().success());
        let again = Instance::start(BINARY, second);
        assert_eq!(
            again.get("/me").status,
            403,
            "the first one is gone, and so is its claim"
        );
    }
}

/// Each with a cache that it shares with nobody: the same as none. A cache that was emptied is the same as before.
#[test]
fn two_nodes_on_one_database_need_the_same_cache() {
    let Some(stores) = Stores::new() else { return };
    let (Some(ours), Some(theirs)) = (Redis::start_or_leave_out(), Redis::start_or_leave_out()) else {
        return;
    };
    let (ours, theirs) = (ours.url(), theirs.url());
    let flags = |cache| ["--database", &stores.database, "--cache", cache];
    let one = Instance::start(BINARY, &flags(&ours));
    let id = session(&one, "ann");
    let output = refused(&flags(&theirs));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another node uses it with another cache"), "{said}");
    assert_eq!(me(&one, &id), 200);
    assert!(
        !one.logged().contains("a claim was lost"),
        "and nobody else noticed"
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = bequest_redis::Client::open(&*ours).unwrap();
        let ctx = bequest::Context::background();
        let flushed: String = client
            .cmd(&ctx, &bequest_redis::redis::cmd("FLUSHALL"))
            .await
            .unwrap();
        assert_eq!(flushed, "OK");
    });
    let other = Instance::start(BINARY, &flags(&ours));
    assert_eq!(me(&other, &id), 200);
    assert!(!one.logged().contains("a claim was lost"));
}

/// They began at the same moment, or while the server was away: each is told of the other, and neither believes its cache.
#[test]
fn nodes_that_find_out_later_that_they_share_no_cache_ask_the_database() {
    let Some(stores) = Stores::new() else { return };
    let node = Instance::start(BINARY, &stores.flags());
    let id = session(&node, "ann");
    assert_eq!(me(&node, &id), 200);
    let another = stores.claim_another_cache();
    let lost = node.event("a claim was lost");
    assert!(
        lost["details"]["claim"].as_str().unwrap().starts_with("Cache("),
        "{lost}"
    );
    stores.query(
        "UPDATE bequest.sessions SET revoked_at = 1, generation = generation + 1",
        &[],
    );
    assert_eq!(me(&node, &id), 403, "what was ended over there");
    drop(another);
    node.event("a claim is held again");
}

/// What is a node's own, the search's index, is in the folder too, and made by whoever is first.
#[test]
fn nodes_can_begin_at_once_in_one_folder() {
    const AT_ONCE: usize = 4;
    let Some(stores) = Stores::new() else { return };
    for _ in 0..3 {
        let folder = Folder::new();
        let begin = Barrier::new(AT_ONCE);
        let nodes: Vec<Instance> = thread::scope(|scope| {
            let start = || {
                let mut command = command(BINARY.as_ref());
                command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
                command.arg(folder.path().join("data")).args(stores.flags());
                begin.wait();
                let node = Instance::of(command);
                node.event("ready");
                node
            };
            let starting: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(start)).collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let id = session(&nodes[0], "ann");
        for node in &nodes {
            assert_eq!(node.get("/search?q=golang").json()["count"], 10);
            assert_eq!(me(node, &id), 200);
        }
    }
}

/// A claim that another node takes while ours could not hold it: the cache of its own is believed no more.
#[test]
fn a_node_that_lost_its_claim_asks_the_database() {
    let Some(stores) = Stores::new() else { return };
    let node = Instance::start(BINARY, &["--database", &stores.database]);
    let id = session(&node, "ann");
    assert_eq!(me(&node, &id), 200);
    // Ends the session of the server that holds the claim, and takes it in the same statement.
    let taken = stores.steal_claim();
    let lost = node.event("a claim was lost");
    assert_eq!(lost["details"]["claim"], "SessionsAlone");
    stores.query(
        "UPDATE bequest.sessions SET revoked_at = 1, generation = generation + 1",
        &[],
    );
    assert_eq!(me(&node, &id), 403, "what somebody else ended");
    drop(taken);
    node.event("a claim is held again");
}

#[test]
fn control_a_node_that_holds_its_claim_believes_its_cache() {
    let Some(stores) = Stores::new() else { return };
    let node = Instance::start(BINARY, &["--database", &stores.database]);
    let id = session(&node, "ann");
    stores.query(
        "UPDATE bequest.sessions SET revoked_at = 1, generation = generation + 1",
        &[],
    );
    assert_eq!(
        me(&node, &id),
        200,
        "for a minute, since nobody else may end sessions"
    );
}
