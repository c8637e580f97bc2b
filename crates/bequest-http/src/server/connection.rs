//! One connection: its context, its protocol, its limits, its end.
//!
//! # Invariants
//!
//! 1. The connection's context ends with its reason before hyper's future is dropped, so that whatever a handler sees of
//!    that drop it can explain.
//! 2. While nothing is in flight exactly one limit runs: first byte, header or idle. While something is in flight none of
//!    these does; the requests have their own. The limit on stalled writes runs whenever a write waits.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bequest::{CancelScope, Context, Reason};
use bytes::BytesMut;
use http::{Method, StatusCode, Version};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::activity::{Activity, Stamp, Waiting};
use super::attend::Attendant;
use super::bell::beside;
use super::disconnect::Disconnect;
use super::drive::{Over, drive};
use super::exchange::Exchange;
use super::observe::ConnInfo;
use super::outpost::Outpost;
use super::peer::{HalfClose, PeerState, Presence};
use super::service::{App, ConnectionService};
use super::shared::Shared;
use super::silence;
use super::socket::Lookout;
use super::statistics::{Gauge, Raised};
use super::streams::Streams;
use super::transport::Transport;
use super::upgrade::{self, Upgrade};
use super::wire::{self, Protocol, Wire};

/// A client that was accepted is not closed for its silence before this long when the drain begins: its request may be on
/// its way.
const FRESH: Duration = Duration::from_secs(1);

/// The most that HTTP/1 buffers of what a client sent, and so the largest header.
const HTTP1_BUFFER: usize = 64 * 1024;

/// One connection, as its requests share it.
pub(super) struct Connection {
    server: Arc<Shared>,
    info: ConnInfo,
    /// The owner of the connection's context.
    scope: CancelScope,
    /// What requests derive from: the scope's context with what `conn_context` added.
    context: Context,
    activity: Activity,
    /// The time of the present poll of the connection's task, once it was asked for.
    time_of_poll: Stamp,
    /// What is known of the client. Written by whoever reads, writes or watches the socket.
    peer: Arc<Presence>,
    /// For a glance at the socket. Set once, before the first request, if the socket is watched at all.
    lookout: OnceLock<Lookout>,
    /// Written once, before the first request.
    is_http2: AtomicBool,
    /// Whether the client has sent anything since this was last asked.
    heard: AtomicBool,
    /// The exchange that was begun last, until its stream is started. HTTP/2 only.
    beginning: Mutex<Option<Weak<Exchange>>>,
    /// The owner of the context of a protocol that the client asks to change to.
    upgrade: Mutex<Option<CancelScope>>,
    /// Whether that change was answered for. Written by whoever answers.
    switches: AtomicBool,
    /// Told when nobody holds the socket for reading and writing any more.
    let_go: Notify,
    /// Told when nothing can be answered any more.
    departed: Notify,
    /// Handlers of this connection that run on without it, or in it in their grace.
    lingering: Gauge,
    /// Who reads and writes it.
    driven: Driven,
    /// The socket of a connection that is driven elsewhere, to be watched.
    outpost: Outpost,
}

/// Who reads and writes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driven {
    /// This server's loop.
    Here,
    /// Somebody else's loop, which has introduced it.
    Elsewhere,
    /// Nothing is known of it: it stands for all the connections that nobody has introduced.
    Unknown,
}

/// A handler's place under the caps of lingering; its drop gives the place back.
pub(super) struct Place {
    _of_connection: Raised,
    _of_server: Raised,
    _of_kind: Raised,
}

/// Reports the close on every way out.
struct Closing(Arc<Connection>);

impl Connection {
    /// Makes the connection's context, below the server's.
    pub(super) fn open(server: Arc<Shared>, info: ConnInfo, driven: Driven) -> Connection {
        let scope = server.context.with_cancel().named("connection");
        let context = match &server.conn_context {
            Some(make) => make(scope.context(), &info),
            None => scope.context(),
        };
        let idle_since = server.stopwatch.now();
        Connection {
            info,
            scope,
            context,
            activity: Activity::idle(idle_since),
            time_of_poll: Stamp::default(),
            peer: Arc::default(),
            lookout: OnceLock::new(),
            is_http2: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            beginning: Mutex::default(),
            upgrade: Mutex::default(),
            switches: AtomicBool::new(false),
            let_go: Notify::new(),
            departed: Notify::new(),
            lingering: Gauge::default(),
            driven,
            outpost: Outpost::default(),
            server,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run<S: App>(self: Arc<Connection>, transport: Transport, service: S) {
        let _closing = Closing(self.clone());
        self.server
            .observe(|observer| observer.connection_opened(&self.info));
        // An end by the last step of the shutdown needs no word here: the contexts were told before.
        beside(self.serve(transport, service), self.server.dropping.done()).await;
    }

    pub(super) fn server(&self) -> &Shared {
        &self.server
    }

    pub(super) fn info(&self) -> &ConnInfo {
        &self.info
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The task of the connection is polled anew.
    pub(super) fn begin_poll(&self) {
        self.time_of_poll.clear();
    }

    /// The time, read once for each poll of the connection's task, and only to be asked there.
    pub(super) fn time_of_poll(&self) -> Duration {
        if self.is_elsewhere() {
            return self.server.stopwatch.now();
        }
        self.time_of_poll.begin(|| self.server.stopwatch.now());
        self.time_of_poll.get().unwrap_or_default()
    }

    /// A request's header is complete. Answers since when it was being sent, as far as that is known: on HTTP/2 a header
    /// is one moment.
    pub(super) fn request_began(&self) -> Option<Duration> {
        self.activity.request_began();
        if self.is_http2.load(Relaxed) {
            return None;
        }
        self.activity.header_since.take()
    }

    /// A request's answer is complete, or given up, since `now`.
    pub(super) fn request_ended(&self, now: Duration) {
        self.activity.request_ended(now, !self.is_http2.load(Relaxed));
    }

    /// The client sent something; `owes_more` if that leaves it in the middle of a header.
    pub(super) fn saw_bytes(&self, owes_more: bool) {
        self.heard.store(true, Relaxed);
        match owes_more {
            true => self.activity.header_since.begin(|| self.time_of_poll()),
            false => self.activity.header_since.clear(),
        }
    }

    /// The client has taken some of what is written to it, or has not.
    pub(super) fn wrote(&self, taken: bool) {
        match taken {
            true => self.activity.stalled_since.clear(),
            false => self.activity.stalled_since.begin(|| self.server.stopwatch.now()),
        }
    }

    /// Whether the client has sent anything since this was last asked.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.swap(false, Relaxed)
    }

    /// The next stream to be started is this exchange's.
    pub(super) fn starts(&self, exchange: &Arc<Exchange>) {
        if self.is_http2.load(Relaxed) {
            *self.beginning() = Some(Arc::downgrade(exchange));
        }
    }

    /// The exchange whose stream is being started.
    pub(super) fn take_started(&self) -> Option<Weak<Exchange>> {
        self.beginning().take()
    }

    /// A request asks for another protocol: makes the context of that.
    pub(super) fn offer_upgrade(&self) -> Upgrade {
        let scope = self.context.with_cancel().named("upgrade");
        let upgrade = Upgrade::of(&scope);
        let former = self.upgrade().replace(scope);
        // Outside the lock, as its end may run anything.
        drop(former);
        upgrade
    }

    /// An answer has been given: takes note if it changes the protocol.
    pub(super) fn answers_upgrade(&self, method: &Method, status: StatusCode) {
        let connects = *method == Method::CONNECT && status.is_success();
        if status == StatusCode::SWITCHING_PROTOCOLS || connects {
            self.switches.store(true, Relaxed);
        }
    }

    /// Whether the protocol was changed.
    pub(super) fn switches(&self) -> bool {
        self.switches.load(Relaxed)
    }

    /// Nobody reads or writes the socket any more.
    pub(super) fn lets_go(&self) {
        self.let_go.notify_one();
    }

    /// Waits for that.
    pub(super) async fn let_go(&self) {
        self.let_go.notified().await;
    }

    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.activity.is_busy()
    }

    /// Takes note of what was seen of the client, and ends the context if that is its departure.
    pub(super) fn saw(&self, state: PeerState) {
        let state = match state {
            PeerState::HalfClosed if self.is_http2.load(Relaxed) => PeerState::Closed,
            state => state,
        };
        if !self.peer.saw(state) {
            return;
        }
        let stays = state == PeerState::HalfClosed && self.server.half_close == HalfClose::Stays;
        if let (false, Some(reason)) = (stays, state.reason()) {
            self.activity.departed.begin(|| self.server.stopwatch.now());
            self.scope.cancel_for(reason);
        }
        if state > PeerState::HalfClosed {
            self.departed.notify_one();
        }
    }

    /// Looks whether the client has left, as far as that is known without asking the system.
    pub(super) fn glance(&self) {
        if let Some(state) = self.lookout.get().and_then(Lookout::glance) {
            self.saw(state);
        }
    }

    /// What is known of the client, to be shared with handlers.
    pub(super) fn peer(&self) -> &Arc<Presence> {
        &self.peer
    }

    /// How long ago the client was seen to leave.
    pub(super) fn departed_for(&self) -> Option<Duration> {
        if self.peer.state() == PeerState::Open {
            return None;
        }
        let departed = self.activity.departed.get()?;
        Some(self.server.stopwatch.now().saturating_sub(departed))
    }

    /// Why hyper has dropped an exchange of this connection, when it has; `of_stream` if that was a stream among others.
    pub(super) fn departure(&self, of_stream: bool) -> Reason {
        match self.peer.state().reason() {
            Some(reason) => reason,
            None if self.server.dropping.is_done() => Reason::Shutdown,
            None if of_stream => Reason::StreamReset,
            None => Reason::ClientGone,
        }
    }

    /// Whether somebody else's loop reads and writes it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.driven != Driven::Here
    }

    /// Whether it stands for connections of which nothing is known.
    pub(super) fn is_unknown(&self) -> bool {
        self.driven == Driven::Unknown
    }

    pub(super) fn scope(&self) -> &CancelScope {
        &self.scope
    }

    /// Has the socket of a connection that is driven elsewhere watched, once a request of it waits.
    pub(super) fn arm(self: &Arc<Connection>) {
        if self.driven == Driven::Elsewhere {
            self.outpost.arm(self);
        }
    }

    pub(super) fn outpost(&self) -> &Outpost {
        &self.outpost
    }

    /// Takes note of what is spoken on a connection that is driven elsewhere.
    pub(super) fn speaks(&self, version: Version) {
        self.is_http2.store(version == Version::HTTP_2, Relaxed);
    }

    /// A place for a handler that is to run on without its client, if there is one left.
    pub(super) fn linger(&self, mode: Disconnect) -> Option<Place> {
        let (limits, tally) = (&self.server.limits, &self.server.tally);
        let kind = match mode {
            Disconnect::Detach(_) => &tally.detached,
            Disconnect::Drop | Disconnect::Grace(_) => &tally.in_grace,
        };
        Some(Place {
            _of_connection: self.lingering.raise_below(match self.driven {
                Driven::Unknown => limits.lingering,
                Driven::Here | Driven::Elsewhere => limits.lingering_per_connection,
            })?,
            _of_server: tally.lingering.raise_below(limits.lingering)?,
            _of_kind: kind.raise(),
        })
    }

    async fn serve<S: App>(self: &Arc<Connection>, mut transport: Transport, service: S) {
        let mut store = BytesMut::new();
        let protocol = match self.greet(&mut transport, &mut store).await {
            Ok(protocol) => protocol,
            Err(reason) => return self.scope.cancel_for(reason),
        };
        let outlook = transport.socket().lookout();
        let lookout = self.server.watch.then(|| outlook.clone());
        let wire = Wire::new(transport, store, protocol, self.clone());
        let attendant = Attendant::new(self.clone(), wire.tap(), lookout.clone());
        let service = ConnectionService::new(self.clone(), service);
        match protocol {
            Protocol::Http1 => {
                if let Some(lookout) = lookout {
                    self.lookout.set(lookout).expect("set here only");
                }
                let mut builder = http1::Builder::new();
                // The end of what a client sends is this server's to judge, not the engine's.
                builder.half_close(true);
                builder.header_read_timeout(None).max_buf_size(HTTP1_BUFFER);
                let http = builder.serve_connection(TokioIo::new(wire), service);
                let mut http = pin!(http.with_upgrades());
                let over = drive(self, http.as_mut(), attendant).await;
                // From here on hyper's future is still there (invariant 1).
                if let (Over::Finished(Ok(())), Some(scope)) = (&over, self.take_upgrade()) {
                    upgrade::outlive(self, scope, &outlook).await;
                }
                self.end(over);
            }
            Protocol::Http2 => {
                self.is_http2.store(true, Relaxed);
                let mut builder = http2::Builder::new(Streams::new(self.clone()));
                builder.timer(silence::Timer(self.server.clock.clone()));
                builder.keep_alive_interval(silence::ping_interval(&self.server.limits));
                // The answer is for `silence` to judge.
                builder.keep_alive_timeout(silence::LONGEST);
                let mut http = pin!(builder.serve_connection(TokioIo::new(wire), service));
                let over = drive(self, http.as_mut(), attendant).await;
                self.end(over);
            }
        }
    }

    /// The owner of the upgrade's context, if the protocol has been changed.
    fn take_upgrade(&self) -> Option<CancelScope> {
        let scope = self.upgrade().take();
        scope.filter(|_| self.switches())
    }

    /// Waits for the first bytes and finds out the protocol, within the limits. What is idle here ends with the drain.
    async fn greet(&self, transport: &mut Transport, store: &mut BytesMut) -> Result<Protocol, Reason> {
        let limits = &self.server.limits;
        let accepted = self.server.stopwatch.now();
        let first = wire::first_bytes(transport, store);
        match self
            .hear(accepted, limits.first_byte, "first byte", first)
            .await?
        {
            Ok(true) => {}
            Ok(false) => return Err(self.gone(PeerState::Closed)),
            Err(error) => return Err(self.gone(PeerState::of_error(&error))),
        }
        self.saw_bytes(true);
        let protocol = wire::protocol(transport, store);
        let protocol = self.hear(accepted, limits.header, "header", protocol).await?;
        protocol.map_err(|error| self.gone(PeerState::of_error(&error)))
    }

    /// Waits for what a client sends first, within a limit of this name. Once the drain has begun, it is waited for as long
    /// as the client may not have had the time to send it: it was accepted, so it is to be answered.
    async fn hear<T>(
        &self,
        accepted: Duration,
        limit: Duration,
        name: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Reason> {
        let draining = &self.server.draining;
        let mut work = pin!(work);
        match draining.timeout(limit, work.as_mut()).await {
            Ok(heard) => Ok(heard),
            Err(_) if draining.is_done() => {
                let age = self.server.stopwatch.now().saturating_sub(accepted);
                let rest = FRESH.min(limit).saturating_sub(age);
                let heard = self.server.clock.timeout(rest, work).await;
                heard.map_err(|_| Reason::Shutdown)
            }
            Err(_) => Err(Reason::Limit(name)),
        }
    }

    fn gone(&self, state: PeerState) -> Reason {
        self.saw(state);
        state.reason().unwrap_or(Reason::ClientGone)
    }

    /// Ends the context with the reason that fits.
    fn end(&self, over: Over) {
        match over {
            _ if self.peer.state() > PeerState::Open => self.scope.cancel_for(self.departure(false)),
            Over::Departed => self.scope.cancel_for(self.departure(false)),
            Over::Finished(_) | Over::Limit("idle") if self.server.draining.is_done() => {
                self.scope.cancel_for(Reason::Shutdown)
            }
            Over::Limit(limit) => self.scope.cancel_for(Reason::Limit(limit)),
            Over::Finished(Ok(())) => self.scope.cancel_for(Reason::ResponseEnded),
            Over::Finished(Err(error)) => self.scope.cancel_with(error),
        }
    }

    /// Waits until nothing can be answered any more.
    pub(super) async fn departure_seen(&self) {
        let silent = async {
            match self.is_http2.load(Relaxed) {
                true => silence::silence(self).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.departed.notified() => {}
            () = silent => self.saw(PeerState::Unreachable),
        }
    }

    /// The limit of invariant 2 that passes next, and what is left of it.
    pub(super) fn nearest_limit(&self, idle: Duration) -> Option<(Duration, &'static str)> {
        let limits = &self.server.limits;
        let now = self.server.stopwatch.now();
        let rest_of = |limit: Duration, since: Duration| limit.saturating_sub(now.saturating_sub(since));
        let waiting = match self.activity.waiting() {
            Waiting::Header(since) => Some((rest_of(limits.header, since), "header")),
            Waiting::Idle(since) => Some((rest_of(idle, since), "idle")),
            Waiting::Not => None,
        };
        let stalled = self.activity.stalled_since.get();
        let stalled = stalled.map(|since| (rest_of(limits.write_stall, since), "write stall"));
        waiting.into_iter().chain(stalled).min()
    }

    pub(super) fn restart_idle(&self) {
        self.activity.restart_idle(self.server.stopwatch.now());
    }

    fn upgrade(&self) -> MutexGuard<'_, Option<CancelScope>> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beginning(&self) -> MutexGuard<'_, Option<Weak<Exchange>>> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let conn = &self.0;
        // Only if nobody said why before: the task itself panicked or was given up.
        conn.scope.cancel_for(conn.departure(false));
        if let Some(end) = conn.scope.err() {
            conn.server
                .observe(|observer| observer.connection_closed(&conn.info, &end));
        }
    }
}
