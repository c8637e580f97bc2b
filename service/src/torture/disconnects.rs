//! Clients that leave: at every step of the session middleware, and at any moment in between.
//!
//! A real server and real sockets. After each of them: nothing was written, no step was begun after the one at which the
//! client left. After all of them: no question is under way, no statement runs or waits, and a client that stays is
//! served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bequest::{Canceled, Context, Reason};
use bequest_http::Server;
use bequest_http::axum::Ctx;
use bequest_http::server::{ConnInfo, Finished, Observer};
use http::StatusCode;
use ring::rand::SystemRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::gate::{Gate, GatedCache, GatedDatabase, Step};
use super::race::LIFETIME;
use super::stores::fresh;
use super::{Failure, Progress, Scratch, Verdict};
use crate::session::Sessions;
use crate::session::cache::memory::MemoryCache;
use crate::session::database::SessionDatabase;
use crate::session::id::SessionId;
use crate::session::middleware::extract::SignedIn;
use crate::session::middleware::identify;
use crate::session::sqlite::SqliteSessions;

const SCENE: &str = "clients leave at every step";
/// Where they leave, in turn. `None`: at any moment.
const PLACES: [Option<Step>; 5] = [
    Some(Step::CacheRead),
    Some(Step::Database),
    Some(Step::CacheFill),
    Some(Step::Handler),
    None,
];
/// Clients of the control: as many as it takes to see.
const CONTROLS: usize = 100;

/// What was counted.
#[derive(Debug, Default)]
struct Counted {
    left: usize,
    /// Requests that were answered all the same.
    written: usize,
    /// Steps that were begun after the client had left.
    late: usize,
    /// What was still held at the end: questions, statements.
    held: usize,
    served_afterwards: bool,
}

pub(super) async fn scene(ctx: &Context, clients: usize) -> Result<Verdict, Failure> {
    let progress = Progress::new(SCENE, clients);
    let ours = play(ctx, clients, false, |done| progress.at(done)).await?;
    let naive = play(ctx, CONTROLS, true, |_| {}).await?;
    Ok(Verdict {
        scene: SCENE,
        ours: format!(
            "{} late steps, {} written, {} held, of {}",
            ours.late, ours.written, ours.held, ours.left
        ),
        control: format!("without the request's end {} late, of {}", naive.late, naive.left),
        holds: ours.late == 0 && ours.written == 0 && ours.held == 0 && ours.served_afterwards,
        control_failed: naive.late > 0,
    })
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Reset,
    /// By closing the connection. It might only have closed its sending side, so it may still be told that it has left.
    Close,
}

impl Leaving {
    fn of(number: usize) -> Leaving {
        if number.is_multiple_of(2) {
            Leaving::Reset
        } else {
            Leaving::Close
        }
    }

    fn leave(self, stream: TcpStream) -> Result<(), Failure> {
        if let Leaving::Reset = self {
            stream.set_zero_linger()?;
        }
        drop(stream);
        Ok(())
    }

    /// Whether this is more than may be written to who has left like this.
    fn is_too_much(self, status: Option<StatusCode>) -> bool {
        match self {
            Leaving::Reset => status.is_some(),
            Leaving::Close => status.is_some_and(|status| status.is_success()),
        }
    }
}

/// One server, its parts, and what it tells.
struct Stage {
    addr: SocketAddr,
    gate: Arc<Gate>,
    sessions: Arc<Sessions>,
    database: SqliteSessions,
    request: String,
    events: mpsc::UnboundedReceiver<Event>,
}

async fn play(
    ctx: &Context,
    clients: usize,
    deaf: bool,
    mut progress: impl FnMut(usize),
) -> Result<Counted, Failure> {
    let scratch = Scratch::new()?;
    let serving = ctx.with_cancel().named("torture");
    let mut stage = Stage::set(&serving, &scratch, deaf).await?;
    let mut counted = Counted::default();
    for client in 0..clients {
        let way = Leaving::of(client / PLACES.len());
        match PLACES[client % PLACES.len()] {
            // Held at another step, one that does not hear would never be let on.
            _ if deaf => stage.leave_at(Step::CacheRead, way, &mut counted).await?,
            Some(place) => stage.leave_at(place, way, &mut counted).await?,
            None => stage.leave_somewhere(client, &mut counted).await?,
        }
        progress(client + 1);
    }
    stage.gate.hold(None);
    counted.served_afterwards = stage.stay().await?;
    stage.quiet().await;
    let statements = stage.database.statistics();
    counted.held = stage.sessions.in_flight() + statements.running() + statements.queued();
    serving.cancel();
    stage.sessions.drain().await;
    stage.database.close(ctx).await?;
    Ok(counted)
}

impl Stage {
    async fn set(ctx: &Context, scratch: &Scratch, deaf: bool) -> Result<Stage, Failure> {
        let (database, gate) = (scratch.database(ctx).await?, Gate::new());
        let gated = Arc::new(GatedDatabase {
            database: database.clone(),
            gate: Arc::clone(&gate),
        });
        let cache = Arc::new(GatedCache {
            cache: MemoryCache::new(Duration::from_secs(60), 100),
            gate: Arc::clone(&gate),
        });
        let id = SessionId::generate(&SystemRandom::new())?;
        database.begin(ctx, fresh(&id, ctx.wall()), None).await?;
        let sessions = Sessions::open(ctx, gated, cache, LIFETIME).await?;
        let mut router = Router::new()
            .route("/", routing::get(handler))
            .with_state(Arc::clone(&gate))
            .layer(middleware::from_fn_with_state(Arc::clone(&sessions), identified));
        if deaf {
            router = router.layer(middleware::from_fn(forget_the_end));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (tell, events) = mpsc::unbounded_channel();
        let (server, ctx) = (Server::builder().observer(Witness(tell)), ctx.clone());
        tokio::spawn(async move { server.serve(listener, router, &ctx).await });
        Ok(Stage {
            addr,
            gate,
            sessions,
            database,
            request: format!(
                "GET / HTTP/1.1\r\nhost: torture\r\nx-myapp-session: {}\r\n\r\n",
                id.expose()
            ),
            events,
        })
    }

    /// A client that leaves while its request is held at `place`.
    async fn leave_at(&mut self, place: Step, way: Leaving, counted: &mut Counted) -> Result<(), Failure> {
        self.gate.hold(Some(place));
        let client = self.ask().await?;
        self.gate.arrived().await;
        let begun = self.gate.steps().len();
        way.leave(client)?;
        self.count_until_closed(way, counted).await?;
        self.quiet().await;
        counted.late += self.gate.steps().len() - begun;
        Ok(())
    }

    /// A client that leaves after a while that no clock measures.
    async fn leave_somewhere(&mut self, client: usize, counted: &mut Counted) -> Result<(), Failure> {
        self.gate.hold(None);
        let stream = self.ask().await?;
        for _ in 0..client % 64 {
            tokio::task::yield_now().await;
        }
        let way = Leaving::of(client / 64);
        way.leave(stream)?;
        // It may have left before its request was read; then there is none to be finished.
        self.count_until_closed(way, counted).await?;
        self.quiet().await;
        Ok(())
    }

    /// A client that stays until it is answered. Whether the answer is good.
    async fn stay(&self) -> Result<bool, Failure> {
        let mut stream = self.ask().await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok(&head == b"HTTP/1.1 200")
    }

    async fn ask(&self) -> Result<TcpStream, Failure> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.write_all(self.request.as_bytes()).await?;
        Ok(stream)
    }

    /// Counts what the server tells until the connection is closed.
    async fn count_until_closed(&mut self, way: Leaving, counted: &mut Counted) -> Result<(), Failure> {
        loop {
            match self.events.recv().await.ok_or("the server is gone")? {
                Event::Closed => return Ok(()),
                // Who was answered before had not left in the middle of anything.
                Event::Finished { left: false, .. } => {}
                Event::Finished { left: true, status } => {
                    counted.left += 1;
                    counted.written += usize::from(way.is_too_much(status));
                }
            }
        }
    }

    /// Waits until no question is under way: the last step has ended, or the next would have begun.
    async fn quiet(&self) {
        while self.sessions.in_flight() > 0 || self.database.statistics().running() > 0 {
            tokio::task::yield_now().await;
        }
        self.sessions.drain().await;
    }
}

async fn handler(
    Ctx(ctx): Ctx,
    State(gate): State<Arc<Gate>>,
    SignedIn(session): SignedIn,
) -> Result<String, StatusCode> {
    let passed = gate.pass(&ctx, Step::Handler).await;
    passed.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(session.user.id.clone())
}

/// Who is asking, as before the routes of the service.
async fn identified(State(sessions): State<Arc<Sessions>>, mut request: Request, next: Next) -> Response {
    match identify(&sessions, &mut request).await {
        Ok(parting) => {
            let mut response = next.run(request).await;
            parting.part(&mut response);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The naive way: the work does not hear that nobody waits for it.
async fn forget_the_end(mut request: Request, next: Next) -> Response {
    if let Some(ctx) = request.extensions().get::<Context>() {
        let deaf = ctx.without_cancel();
        request.extensions_mut().insert(deaf);
    }
    next.run(request).await
}

/// Tells what becomes of requests and of connections.
struct Witness(mpsc::UnboundedSender<Event>);

#[derive(Debug)]
enum Event {
    /// A request is over: whether its client had left, and what was written.
    Finished {
        left: bool,
        status: Option<StatusCode>,
    },
    Closed,
}

impl Observer for Witness {
    fn request_finished(&self, request: &Finished<'_>) {
        self.tell(Event::Finished {
            left: request.end.reason() == Reason::ClientGone,
            status: request.status,
        });
    }

    fn connection_closed(&self, _conn: &ConnInfo, _end: &Canceled) {
        self.tell(Event::Closed);
    }
}

impl Witness {
    fn tell(&self, event: Event) {
        // The scene may be over already.
        let _ = self.0.send(event);
    }
}
