//! A cluster: which node has which slots, and how a command gets to the one that it concerns.
//!
//! What lives here: the picture that we have of the cluster and how it is renewed (this file), the slot of a key
//! ([`slot`]), the keys of a command ([`keys`]), the course of a call until a node has run it ([`route`]), how long that is
//! tried ([`effort`]), pipelines cut by node ([`pipeline`]), scripts ([`script`]), what nodes say instead of answers
//! ([`redirect`]). What does not: connections. Each node has those of a server of its own, [`Node`].
//!
//! # Invariants
//!
//! 1. A command is sent again only if a node has said that it did not run it, or if it was not sent at all. One whose answer
//!    is lost is never sent again by itself; the error says that it is in doubt.
//! 2. At most one renewal of the picture is under way, and it belongs to nobody: who asked for it may leave.
//! 3. Every wait of a call ends with its context, and all that it spends before a node has run it, together, with
//!    [`Options::connect_limit`](crate::Options::connect_limit).
//! 4. A node that the cluster does not name any more, and that is silent, is closed: nobody waits for it for ever.
//! 5. No lock is held across an await.

pub(crate) mod asking;
mod effort;
mod keys;
mod pipeline;
mod redirect;
mod route;
mod script;
mod slot;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ConnectionAddr, RedisError, RedisResult};
use tokio::runtime;
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::error::is_of_connection;
use crate::node::Node;
use crate::options::Settings;
use crate::retry::delay;
use crate::statistics::Counters;
use slot::{Address, Range, Slot};

/// How many nodes are asked at the same time who has which slots.
const ASKED: usize = 3;
/// The least time from one renewal to the next.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    /// Where the cluster is looked for at first, and when all known nodes are silent. The first also says how one logs in.
    seeds: Vec<Arc<Node>>,
    settings: Settings,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// Whose turn it is, for what anybody can do.
    turn: AtomicUsize,
    me: Weak<Cluster>,
}

/// Guarded by its lock.
#[derive(Default)]
struct State {
    picture: Arc<Picture>,
    /// The nodes of the picture, and those to which a node has sent us meanwhile.
    nodes: HashMap<Address, Arc<Node>>,
    renewing: Option<Renewal>,
    /// Renewals that have failed since the last one that did not.
    failures: u32,
    renewed: Option<Instant>,
}

/// The result of a renewal, once there is one.
type Renewal = watch::Receiver<Option<RedisResult<()>>>;

/// Who has which slots, as the cluster last said.
#[derive(Default)]
pub(crate) struct Picture {
    /// In order, and disjoint.
    ranges: Vec<(Slot, Slot, usize)>,
    nodes: Vec<Arc<Node>>,
}

impl Cluster {
    /// A cluster that is found at `seeds`, of which there is at least one. Nothing is sent.
    pub(crate) fn new(seeds: Vec<Endpoint>, settings: Settings, counters: Arc<Counters>) -> Arc<Cluster> {
        Arc::new_cyclic(|me| Cluster {
            seeds: seeds
                .into_iter()
                .map(|seed| Arc::new(Node::new(seed, &settings, &counters, Weak::clone(me))))
                .collect(),
            settings,
            counters,
            state: Mutex::default(),
            turn: AtomicUsize::new(0),
            me: Weak::clone(me),
        })
    }

    /// Where it is looked for first.
    pub(crate) fn address(&self) -> &ConnectionAddr {
        self.seeds[0].endpoint.address()
    }

    /// Its nodes, as it last said.
    pub(crate) fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.state().picture)
    }

    /// Connections for blocking commands that wait for one.
    pub(crate) fn idle(&self) -> usize {
        let nodes: Vec<_> = self.state().nodes.values().map(Arc::clone).collect();
        let all = nodes.iter().chain(&self.seeds);
        all.map(|node| node.pool.idle()).sum()
    }

    /// Where one of the nodes is, another one each time.
    pub(crate) async fn any_endpoint(self: &Arc<Self>) -> RedisResult<Arc<Endpoint>> {
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let picture = self.picture();
            if let Some(place) = turn.checked_rem(picture.nodes.len()) {
                return Ok(Arc::clone(&picture.nodes[place].endpoint));
            }
            self.renewed().await?;
        }
    }

    /// The node at `address`, whether or not the cluster has named it.
    fn node(&self, address: &Address) -> Arc<Node> {
        let mut state = self.state();
        Arc::clone(self.node_in(&mut state, address))
    }

    fn node_in<'a>(&self, state: &'a mut State, address: &Address) -> &'a Arc<Node> {
        state.nodes.entry(address.clone()).or_insert_with(|| {
            let endpoint = self.seeds[0].endpoint.at(&address.host, address.port);
            Arc::new(Node::new(
                endpoint,
                &self.settings,
                &self.counters,
                Weak::clone(&self.me),
            ))
        })
    }

    /// Has the picture renewed, in the background.
    pub(crate) fn renew(self: &Arc<Self>) {
        if runtime::Handle::try_current().is_ok() {
            drop(self.renewing());
        }
    }

    /// Waits for the renewal that is under way, or for one begun now.
    async fn renewed(self: &Arc<Self>) -> RedisResult<()> {
        let mut renewing = self.renewing();
        let renewed = renewing.wait_for(Option::is_some).await;
        renewed.ok().and_then(|result| result.clone()).unwrap_or_else(|| {
            // The task that was renewing is gone, and its runtime with it.
            Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into())
        })
    }

    fn renewing(self: &Arc<Self>) -> Renewal {
        let mut state = self.state();
        if let Some(renewing) = &state.renewing {
            return renewing.clone();
        }
        let (tell, renewing) = watch::channel(None);
        state.renewing = Some(renewing.clone());
        let since = state.renewed.map_or(PAUSE, |renewed| renewed.elapsed());
        let pause = delay(state.failures).max(PAUSE.saturating_sub(since));
        drop(state);
        let (cluster, over) = (Arc::clone(self), Over(Arc::clone(self)));
        tokio::spawn(async move {
            let _over = over;
            tokio::time::sleep(pause).await;
            let result = cluster.ask().await;
            // Nobody may be waiting any more; the picture is renewed all the same.
            tell.send_replace(Some(cluster.learn(result)));
        });
        renewing
    }

    /// Asks some nodes at a time until one knows who has which slots.
    async fn ask(&self) -> RedisResult<Vec<Range>> {
        let question = redis::cmd("CLUSTER").arg("SLOTS").take();
        let mut last = None;
        for some in self.candidates().chunks(ASKED) {
            let asked = some.iter().map(|node| async {
                let reply = node.ask(&question).await?;
                slot::parse(reply, host(&node.endpoint))
            });
            let mut answers: FuturesUnordered<_> = asked.collect();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(ranges) => return Ok(ranges),
                    // What is more than silence is what the caller should read.
                    Err(error) if last.as_ref().is_none_or(is_of_connection) => last = Some(error),
                    Err(_) => {}
                }
            }
        }
        Err(last.expect("there is a seed"))
    }

    /// Known nodes, another one first each time, then the seeds.
    fn candidates(&self) -> Vec<Arc<Node>> {
        let picture = self.picture();
        let mut nodes = picture.nodes.clone();
        if !nodes.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(first);
        }
        nodes.extend(self.seeds.iter().map(Arc::clone));
        nodes
    }

    fn learn(&self, result: RedisResult<Vec<Range>>) -> RedisResult<()> {
        let mut state = self.state();
        let ranges = match result {
            Ok(ranges) => ranges,
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                return Err(error);
            }
        };
        self.counters.refreshed.add();
        state.failures = 0;
        state.renewed = Some(Instant::now());
        let mut picture = Picture::default();
        let mut places: HashMap<Address, usize> = HashMap::new();
        for Range { first, last, primary } in ranges {
            let place = *places.entry(primary).or_insert_with_key(|address| {
                picture.nodes.push(Arc::clone(self.node_in(&mut state, address)));
                picture.nodes.len() - 1
            });
            picture.ranges.push((first, last, place));
        }
        let is_named = |address: &Address| places.contains_key(address);
        let gone: Vec<_> = state.nodes.extract_if(|address, _| !is_named(address)).collect();
        let old = std::mem::replace(&mut state.picture, Arc::new(picture));
        drop(state);
        drop(old);
        gone.into_iter().for_each(|(_, node)| node.depart());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Picture {
    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    fn node_of(&self, slot: Slot) -> Option<&Arc<Node>> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, place) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then(|| &self.nodes[*place])
    }
}

/// The host of a node: of a cluster there are no others than those with one.
fn host(endpoint: &Endpoint) -> &str {
    match endpoint.address() {
        ConnectionAddr::Tcp(host, _) => host,
        _ => "localhost",
    }
}

/// Clears the place of the renewal that has ended, however it did.
struct Over(Arc<Cluster>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.state().renewing = None;
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("seeds", &self.seeds)
            .field("nodes", &self.picture().nodes)
            .finish_non_exhaustive()
    }
}

fn no_node() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::NotFound, "no node has the slot").into()
}
