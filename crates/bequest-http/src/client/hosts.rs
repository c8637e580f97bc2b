//! How many exchanges each host may have at once: a queue for each, first come, first served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use tokio::sync::Semaphore;

/// The hosts of a client.
#[derive(Debug)]
pub(super) struct Hosts {
    exchanges_per_host: usize,
    /// By scheme, host and port. Those that nobody uses are cleared away before the table grows.
    hosts: Mutex<HashMap<String, Host>>,
}

/// The queues of one host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// A place for each exchange.
    pub(super) places: Arc<Semaphore>,
    /// One place for the exchange that looks for a connection which others can share with it.
    pub(super) connecting: Arc<Semaphore>,
}

impl Hosts {
    pub(super) fn new(exchanges_per_host: usize) -> Hosts {
        Hosts {
            exchanges_per_host: exchanges_per_host.min(Semaphore::MAX_PERMITS),
            hosts: Mutex::default(),
        }
    }

    /// The host of `uri`.
    pub(super) fn host(&self, uri: &Uri) -> Host {
        let key = key(uri);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(&key) {
            return known.clone();
        }
        if hosts.len() == hosts.capacity() {
            hosts.retain(|_, host| host.is_used());
        }
        let host = Host {
            places: Arc::new(Semaphore::new(self.exchanges_per_host)),
            connecting: Arc::new(Semaphore::new(1)),
        };
        hosts.insert(key, host.clone());
        host
    }
}

impl Host {
    /// Whether anybody but the table holds it: a place that is taken, or waited for, does.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.places) > 1 || Arc::strong_count(&self.connecting) > 1
    }
}

/// Scheme, host and port of a URI.
pub(super) fn key(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{}", authority.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_nobody_uses_do_not_pile_up() {
        let hosts = Hosts::new(1);
        let host = |number: usize| hosts.host(&format!("http://host-{number}.test/").parse().unwrap());
        let kept = host(0).places.try_acquire_owned().unwrap();
        for number in 1..10_000 {
            host(number);
        }
        assert!(hosts.hosts.lock().unwrap().len() < 100);
        assert!(host(0).places.try_acquire().is_err(), "the place is still taken");
        drop(kept);
        assert!(host(0).places.try_acquire().is_ok());
    }
}
