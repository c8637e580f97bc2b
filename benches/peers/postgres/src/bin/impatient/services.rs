//! The same two routes, three times: a slow query and a quick one on a pool of four.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, serve};
use bequest::{CancelScope, Context};
use bequest_http::Server;
use bequest_http::axum::Ctx;
use bequest_postgres::{Database, Options};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::Result;

pub(crate) const POOL: usize = 4;
const SLOW: &str = "SELECT pg_sleep(8)";
const QUICK: &str = "SELECT 1";
/// How long a call waits for a connection, with both peers: without it, or with sqlx's own 30 s, the next client waits until
/// the queries of those who left have run to their ends.
const ACQUIRE: Duration = Duration::from_secs(5);

type Answer = std::result::Result<&'static str, (StatusCode, String)>;

/// A service that runs. Dropping it ends it.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
    /// Ours ends by its context.
    _ends: Option<CancelScope>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Opening, each with a boxed future so that they stand in one list.
impl Service {
    pub(crate) fn bequest(url: String) -> Opening {
        Box::pin(async move {
            let ctx = Context::background().with_cancel();
            let db = Options::from_url(&url)?.connections(POOL).open(&ctx).await?;
            let router = Router::new()
                .route("/slow", get(ours::<true>))
                .route("/quick", get(ours::<false>))
                .with_state(db);
            let (listener, address) = listen().await?;
            let serving = ctx.context();
            let serving = tokio::spawn(async move {
                // It ends with the service.
                let _ = Server::builder().serve(listener, router, &serving).await;
            });
            Ok(Service {
                name: "bequest",
                address,
                serving,
                _ends: Some(ctx),
            })
        })
    }

    pub(crate) fn sqlx(url: String) -> Opening {
        Box::pin(async move {
            let options = PgPoolOptions::new()
                .max_connections(POOL as u32)
                .acquire_timeout(ACQUIRE);
            let pool = options.connect(&url).await?;
            let router = Router::new()
                .route("/slow", get(with_sqlx::<true>))
                .route("/quick", get(with_sqlx::<false>));
            Service::plain("axum + sqlx 0.9", router.with_state(pool)).await
        })
    }

    pub(crate) fn deadpool(url: String) -> Opening {
        Box::pin(async move {
            let pool = deadpool(&url, POOL)?;
            let router = Router::new()
                .route("/slow", get(with_deadpool::<true>))
                .route("/quick", get(with_deadpool::<false>));
            Service::plain("axum + deadpool-postgres 0.14", router.with_state(pool)).await
        })
    }

    async fn plain(name: &'static str, router: Router) -> Result<Service> {
        let (listener, address) = listen().await?;
        let serving = tokio::spawn(async move {
            let _ = serve(listener, router).await;
        });
        Ok(Service {
            name,
            address,
            serving,
            _ends: None,
        })
    }
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Result<Service>> + Send>>;

/// A pool as its own page makes it.
pub(crate) fn deadpool(url: &str, size: usize) -> Result<Pool> {
    let method = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(url.parse()?, NoTls, method);
    Ok(Pool::builder(manager).max_size(size).build()?)
}

async fn ours<const IS_SLOW: bool>(Ctx(ctx): Ctx, State(db): State<Database>) -> Answer {
    db.query(&ctx, sql::<IS_SLOW>(), &[]).await.map_err(failed)?;
    Ok("answered")
}

async fn with_sqlx<const IS_SLOW: bool>(State(pool): State<PgPool>) -> Answer {
    sqlx::query(sql::<IS_SLOW>())
        .fetch_all(&pool)
        .await
        .map_err(failed)?;
    Ok("answered")
}

async fn with_deadpool<const IS_SLOW: bool>(State(pool): State<Pool>) -> Answer {
    let client = tokio::time::timeout(ACQUIRE, pool.get())
        .await
        .map_err(failed)?
        .map_err(failed)?;
    client.query(sql::<IS_SLOW>(), &[]).await.map_err(failed)?;
    Ok("answered")
}

const fn sql<const IS_SLOW: bool>() -> &'static str {
    if IS_SLOW { SLOW } else { QUICK }
}

fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
