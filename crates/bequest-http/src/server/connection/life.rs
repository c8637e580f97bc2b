//! The life of a connection that this server reads and writes: greeting, protocol, end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bequest::{CancelScope, Reason};
use bytes::BytesMut;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;

use super::Connection;
use crate::server::activity::Waiting;
use crate::server::attend::Attendant;
use crate::server::bell::beside;
use crate::server::calls::ConnectionService;
use crate::server::drive::{Over, RESETS, drive};
use crate::server::http2::Http2;
use crate::server::peer::PeerState;
use crate::server::service::App;
use crate::server::socket::Lookout;
use crate::server::transport::Transport;
use crate::server::wire::{self, Protocol, Tap, Wire};
use crate::server::{silence, upgrade};

/// A client that was accepted is not closed for its silence before this long when the drain begins: its request may be on
/// its way.
pub(in crate::server) const FRESH: Duration = Duration::from_secs(1);

/// The limit on how long a reader may leave the last word of a stream untaken that the shutdown has ended.
const LAST_WORD: &str = "last word";

/// The largest header of HTTP/1, and when its engine stops to ask for more of what a client sends.
const HTTP1_BUFFER: usize = 64 * 1024;

/// Reports the close on every way out.
struct Closing(Arc<Connection>);

impl Connection {
    /// Serves the connection to its end.
    pub(in crate::server) async fn run<S: App>(self: Arc<Connection>, transport: Transport, service: S) {
        let _closing = Closing(self.clone());
        self.server
            .observe(|observer| observer.connection_opened(self.info()));
        // An end by the last step of the shutdown needs no word here: the contexts were told before.
        // In a box, as it is large and would be moved with the task that it is a part of, several times.
        let serving = Box::pin(self.serve(transport, service));
        beside(serving, self.server.dropping.done()).await;
    }

    /// Both engines are in boxes, so that this has the size of neither.
    async fn serve<S: App>(self: &Arc<Connection>, mut transport: Transport, service: S) {
        let mut store = BytesMut::new();
        let protocol = match self.greet(&mut transport, &mut store).await {
            Ok(protocol) => protocol,
            Err(reason) => return self.scope.cancel_for(reason),
        };
        let outlook = transport.socket().lookout();
        let lookout = self.server.watch.then(|| outlook.clone());
        let wire = Wire::new(transport, store, protocol, self.clone());
        let attendant = Attendant::new(self.clone(), wire.tap(), outlook.clone());
        match protocol {
            Protocol::Http1 => {
                if let Some(lookout) = lookout {
                    self.lookout.set(lookout).expect("set here only");
                }
                let mut builder = http1::Builder::new();
                // The end of what a client sends is this server's to judge, not the engine's.
                builder.half_close(true);
                builder.header_read_timeout(None);
                builder.max_buf_size(HTTP1_BUFFER).max_header_size(HTTP1_BUFFER);
                let service = ConnectionService::new(self.clone(), service);
                let http = builder.serve_connection(TokioIo::new(wire), service);
                let mut http = Box::pin(http.with_upgrades());
                let over = drive(self, http.as_mut(), attendant).await;
                // The engine's future is still there, and stays until the context has ended (invariant 1).
                if let (Over::Finished(Ok(())), Some(scope)) = (&over, self.take_upgrade()) {
                    upgrade::outlive(self, scope, &outlook).await;
                }
                self.end(over);
            }
            Protocol::Http2 => {
                self.is_http2.store(true, Relaxed);
                let tap = wire.tap();
                let mut http = Box::pin(Http2::new(self.clone(), service, wire));
                let over = drive(self, http.as_mut(), attendant).await;
                self.end(over);
                drop(http);
                if self
                    .scope
                    .err()
                    .is_some_and(|end| end.reason() == Reason::Limit(RESETS))
                {
                    self.send_away(&tap, &outlook).await;
                }
            }
        }
    }

    /// The owner of the upgrade's context, if the protocol has been changed.
    fn take_upgrade(&self) -> Option<CancelScope> {
        let scope = self.upgrades.take();
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
        self.saw_bytes(true, false);
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
            Over::Finished(_) | Over::Limit("idle" | LAST_WORD) if self.server.draining.is_done() => {
                self.scope.cancel_for(Reason::Shutdown)
            }
            Over::Limit(limit) => self.scope.cancel_for(Reason::Limit(limit)),
            Over::Finished(Ok(())) => self.scope.cancel_for(Reason::ResponseEnded),
            Over::Finished(Err(error)) => self.scope.cancel_with(error),
        }
    }

    /// Tells a client why its connection is closed, and gives it a moment to take that: what it has sent meanwhile would make of
    /// the close a reset, and the system would forget what was said.
    async fn send_away(&self, tap: &Tap, outlook: &Lookout) {
        self.server.tally.closed_for_resets.fetch_add(1, Relaxed);
        // Whoever drains has said goodbye already.
        if self.server.draining.is_done() {
            return;
        }
        let goes = async {
            tap.send_away().await;
            outlook.departure().await;
        };
        // Nobody waits for a client that stays.
        let _ = self.server.clock.timeout(self.server.limits.answer, goes).await;
    }

    /// Waits until nothing can be answered any more, or is to be.
    pub(in crate::server) async fn departure_seen(&self) {
        let silent = async {
            match self.is_http2.load(Relaxed) {
                true => silence::silence(self).await,
                false => silence::unheard(self, || self.is_busy()).await,
            }
        };
        tokio::select! {
            () = self.departed.notified() => {}
            () = silent => self.saw(PeerState::Unreachable),
        }
    }

    /// The limit of invariant 2 that passes next, and what is left of it.
    pub(in crate::server) fn nearest_limit(&self, idle: Duration) -> Option<(Duration, &'static str)> {
        let limits = &self.server.limits;
        let now = self.server.stopwatch.now();
        let rest_of = |limit: Duration, since: Duration| limit.saturating_sub(now.saturating_sub(since));
        let waiting = match self.activity.waiting() {
            Waiting::Header(since) => {
                // Other frames than headers can come by halves too, again and again, and keep no connection open.
                let idle_since = self.activity.idle_since().unwrap_or_default();
                let longest = rest_of(idle.saturating_add(limits.header), idle_since);
                Some((rest_of(limits.header, since), "header").min((longest, "idle")))
            }
            Waiting::Idle(since) => Some((rest_of(idle, since), "idle")),
            Waiting::Not => None,
        };
        let stalled = self.activity.stalled_since.get();
        let stalled = stalled.map(|since| match self.is_shut_down() {
            true => (rest_of(limits.answer, since), LAST_WORD),
            false => (rest_of(limits.write_stall, since), "write stall"),
        });
        waiting.into_iter().chain(stalled).min()
    }

    pub(in crate::server) fn restart_idle(&self) {
        self.activity.restart_idle(self.server.stopwatch.now());
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let conn = &self.0;
        // Only if nobody said why before: the task itself panicked or was given up.
        conn.scope.cancel_for(conn.departure(false));
        if let Some(end) = conn.scope.err() {
            conn.server
                .observe(|observer| observer.connection_closed(conn.info(), &end));
        }
    }
}
