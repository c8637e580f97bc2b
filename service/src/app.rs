//! Putting the service together, running it, and taking it apart again.
//!
//! The order of the end: a signal cancels `stopping`; the public listener drains, then tells, then drops; jobs are
//! waited for and then told; the embedded back end, the databases and last the admin listener go, so that one can watch
//! until the end. Whoever follows an event stream there is told that this is it.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bequest::{CancelScope, Context, Reason, Signal, signal};
use bequest_http::Server;
use bequest_http::server::{Limits, Statistics, Summary};
use bequest_postgres::Options;
use bequest_redis::Client;
use bequest_redis::redis::cmd;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::domain::fetch::LastFetch;
use crate::identity::Identity;
use crate::jobs::{self, Jobs};
use crate::log::{self, Logs};
use crate::routes;
use crate::routes::contexts::Pictures;
use crate::search::backend;
use crate::search::client::SearchClient;
use crate::search::corpus::Corpus;
use crate::settings::{Listen, Settings};
use crate::store::Store;
use crate::store::cache::Cache;
use crate::store::settings::SecretUrl;
use crate::trust::Trust;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) admin_addr: SocketAddr,
    /// Ends when the shutdown begins.
    pub(crate) stopping: Context,
    pub(crate) store: Store,
    pub(crate) cache: Cache,
    pub(crate) search: SearchClient,
    /// The embedded back end's index; `None` with `--search`.
    pub(crate) corpus: Option<Corpus>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) identity: Identity,
    pub(crate) last_fetch: LastFetch,
    pub(crate) server: Statistics,
    /// For those who follow the live contexts.
    pub(crate) pictures: Arc<Pictures>,
    pub(crate) logs: Arc<Logs>,
}

/// What kept the service from starting or from running: what, and where.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// How long databases may take to open, and to close.
const OPENING: Duration = Duration::from_secs(30);
const CLOSING: Duration = Duration::from_secs(5);

/// Runs the service until a signal ends it.
///
/// # Errors
///
/// If it cannot start: a port in use, a folder that cannot be made, a file that is not a database.
pub(crate) async fn run(settings: Settings) -> Result<(), Failure> {
    let logs = Arc::new(Logs::open(&settings.log).map_err(|error| format!("a log: {error}"))?);
    log::reopen_on_hangup(&logs, &settings.log)?;
    let outcome = serve(settings, &logs).await;
    let closing = Context::background()
        .with_timeout(CLOSING)
        .named("closing the logs");
    if let Err(end) = logs.close(&closing).await {
        log::event("closing the logs", &json!(end.to_string()));
    }
    // After the lines that were still waiting: it is the last one.
    let (summary, told) = outcome?;
    report(&summary, told);
    Ok(())
}

/// Starts the parts, and takes them apart when a signal has come; what was served, and how many jobs were told to stop.
async fn serve(settings: Settings, logs: &Arc<Logs>) -> Result<(Summary, usize), Failure> {
    let trust = Trust::open(settings.trust.trust.as_deref())?;
    if !settings.no_inspect {
        // Before anything is made, so that the signal is seen as well.
        bequest::inspect::enable();
    }
    let process = Context::background();
    let signals = signal::notify(&process, &[Signal::TERMINATE, Signal::INTERRUPT])?;
    let public = match settings.listen {
        Listen::Address(address) => listen(address, "--listen").await?,
        Listen::Inherited => inherited().map_err(|error| named("--listen", settings.listen, error))?,
    };
    let admin = listen(settings.admin, "--admin").await?;
    announce(public.local_addr()?, admin.local_addr()?);

    let admin_addr = admin.local_addr()?;
    let (app, parts) = build(settings, &trust, admin_addr, &signals, logs).await?;
    let admin = Admin::serve(admin, &app);
    log::event(
        "ready",
        &json!({ "listen": public.local_addr()?, "admin": admin_addr, "data": app.settings.data,
            "database": app.settings.stores.database.as_ref().map(ToString::to_string),
            "cache": app.settings.stores.cache.as_ref().map(ToString::to_string) }),
    );

    let limits = Limits {
        request: app.settings.request_limit,
        drain: app.settings.drain,
        ..Limits::default()
    };
    let service = routes::public(Arc::clone(&app));
    let again = signals.again().clone();
    let serving = async {
        let summary = parts
            .server
            .limits(limits)
            .serve(public, service, &signals)
            .await?;
        let told = app.jobs.shut_down(app.settings.job_drain).await;
        Ok::<_, Failure>((summary, told))
    };
    let (summary, told) = tokio::select! {
        outcome = serving => outcome?,
        // A second signal: everything at once, by dropping the server and waiting for no job.
        end = again.done() => return Err(format!("stopped at once: {end}").into()),
    };
    close(&app, parts.backend).await;
    admin.end().await;
    Ok((summary, told))
}

/// What `run` keeps beside the app.
pub(crate) struct Parts {
    pub(crate) server: bequest_http::server::Builder,
    backend: Option<JoinHandle<()>>,
}

/// Opens everything that the routes need.
pub(crate) async fn build(
    settings: Settings,
    trust: &Trust,
    admin_addr: SocketAddr,
    stopping: &Context,
    logs: &Arc<Logs>,
) -> Result<(Arc<App>, Parts), Failure> {
    let opening = stopping.with_timeout(OPENING).named("opening");
    let data = settings.data.as_path();
    std::fs::create_dir_all(data).map_err(|error| named("the data folder", data.display(), error))?;
    let database = remote(&settings, trust)?;
    let store = Store::open(&opening, database.clone(), data).await;
    let store = store.map_err(|error| match &settings.stores.database {
        Some(url) => named("the database at", url, error),
        None => named("the database in", data.display(), error),
    })?;
    let shared = match &settings.stores.cache {
        Some(url) => Some(connect(&opening, url, trust).await?),
        None => None,
    };
    let identity = Identity::open(&opening, &settings, database, shared.as_ref(), trust, logs).await?;
    let (search, corpus, backend) = match &settings.search {
        Some(base) => (SearchClient::new(base.clone(), trust.http()), None, None),
        None => embedded_search(&opening, data, trust, logs).await?,
    };
    let limits = jobs::Limits {
        time: settings.job_limit,
        running: settings.jobs,
    };
    // Only nodes that share a cache may share a database.
    let jobs = Jobs::open(&opening, limits, store.clone(), shared.is_some()).await;
    let jobs = jobs.map_err(|error| format!("the jobs: {error}"))?;
    let server = logs.public(Server::builder());
    let app = App {
        admin_addr,
        stopping: stopping.clone(),
        jobs,
        store,
        cache: Cache::new(
            Duration::from_secs(60),
            100,
            shared.map(|client| (client, identity.name.as_str())),
        ),
        search,
        corpus,
        identity,
        last_fetch: LastFetch::default(),
        server: server.statistics(),
        pictures: Arc::new(Pictures::new()),
        logs: Arc::clone(logs),
        settings,
    };
    Ok((Arc::new(app), Parts { server, backend }))
}

/// How the database is opened that takes the place of the embedded one.
fn remote(settings: &Settings, trust: &Trust) -> Result<Option<Options>, Failure> {
    let Some(url) = &settings.stores.database else {
        return Ok(None);
    };
    let options = trust.database(url);
    options
        .map(Some)
        .map_err(|error| named("the database at", url, error))
}

/// The embedded back end: a server of its own on a free port of this machine.
async fn embedded_search(
    ctx: &Context,
    data: &Path,
    trust: &Trust,
    logs: &Logs,
) -> Result<(SearchClient, Option<Corpus>, Option<JoinHandle<()>>), Failure> {
    let corpus = Corpus::open(ctx, data)
        .await
        .map_err(|error| named("the search index in", data.display(), error))?;
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), "the search back end").await?;
    let base = format!("http://{}/", listener.local_addr()?).parse()?;
    let service = backend::router(corpus.clone());
    let background = Context::background();
    let server = logs.internal(Server::builder(), "search");
    let task = tokio::spawn(async move {
        if let Err(error) = server.serve(listener, service, &background).await {
            log::event("the search back end failed", &json!(error.to_string()));
        }
    });
    Ok((SearchClient::new(base, trust.http()), Some(corpus), Some(task)))
}

/// The admin listener. Dropped, it ends as well, and nobody waits for it.
struct Admin {
    ending: CancelScope,
    serving: JoinHandle<()>,
}

/// It goes last and takes its leave of whoever still listens, but waits for nobody.
const LEAVE: Duration = Duration::from_millis(50);

impl Admin {
    fn serve(listener: TcpListener, app: &Arc<App>) -> Admin {
        let service = routes::admin::router(Arc::clone(app));
        let limits = Limits {
            // Each route has its own.
            request: Duration::MAX,
            drain: LEAVE,
            drain_grace: LEAVE,
            ..Limits::default()
        };
        let server = app.logs.answers(Server::builder().limits(limits));
        let ending = Context::background().with_cancel().named("admin listener");
        let ctx = ending.context();
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve(listener, service, &ctx).await {
                log::event("the admin listener failed", &json!(error.to_string()));
            }
        });
        Admin { ending, serving }
    }

    async fn end(self) {
        self.ending.cancel_for(Reason::Shutdown);
        if let Err(error) = self.serving.await {
            log::event("the admin listener failed", &json!(error.to_string()));
        }
    }
}

/// The shared cache, which has to answer once: a node that began without would be of no use to the others.
async fn connect(ctx: &Context, url: &SecretUrl, trust: &Trust) -> Result<Client, Failure> {
    let client = trust
        .cache(url)
        .open()
        .map_err(|error| named("the cache at", url, error))?;
    let pong = client.cmd::<String>(ctx, &cmd("PING")).await;
    pong.map(|_| client)
        .map_err(|error| named("the cache at", url, error))
}

/// The listening socket that this process was given as its standard input.
fn inherited() -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // Says at once if it is no socket that listens.
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn listen(address: SocketAddr, what: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| named(what, address, error))
}

/// Everything at once: each of them waits for the disk, and none for another.
async fn close(app: &App, backend: Option<JoinHandle<()>>) {
    if let Some(backend) = backend {
        backend.abort();
    }
    let closing = Context::background().with_timeout(CLOSING).named("closing");
    let database = async {
        if let Err(error) = app.store.close(&closing).await {
            log::event("closing the database", &json!(error.to_string()));
        }
    };
    let index = async {
        if let Some(corpus) = &app.corpus
            && let Err(error) = corpus.close(&closing).await
        {
            log::event("closing the search index", &json!(error.to_string()));
        }
    };
    tokio::join!(app.identity.close(&closing), database, index);
}

fn report(summary: &Summary, jobs_told: usize) {
    let counts = &summary.statistics;
    let why = summary.end.reason();
    log::event(
        "stopped",
        &json!({
            "why": why.to_string(),
            "served": counts.served,
            "told_of_shutdown": counts.shut_down,
            "dropped": counts.dropped,
            "unfinished": summary.unfinished,
            "jobs_told": jobs_told,
        }),
    );
    debug_assert!(
        matches!(why, Reason::Signal(_) | Reason::ScopeEnded),
        "only a signal ends the service"
    );
}

fn named(what: &str, which: impl Display, error: impl Into<Failure>) -> Failure {
    format!("{what} {which}: {}", error.into()).into()
}

/// The first lines a newcomer sees: where it is, and what to paste.
fn announce(public: SocketAddr, admin: SocketAddr) {
    let lines = format!(
        "bequest {}: a service that stops when nobody wants the answer

  http://{public}/                    a page with a button for each thing
  http://{admin}/debug/contexts       who is running, with how much time left, and who ended what

Paste these in another terminal:

  curl -m 1 'http://{public}/store?key=report&ms=5000'      # needs 5 s; you leave after 1
  curl 'http://{public}/store/last'                         # it stopped with you, nothing was written
  curl 'http://{public}/search?q=golang&timeout=1s'         # the web search, with a budget
  curl -i 'http://{public}/search?q=golang&timeout=1us'     # 504, and whose deadline it was
  curl -m 1 'http://{public}/report?ms=10000'               # a long query dies with its client
  curl -X POST 'http://{public}/jobs'                       # work that outlives its request
  curl -d user=ann 'http://{public}/token'                  # a token, for trying out: POST /sessions takes it
  curl -N 'http://{admin}/debug/contexts.events'            # who is running, and each change as it happens

Ctrl-C drains and stops; again stops at once.
",
        env!("CARGO_PKG_VERSION"),
    );
    // Nobody reads them where standard output is closed, which is no reason not to serve.
    writeln!(std::io::stdout(), "{lines}").ok();
}
