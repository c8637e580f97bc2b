//! A private Redis cluster: several servers that share the slots among them.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{self, StartError};
use super::redis::Redis;

/// How many slots a cluster has.
const SLOTS: usize = 16384;
/// How long nodes may take to find to each other.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// After how long of silence a node counts as gone. Long enough for a busy machine, short enough for a test.
const NODE_TIMEOUT: &str = "2000";

/// A private Redis cluster on loopback, gone when it is dropped.
///
/// Its primaries share the slots evenly, in order; each may have replicas, which take its place some seconds after it
/// has gone. It is put together by commands to the servers alone, and needs no other program. It wants Redis 7.
///
/// # Example
///
/// ```
/// use bequest_test::servers::RedisCluster;
///
/// let Some(cluster) = RedisCluster::start_or_leave_out(3, 0) else { return };
/// assert_eq!(cluster.nodes().len(), 3);
/// assert_eq!(cluster.primary_of(0).address(), cluster.nodes()[0].address());
/// assert_eq!(cluster.primary_of(16383).address(), cluster.nodes()[2].address());
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    /// The primaries first.
    nodes: Vec<Redis>,
    primaries: usize,
}

impl RedisCluster {
    /// Starts `primaries` servers with `replicas` others for each, and waits until they are one cluster.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`], or if they do not come together.
    ///
    /// # Panics
    ///
    /// Without primaries.
    pub fn start(primaries: usize, replicas: usize) -> Result<RedisCluster, StartError> {
        assert!(primaries > 0, "a cluster has a primary");
        let nodes: Result<Vec<_>, _> = (0..primaries * (1 + replicas)).map(|_| node()).collect();
        let cluster = RedisCluster {
            nodes: nodes?,
            primaries,
        };
        cluster.share_slots()?;
        cluster.introduce()?;
        cluster.replicate(replicas)?;
        cluster.until_whole(&cluster.nodes)?;
        Ok(cluster)
    }

    /// Starts a cluster, or says on the standard error stream that the server is not installed.
    ///
    /// # Panics
    ///
    /// As [`Redis::start_or_leave_out`].
    pub fn start_or_leave_out(primaries: usize, replicas: usize) -> Option<RedisCluster> {
        error::or_leave_out(
            "what needs a Redis cluster",
            RedisCluster::start(primaries, replicas),
        )
    }

    /// Its servers: the primaries in the order of their slots, then the replicas, in the order of their primaries.
    /// What was begun as a replica may be a primary by now.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Their URLs.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The server that was given `slot` at the start.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    pub fn primary_of(&self, slot: u16) -> &Redis {
        let place = (0..self.primaries).find(|place| self.range(*place).contains(&usize::from(slot)));
        &self.nodes[place.expect("a slot below 16384")]
    }

    /// The first of the replicas that `node` was given at the start, by their places in [`nodes`](RedisCluster::nodes).
    ///
    /// # Panics
    ///
    /// If it was given none.
    pub fn replica_of(&self, node: usize) -> &Redis {
        &self.nodes[self.primaries + node * (self.nodes.len() - self.primaries) / self.primaries]
    }

    /// Begins to move `slot` from one of its nodes to another: from here on the first sends clients to the second for
    /// keys that it does not have (`ASK`), until [`finish_move`](RedisCluster::finish_move). The keys stay where they are.
    ///
    /// # Panics
    ///
    /// If a node does not answer or refuses.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.must(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.must(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
    }

    /// Ends a move: takes what keys are left, whose names must have no spaces, to the second node; the first sends clients
    /// there for good (`MOVED`).
    ///
    /// # Panics
    ///
    /// If a node does not answer or refuses.
    pub fn finish_move(&self, slot: u16, from: usize, to: usize) {
        let target = self.id(to);
        let port = self.nodes[to].ports().plain;
        loop {
            let left = self.nodes[from].tell(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
            let left = left.expect("the node answers");
            // A count, and then a length before each name.
            let keys: Vec<&str> = left.lines().skip(2).step_by(2).collect();
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let migrate = format!("MIGRATE 127.0.0.1 {port} {key} 0 5000");
                let answer = self.nodes[from].tell(&migrate).expect("the node answers");
                // It may be gone by now: a list that was popped empty.
                let is_done = answer.starts_with("+OK") || answer.starts_with("+NOKEY");
                assert!(is_done, "{migrate}: {answer}");
            }
        }
        // In this order there is always one who has it.
        for node in [to, from] {
            self.must(node, &format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
        // A second move before all have heard of the first could be undone by the one who has not.
        let said = self.nodes[to].tell("CLUSTER NODES").expect("the node answers");
        let own = claim(&said, &target);
        until(&self.nodes, "CLUSTER NODES", |text| claim(text, &target) == own)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Hands each primary its slots, and a number by which it can be told from the others from the beginning.
    fn share_slots(&self) -> Result<(), StartError> {
        for place in 0..self.primaries {
            let range = self.range(place);
            let slots = format!("CLUSTER ADDSLOTSRANGE {} {}", range.start(), range.end());
            ok(&self.nodes[place], &slots)?;
        }
        for (place, node) in self.nodes.iter().enumerate() {
            ok(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1))?;
        }
        Ok(())
    }

    /// Tells all nodes of the first, and waits until each knows each.
    fn introduce(&self) -> Result<(), StartError> {
        let first = self.nodes[0].ports();
        for node in &self.nodes[1..] {
            ok(
                node,
                &format!("CLUSTER MEET 127.0.0.1 {} {}", first.plain, first.other),
            )?;
        }
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        until(&self.nodes, "CLUSTER INFO", |text| {
            text.contains(&known) && text.contains("cluster_state:ok")
        })
    }

    fn replicate(&self, replicas: usize) -> Result<(), StartError> {
        for (number, node) in self.nodes[self.primaries..].iter().enumerate() {
            let primary = self.id(number / replicas);
            // It must have heard of its primary; the others' word may come later than ours.
            until(
                std::slice::from_ref(node),
                &format!("CLUSTER REPLICATE {primary}"),
                |text| text.starts_with("+OK"),
            )?;
        }
        until(&self.nodes[self.primaries..], "INFO replication", |text| {
            text.contains("master_link_status:up")
        })
    }

    /// Waits until each of `nodes` sees the whole cluster, with all its replicas.
    fn until_whole(&self, nodes: &[Redis]) -> Result<(), StartError> {
        let count = self.nodes.len() - self.primaries;
        until(nodes, "CLUSTER NODES", |text| {
            text.matches(" slave ").count() + text.matches("myself,slave ").count() == count
        })?;
        until(nodes, "CLUSTER INFO", |text| text.contains("cluster_state:ok"))
    }

    fn range(&self, place: usize) -> RangeInclusive<usize> {
        let first = |place| SLOTS * place / self.primaries;
        first(place)..=first(place + 1) - 1
    }

    fn id(&self, place: usize) -> String {
        let text = self.nodes[place].tell("CLUSTER MYID").expect("the node answers");
        text.lines().nth(1).expect("an id").to_owned()
    }

    fn must(&self, place: usize, command: &str) {
        ok(&self.nodes[place], command).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn node() -> Result<Redis, StartError> {
    Redis::start_with(|ports, _| {
        let port = ports.other.to_string();
        let settings = [
            ("--cluster-enabled", "yes"),
            ("--cluster-config-file", "nodes.conf"),
            ("--cluster-port", &port),
            ("--cluster-node-timeout", NODE_TIMEOUT),
            // Whoever replicates may be chosen, however long it has heard nothing.
            ("--cluster-replica-validity-factor", "0"),
            ("--cluster-allow-replica-migration", "no"),
            ("--repl-diskless-sync-delay", "0"),
            ("--repl-ping-replica-period", "1"),
        ];
        Ok(settings
            .iter()
            .flat_map(|(name, value)| [name.into(), value.into()])
            .collect())
    })
}

/// The age of what `id` claims, and its slots, in what a node says of all.
fn claim<'a>(nodes: &'a str, id: &str) -> Vec<&'a str> {
    let line = nodes
        .lines()
        .find(|line| line.starts_with(id))
        .unwrap_or_default();
    line.split(' ')
        .skip(6)
        .filter(|word| *word != "connected")
        .collect()
}

/// Tells `node` something that it is to agree to.
fn ok(node: &Redis, command: &str) -> Result<(), StartError> {
    let answer = node
        .tell(command)
        .map_err(|error| StartError::system("asking a node", error))?;
    if answer.starts_with("+OK") {
        return Ok(());
    }
    Err(StartError::refused(format!("{command}: {}", answer.trim_end())))
}

/// Asks each of `nodes` until its answer is as it should be.
fn until(nodes: &[Redis], command: &str, is_so: impl Fn(&str) -> bool) -> Result<(), StartError> {
    let deadline = Instant::now() + LIMIT;
    for node in nodes {
        loop {
            let answer = node.tell(command).unwrap_or_default();
            if is_so(&answer) {
                break;
            }
            if Instant::now() > deadline {
                return Err(StartError::refused(format!("{command}: {}", answer.trim_end())));
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}
