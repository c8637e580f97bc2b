//! Sessions and tokens put together: opened, and closed again.

use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bequest::Context;
use bequest_http::Server;
use bequest_postgres::Options;
use bequest_redis::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::log::{self, Logs};
use crate::session::Sessions;
use crate::session::cache::SessionCache;
use crate::session::cache::memory::MemoryCache;
use crate::session::cache::redis::RedisCache;
use crate::session::database::SessionDatabase;
use crate::session::postgres::PostgresSessions;
use crate::session::sessions::Lifetime;
use crate::session::sqlite::SqliteSessions;
use crate::settings::Settings;
use crate::token::client::AuthClient;
use crate::token::issuer::{self, Demo, SigningKey};
use crate::token::{Algorithm, KeySet, Verifier};
use crate::trust::Trust;

/// Who is asking: what the routes need to find out.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) tokens: Verifier,
    /// The way to the embedded authentication server; `None` with `--issuer`.
    pub(crate) demo: Option<Demo>,
    /// The name of the session database, which no other has.
    pub(crate) name: String,
    database: Kept,
    /// The embedded authentication server.
    server: Option<JoinHandle<()>>,
}

/// Where the sessions are.
#[derive(Debug)]
enum Kept {
    Sqlite(SqliteSessions),
    Postgres(PostgresSessions),
}

type Failure = Box<dyn Error + Send + Sync>;

/// Sessions that the cache holds at most.
const CACHED: usize = 100_000;

impl Identity {
    /// Opens the session database, the embedded one unless `database` says how to reach another, and, without `--issuer`,
    /// starts the embedded authentication server.
    ///
    /// # Errors
    ///
    /// A file cannot be opened or made, a server cannot be reached, or another node uses the session database.
    pub(crate) async fn open(
        ctx: &Context,
        settings: &Settings,
        database: Option<Options>,
        shared: Option<&Client>,
        trust: &Trust,
        logs: &Logs,
    ) -> Result<Identity, Failure> {
        let database = Kept::open(ctx, settings, database).await?;
        let (name, ttl) = (database.name(ctx).await?, settings.sessions.ttl);
        let cache: Arc<dyn SessionCache> = match shared {
            Some(client) => Arc::new(RedisCache::new(client.clone(), &name, ttl)),
            None => Arc::new(MemoryCache::new(ttl, CACHED)),
        };
        let lifetime = Lifetime {
            idle: settings.sessions.idle,
            absolute: settings.sessions.absolute,
        };
        let sessions = Sessions::open(ctx, database.shared(), cache, lifetime).await;
        let sessions = sessions.map_err(|error| named("the sessions in", database.place(settings), error))?;
        let (tokens, demo, server) = match &settings.tokens.issuer {
            Some(issuer) => (external(&issuer.to_string(), settings, trust)?, None, None),
            None => embedded(settings, trust, logs).await?,
        };
        Ok(Identity {
            sessions,
            tokens,
            demo,
            name,
            database,
            server,
        })
    }

    /// Waits for what sessions still do in the background, and closes what was opened.
    pub(crate) async fn close(&self, ctx: &Context) {
        if let Some(server) = &self.server {
            server.abort();
        }
        self.sessions.drain().await;
        if let Err(error) = self.database.close(ctx).await {
            log::event("closing the session database", &json!(error.to_string()));
        }
    }

    /// Names, kinds and values for `/metrics`.
    pub(crate) fn metrics(&self) -> [(&'static str, &'static str, u64); 8] {
        let counters = self.sessions.counters();
        let total = |name, counter: &AtomicU64| (name, "counter", counter.load(Ordering::Relaxed));
        [
            total("bequest_session_cache_hits_total", &counters.hits),
            total("bequest_session_cache_failed_total", &counters.cache_failed),
            total("bequest_session_database_asked_total", &counters.asked),
            total("bequest_session_tombstones_met_total", &counters.met_tombstone),
            total("bequest_session_touched_total", &counters.touched),
            total("bequest_session_touch_failed_total", &counters.touch_failed),
            (
                "bequest_session_questions",
                "gauge",
                self.sessions.in_flight() as u64,
            ),
            (
                "bequest_session_statements_running",
                "gauge",
                self.database.running() as u64,
            ),
        ]
    }
}

impl Kept {
    async fn open(ctx: &Context, settings: &Settings, remote: Option<Options>) -> Result<Kept, Failure> {
        let opened = match remote {
            Some(options) => PostgresSessions::open(ctx, options)
                .await
                .map(Kept::Postgres)
                .map_err(Failure::from),
            None => SqliteSessions::open(ctx, &settings.data)
                .await
                .map(Kept::Sqlite)
                .map_err(Failure::from),
        };
        opened.map_err(|error| match &settings.stores.database {
            Some(url) => named("the session database at", url, error),
            None => named("the session database in", settings.data.display(), error),
        })
    }

    async fn name(&self, ctx: &Context) -> Result<String, Failure> {
        match self {
            Kept::Sqlite(database) => database.name(ctx).await.map_err(Failure::from),
            Kept::Postgres(database) => database.name(ctx).await.map_err(Failure::from),
        }
    }

    fn shared(&self) -> Arc<dyn SessionDatabase> {
        match self {
            Kept::Sqlite(database) => Arc::new(database.clone()),
            Kept::Postgres(database) => Arc::new(database.clone()),
        }
    }

    /// Where they are, for people.
    fn place(&self, settings: &Settings) -> String {
        match &settings.stores.database {
            Some(url) => url.to_string(),
            None => settings.data.display().to_string(),
        }
    }

    /// Statements that run, or are being stopped.
    fn running(&self) -> usize {
        match self {
            Kept::Sqlite(database) => database.statistics().running(),
            Kept::Postgres(database) => {
                let pool = database.statistics();
                pool.in_use + pool.settling
            }
        }
    }

    async fn close(&self, ctx: &Context) -> Result<(), Failure> {
        match self {
            Kept::Sqlite(database) => database.close(ctx).await.map_err(Failure::from),
            Kept::Postgres(database) => database.close(ctx).await.map_err(Failure::from),
        }
    }
}

fn external(issuer: &str, settings: &Settings, trust: &Trust) -> Result<Verifier, Failure> {
    let tokens = &settings.tokens;
    // A URL without a path is written with or without its last slash; `iss` is compared without.
    let issuer = issuer.trim_end_matches('/');
    let keys = match &tokens.issuer_keys {
        Some(keys) => keys.clone(),
        None => format!("{issuer}/.well-known/jwks.json").parse()?,
    };
    Ok(Verifier::new(
        issuer.to_string(),
        tokens.audience.clone(),
        KeySet::new(keys, tokens.issuer_algorithm, AuthClient::new(trust.http())),
    ))
}

/// A server of its own on a free port of this machine.
async fn embedded(
    settings: &Settings,
    trust: &Trust,
    logs: &Logs,
) -> Result<(Verifier, Option<Demo>, Option<JoinHandle<()>>), Failure> {
    let path = settings.data.join("issuer-key.pkcs8");
    let key = SigningKey::open(&path).map_err(|error| named("the signing key", path.display(), error))?;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| named("the authentication server", address, error))?;
    let base = format!("http://{}", listener.local_addr()?);
    let audience = settings.tokens.audience.clone();
    let service = issuer::router(key, audience.clone());
    let server = logs.internal(Server::builder(), "issuer");
    let task = tokio::spawn(async move {
        if let Err(error) = server.serve(listener, service, &Context::background()).await {
            log::event("the authentication server failed", &json!(error.to_string()));
        }
    });
    let keys = format!("{base}/.well-known/jwks.json").parse()?;
    let client = AuthClient::new(trust.http());
    let keys = KeySet::new(keys, Algorithm::EdDsa, client.clone());
    Ok((
        Verifier::new(issuer::ISSUER.to_string(), audience, keys),
        Some(Demo::new(client, format!("{base}/token").parse()?)),
        Some(task),
    ))
}

fn named(what: &str, which: impl Display, error: impl Into<Failure>) -> Failure {
    format!("{what} {which}: {}", error.into()).into()
}
