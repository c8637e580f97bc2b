//! One connection: its context, its protocol, its limits, its end.
//!
//! # Invariants
//!
//! 1. The connection's context ends with its reason before the engine's future is dropped, so that whatever a handler sees of
//!    that drop it can explain.
//! 2. While nothing is in flight, and no tunnel is open, exactly one limit runs: first byte, header or idle. Otherwise none of
//!    these does; the requests have their own. The limit on stalled writes runs whenever a write waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bequest::{CancelScope, Context, Reason};
use http::{Method, StatusCode, Version};
use tokio::sync::Notify;

use super::activity::{Activity, Stamp};
use super::disconnect::Disconnect;
use super::observe::ConnInfo;
use super::outpost::Outpost;
use super::peer::{HalfClose, PeerState, Presence};
use super::resets::Resets;
use super::shared::Shared;
use super::socket::Lookout;
use super::statistics::{Gauge, Raised};
use super::turn::Answers;
use super::upgrade::{Offers, Upgrade};
use crate::heard::Heard;

mod life;

pub(super) use life::FRESH;

/// One connection, as its requests share it.
pub(super) struct Connection {
    server: Arc<Shared>,
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
    /// When the client has sent something last. HTTP/2 only; written by the connection's task.
    heard: Stamp,
    /// Whether the client is to be asked whether it is there. HTTP/2 only; written by the connection's task.
    asks: AtomicBool,
    /// Whether the client has ever reset a stream. Written by whoever reads, before the engine hears of it.
    has_reset: AtomicBool,
    /// Of its streams, as far as they were requests. HTTP/2 only.
    resets: Resets,
    /// Whether these have become too many. Written by whoever ends such a request.
    is_flooded: AtomicBool,
    /// Of its streams that are tasks. HTTP/2 only.
    answers: Answers,
    /// The owner of the context of a protocol that the client asks to change to.
    upgrades: Offers,
    /// Whether that change was answered for. Written by whoever answers.
    switches: AtomicBool,
    /// Whether a response of it has no end but the server's shutdown, or was ended by that. Written by that response.
    ends_with_shutdown: AtomicBool,
    /// Told when nobody holds the socket for reading and writing any more.
    let_go: Notify,
    /// Told when nothing can be answered any more, or is to be.
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

/// A tunnel of HTTP/2 is open for as long as this is there, and its connection not idle.
pub(super) struct OpenTunnel(Arc<Connection>);

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
            scope,
            context,
            activity: Activity::idle(idle_since, server.tally.requests.of_connection()),
            time_of_poll: Stamp::default(),
            peer: Arc::new(Presence::of(info)),
            lookout: OnceLock::new(),
            is_http2: AtomicBool::new(false),
            heard: Stamp::default(),
            asks: AtomicBool::new(false),
            has_reset: AtomicBool::new(false),
            resets: Resets::default(),
            is_flooded: AtomicBool::new(false),
            answers: Answers::default(),
            upgrades: Offers::default(),
            switches: AtomicBool::new(false),
            ends_with_shutdown: AtomicBool::new(false),
            let_go: Notify::new(),
            departed: Notify::new(),
            lingering: Gauge::default(),
            driven,
            outpost: Outpost::default(),
            server,
        }
    }

    pub(super) fn server(&self) -> &Shared {
        &self.server
    }

    pub(super) fn info(&self) -> &ConnInfo {
        self.peer.info()
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

    /// How much of the present poll has gone by.
    pub(super) fn spent_in_poll(&self) -> Duration {
        let began = self.time_of_poll.get().unwrap_or_default();
        self.server.stopwatch.now().saturating_sub(began)
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// A request's header is complete. Answers since when it was being sent, as far as that is known: on HTTP/2 a header
    /// is one moment.
    pub(super) fn request_began(&self) -> Option<Duration> {
        self.activity.request_began(!self.is_elsewhere());
        if self.is_http2.load(Relaxed) {
            return None;
        }
        self.activity.header_since.take()
    }

    /// A request's answer is complete, or given up, since `now`. To be said last of it.
    pub(super) fn request_ended(&self, now: Duration, served: bool) {
        self.activity
            .request_ended(now, served, !self.is_http2.load(Relaxed));
    }

    /// The client sent something; `owes_more` if that leaves it in the middle of a header, `resets` if it has reset a stream
    /// by it.
    pub(super) fn saw_bytes(&self, owes_more: bool, resets: bool) {
        if self.is_http2() {
            self.hears();
        }
        if resets {
            self.has_reset.store(true, Relaxed);
        }
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

    /// The client is there.
    pub(super) fn hears(&self) {
        self.heard.set(self.time_of_poll());
    }

    /// Has the client asked whether it is there, in the next poll of the connection's task in which that is possible.
    pub(super) fn ask(&self) {
        self.asks.store(true, Relaxed);
    }

    /// Whether it is to be.
    pub(super) fn is_to_be_asked(&self) -> bool {
        self.asks.load(Relaxed)
    }

    /// That is done.
    pub(super) fn was_asked(&self) {
        self.asks.store(false, Relaxed);
    }

    /// When the client has sent something last.
    pub(super) fn heard(&self) -> Duration {
        self.heard.get().unwrap_or_default()
    }

    /// What the system has heard of the client, if it tells.
    pub(super) fn heard_by_system(&self) -> Option<Heard> {
        let info = self.info();
        self.server.heard_by_system(info.local_addr, info.peer_addr)
    }

    /// Whether the client has ever reset a stream.
    pub(super) fn resets(&self) -> bool {
        self.has_reset.load(Relaxed)
    }

    /// A request has ended at `now`, as its stream was reset. If that is one too many, the connection is closed.
    pub(super) fn counts_reset(&self, now: Duration) {
        let (served, limit) = (self.activity.served(), self.server.limits.resets);
        if self.driven == Driven::Here && self.resets.one_more(served, now, limit) {
            self.is_flooded.store(true, Relaxed);
            self.departed.notify_one();
        }
    }

    /// Whether the client has reset too many streams.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Relaxed)
    }

    /// A request asks for another protocol: makes the context of that.
    pub(super) fn offer_upgrade(&self) -> Upgrade {
        let upgrade = self.upgrades.offer(&self.context, self.is_http2());
        if self.server.draining.is_done() {
            self.end_tunnels();
        }
        upgrade
    }

    /// A tunnel of HTTP/2 is open from now on.
    pub(super) fn opens_tunnel(self: &Arc<Connection>) -> OpenTunnel {
        self.activity.tunnel_began();
        OpenTunnel(self.clone())
    }

    /// Tells the tunnels of HTTP/2 of the shutdown. What HTTP/1 changes to is told by whoever looks after it.
    pub(super) fn end_tunnels(&self) {
        if self.is_http2() {
            self.upgrades.end(Reason::Shutdown);
        }
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

    /// A response that ends with the server's shutdown has begun, or ended before that.
    pub(super) fn set_ends_with_shutdown(&self, ends: bool) {
        self.ends_with_shutdown.store(ends, Relaxed);
    }

    /// Whether the shutdown has ended a response of it, and nothing else is under way.
    pub(super) fn is_shut_down(&self) -> bool {
        self.ends_with_shutdown.load(Relaxed)
            && self.server.draining.is_done()
            && !(self.is_http2() && self.is_in_use())
    }

    /// Nobody reads or writes the socket any more.
    pub(super) fn lets_go(&self) {
        self.let_go.notify_one();
    }

    /// Waits for that.
    pub(super) async fn let_go(&self) {
        self.let_go.notified().await;
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.activity.is_busy()
    }

    /// Whether a request is being served, or a tunnel is open.
    pub(super) fn is_in_use(&self) -> bool {
        self.is_busy() || self.activity.has_tunnels()
    }

    /// Whether it has as many handlers as it may have: those at work, those of streams that were reset and are not dropped
    /// yet, and those that linger. Of HTTP/1 there is one at a time.
    pub(super) fn is_full(&self) -> bool {
        let limits = &self.server.limits;
        let streams = usize::try_from(limits.streams).unwrap_or(usize::MAX);
        let most = streams.saturating_add(limits.lingering_per_connection);
        self.is_http2.load(Relaxed) && self.activity.in_flight() + self.lingering.get() >= most
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

    /// Why the engine has dropped an exchange of this connection, when it has; `of_stream` if that was a stream among others.
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
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.activity.tunnel_ended(conn.server.stopwatch.now());
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}
