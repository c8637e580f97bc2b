//! A cache in this process: a few entries, each for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};

/// Entries that are forgotten after a time.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<String, Entry>>,
    lives: Duration,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    value: String,
    until: Instant,
}

impl Cache {
    /// A cache of at most `most` entries that live for `lives`.
    pub(crate) fn new(lives: Duration, most: usize) -> Cache {
        Cache {
            entries: Mutex::default(),
            lives,
            most,
        }
    }

    /// The entry under `key`, if it is still fresh. Asked under a context, as a cache in another process would be.
    ///
    /// # Errors
    ///
    /// The end of `ctx`.
    pub(crate) fn get(&self, ctx: &Context, key: &str) -> Result<Option<String>, Canceled> {
        ctx.check()?;
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(entries
            .get(key)
            .filter(|entry| entry.until > Instant::now())
            .map(|entry| entry.value.clone()))
    }

    /// Remembers `value`. A full cache forgets what is stale, and if nothing is, does not remember.
    pub(crate) fn put(&self, key: &str, value: String) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most {
            entries.retain(|_, entry| entry.until > now);
        }
        if entries.len() < self.most || entries.contains_key(key) {
            entries.insert(
                key.to_string(),
                Entry {
                    value,
                    until: now + self.lives,
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_forgets() {
        let ctx = Context::background();
        let cache = Cache::new(Duration::from_secs(3600), 1);
        cache.put("a", "1".into());
        cache.put("b", "2".into());
        cache.put("a", "3".into());
        assert_eq!(cache.get(&ctx, "a").unwrap().as_deref(), Some("3"));
        assert_eq!(cache.get(&ctx, "b").unwrap(), None, "it was full");
        let stale = Cache::new(Duration::ZERO, 1);
        stale.put("a", "1".into());
        assert_eq!(stale.get(&ctx, "a").unwrap(), None);
    }

    #[test]
    fn answers_nobody_who_has_left() {
        let gone = ctx_that_has_ended();
        assert!(Cache::new(Duration::ZERO, 1).get(&gone, "a").is_err());
    }

    fn ctx_that_has_ended() -> Context {
        Context::background().with_cancel().context()
    }
}
