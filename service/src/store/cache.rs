//! A cache: a few entries, each for a while. In this process, or in a server that several nodes share.
//!
//! It saves work and nothing more: a shared one that is slow or away has nothing, and that is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};
use bequest_redis::Client;

use crate::session::budget::Budget;

/// Entries that are forgotten after a time.
#[derive(Debug)]
pub(crate) struct Cache {
    place: Place,
    lives: Duration,
    /// Calls that a shared cache did not answer in time, or at all.
    failed: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Here {
        entries: Mutex<HashMap<String, Entry>>,
        most: usize,
    },
    Shared {
        client: Client,
        prefix: String,
    },
}

#[derive(Debug)]
struct Entry {
    value: String,
    until: Instant,
}

const STEP: Budget = Budget::new("cache", Duration::from_millis(20));

impl Cache {
    /// A cache whose entries live for `lives`: in a shared server, for the database of this name, or here, at most `most` of
    /// them.
    pub(crate) fn new(lives: Duration, most: usize, shared: Option<(Client, &str)>) -> Cache {
        let place = match shared {
            Some((client, database)) => Place::Shared {
                client,
                prefix: format!("bequest:{database}:cache:"),
            },
            None => Place::Here {
                entries: Mutex::default(),
                most,
            },
        };
        Cache {
            place,
            lives,
            failed: AtomicU64::new(0),
        }
    }

    /// The entry under `key`, if it is still fresh.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The end of `ctx`.
    pub(crate) async fn get(&self, ctx: &Context, key: &str) -> Result<Option<String>, Canceled> {
        ctx.check()?;
        match &self.place {
            Place::Here { entries, .. } => {
                let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = entries.get(key).filter(|entry| entry.until > Instant::now());
                Ok(fresh.map(|entry| entry.value.clone()))
            }
            Place::Shared { client, prefix } => {
                let step = STEP.scope(ctx);
                let found = client.get(&step, format!("{prefix}{key}")).await;
                self.or_nothing(ctx, found)
            }
        }
    }

    /// Remembers `value`. A full cache forgets what is stale, and if nothing is, does not remember.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it may be remembered or not.
    ///
    /// # Errors
    ///
    /// The end of `ctx`.
    pub(crate) async fn put(&self, ctx: &Context, key: &str, value: &str) -> Result<(), Canceled> {
        ctx.check()?;
        match &self.place {
            Place::Here { entries, most } => {
                let now = Instant::now();
                let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
                if entries.len() >= *most {
                    entries.retain(|_, entry| entry.until > now);
                }
                if entries.len() < *most || entries.contains_key(key) {
                    let (value, until) = (value.to_string(), now + self.lives);
                    entries.insert(key.to_string(), Entry { value, until });
                }
                Ok(())
            }
            Place::Shared { client, prefix } => {
                let step = STEP.scope(ctx);
                let put = client
                    .set_for(&step, format!("{prefix}{key}"), value, self.lives)
                    .await;
                self.or_nothing(ctx, put)
            }
        }
    }

    /// Calls that a shared cache did not answer.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// An answer, the end of the caller's own context, or as if there were nothing.
    fn or_nothing<T: Default>(
        &self,
        ctx: &Context,
        answer: Result<T, bequest_redis::Error>,
    ) -> Result<T, Canceled> {
        answer.or_else(|_| {
            ctx.check()?;
            self.failed.fetch_add(1, Ordering::Relaxed);
            Ok(T::default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn remembers_and_forgets() {
        let ctx = Context::background();
        let cache = Cache::new(Duration::from_secs(3600), 1, None);
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            cache.put(&ctx, key, value).await.unwrap();
        }
        assert_eq!(cache.get(&ctx, "a").await.unwrap().as_deref(), Some("3"));
        assert_eq!(cache.get(&ctx, "b").await.unwrap(), None, "it was full");
        let stale = Cache::new(Duration::ZERO, 1, None);
        stale.put(&ctx, "a", "1").await.unwrap();
        assert_eq!(stale.get(&ctx, "a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn answers_nobody_who_has_left() {
        let gone = ctx_that_has_ended();
        assert!(Cache::new(Duration::ZERO, 1, None).get(&gone, "a").await.is_err());
    }

    #[tokio::test]
    async fn one_that_is_away_has_nothing_and_is_counted() {
        let ctx = Context::background();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let client = Client::open(format!("redis://{nobody}")).unwrap();
        let cache = Cache::new(Duration::from_secs(3600), 1, Some((client, "shop")));
        cache.put(&ctx, "a", "1").await.unwrap();
        assert_eq!(cache.get(&ctx, "a").await.unwrap(), None);
        assert_eq!(cache.failed(), 2);
    }

    #[tokio::test]
    async fn a_shared_one_is_seen_by_all() {
        let Some(server) = bequest_test::servers::Redis::start_or_leave_out() else {
            return;
        };
        let ctx = Context::background();
        let node = || {
            let client = Client::open(server.url()).unwrap();
            Cache::new(Duration::from_secs(3600), 1, Some((client, "shop")))
        };
        let (one, other) = (node(), node());
        one.put(&ctx, "a", "1").await.unwrap();
        assert_eq!(other.get(&ctx, "a").await.unwrap().as_deref(), Some("1"));
        assert_eq!(other.get(&ctx, "b").await.unwrap(), None);
        assert_eq!(one.failed() + other.failed(), 0);
    }

    fn ctx_that_has_ended() -> Context {
        Context::background().with_cancel().context()
    }
}
