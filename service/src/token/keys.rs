//! The key set of the issuer, as this process knows it.
//!
//! # Invariants
//!
//! 1. What was fetched last and could be read stays in use, however long the server is away.
//! 2. Between the beginnings of two fetches lies [`REST`], or [`FIRST_REST`] as long as there is no set at all.
//! 3. A fetch, once begun, is finished within its own limit: clients that leave can not keep the set old.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bequest::{Canceled, Context};
use http::Uri;
use serde_json::json;

use super::client::AuthClient;
use super::jwk::{self, Algorithm, Key};
use crate::log;
use crate::session::budget::Budget;
use crate::session::flight::{Flights, Mark, NoAnswer};

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeySet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    at: Uri,
    algorithm: Algorithm,
    client: AuthClient,
    state: Mutex<State>,
    fetching: Flights<(), ()>,
}

/// What the lock guards.
#[derive(Debug, Default)]
struct State {
    keys: Vec<Arc<Key>>,
    /// When the last fetch began.
    tried_at: Option<Instant>,
    fetched_at: Option<Instant>,
    /// Why the last fetch brought nothing.
    trouble: Option<String>,
}

/// Why there is no key.
#[derive(Debug)]
pub(super) enum NoKey {
    /// The set has none of that name.
    Unknown,
    /// There is no set, for this reason.
    NoSet(String),
    /// The caller's context ended while the set was being fetched.
    Ended(Canceled),
}

const FETCH: Budget = Budget::new("key set", Duration::from_secs(2));
const REST: Duration = Duration::from_secs(60);
const FIRST_REST: Duration = Duration::from_secs(1);
/// A set older than this is fetched again in the background, so that a key that the issuer withdrew goes out of use.
const OLD: Duration = Duration::from_secs(600);

impl KeySet {
    /// The set at `at`, of which the keys count that are for `algorithm`. It is fetched when it is needed.
    pub(crate) fn new(at: Uri, algorithm: Algorithm, client: AuthClient) -> KeySet {
        KeySet(Arc::new(Shared {
            at,
            algorithm,
            client,
            state: Mutex::default(),
            fetching: Flights::new(),
        }))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The key that `kid` names; without a name, the only one there is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a fetch that has begun to itself.
    pub(super) async fn find(&self, ctx: &Context, kid: Option<&str>) -> Result<Arc<Key>, NoKey> {
        let now = ctx.now();
        let found = self.0.state().find(kid);
        if let Some(key) = found {
            if self.0.state().is_old(now) && self.0.may_fetch(now) {
                drop(self.fetch(ctx));
            }
            return Ok(key);
        }
        if self.0.may_fetch(now) || self.0.fetching.len() > 0 {
            match self.fetch(ctx).wait(ctx).await {
                Ok(()) | Err(NoAnswer::Crashed) => {}
                Err(NoAnswer::Ended(end)) => return Err(NoKey::Ended(end)),
            }
        }
        let state = self.0.state();
        match (state.find(kid), &state.trouble) {
            (Some(key), _) => Ok(key),
            (None, Some(trouble)) if state.keys.is_empty() => Err(NoKey::NoSet(trouble.clone())),
            (None, _) => Err(NoKey::Unknown),
        }
    }

    fn fetch(&self, ctx: &Context) -> crate::session::flight::Waiter<(), ()> {
        let start = || {
            let limit = FETCH.scope(&ctx.without_cancel());
            // Invariant 3: nobody may cancel it.
            (None, Arc::clone(&self.0).refresh(limit))
        };
        self.0
            .fetching
            .join((), Mark::BEGINNING, start, |work| drop(tokio::spawn(work)))
    }
}

impl Shared {
    fn may_fetch(&self, now: Instant) -> bool {
        self.state().may_fetch(now)
    }

    /// Fetches the set, if it is time to.
    async fn refresh(self: Arc<Self>, limit: bequest::CancelScope) {
        let now = limit.now();
        {
            let mut state = self.state();
            if !state.may_fetch(now) {
                return;
            }
            state.tried_at = Some(now);
        }
        let body = self
            .client
            .get(&limit, &self.at)
            .await
            .map_err(|error| error.to_string());
        let keys = body
            .and_then(|body| jwk::read_set(&body, self.algorithm).map_err(str::to_string))
            .map_err(|what| format!("{} at {}: {what}", FETCH.step, self.at));
        let mut state = self.state();
        match keys {
            Ok(keys) => {
                state.keys = keys.into_iter().map(Arc::new).collect();
                state.fetched_at = Some(now);
                state.trouble = None;
            }
            Err(trouble) => {
                let is_news = state.trouble.as_ref() != Some(&trouble);
                let known = state.keys.len();
                state.trouble = Some(trouble.clone());
                drop(state);
                // As long as the old set does, nobody else hears of it.
                if is_news {
                    log::event(
                        "the key set was not fetched",
                        &json!({ "why": trouble, "keys_in_use": known }),
                    );
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)).cloned(),
            (None, [only]) => Some(Arc::clone(only)),
            (None, _) => None,
        }
    }

    fn is_old(&self, now: Instant) -> bool {
        self.fetched_at
            .is_some_and(|fetched| now.saturating_duration_since(fetched) >= OLD)
    }

    fn may_fetch(&self, now: Instant) -> bool {
        let rest = if self.keys.is_empty() { FIRST_REST } else { REST };
        self.tried_at
            .is_none_or(|tried| now.saturating_duration_since(tried) >= rest)
    }
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoKey::Unknown => f.write_str("its key is none of the issuer's"),
            NoKey::NoSet(trouble) => f.write_str(trouble),
            NoKey::Ended(end) => write!(f, "{}: {end}", FETCH.step),
        }
    }
}
