//! What all connections of one server share: settings, counters, and the contexts of its life.
//!
//! The life of a server has three contexts, none above another: `context`, from which connections derive and which ends
//! with `Shutdown` once the drain is over; `draining`, which ends first, when no new work is wanted; and `dropping`,
//! which ends last, when nothing is waited for any longer.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bequest::Context;
use http::Uri;

use super::builder::{ConnContext, MakeStandIn, RequestContext};
use super::disconnect::Disconnect;
use super::inbound::Inbound;
use super::limits::Limits;
use super::observe::Observer;
use super::panic;
use super::peer::HalfClose;
use super::statistics::Tally;
use crate::heard::{Heard, SockDiag};

pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) disconnect: Disconnect,
    pub(super) half_close: HalfClose,
    /// Whether sockets are watched.
    pub(super) watch: bool,
    pub(super) inbound: Inbound,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Tls>,
    pub(super) observer: Arc<dyn Observer>,
    /// Whether the program has set one.
    pub(super) is_observed: bool,
    pub(super) conn_context: Option<Arc<ConnContext>>,
    pub(super) request_context: Option<Arc<RequestContext>>,
    pub(super) stand_in: Option<Arc<MakeStandIn>>,
    pub(super) tally: Arc<Tally>,
    /// For asking the system about peers, where it answers. Set with the first connection.
    pub(super) sock_diag: OnceLock<Option<SockDiag>>,
    /// Kept, so that a handler dropped outside the runtime can still be given its grace.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) context: Context,
    pub(super) draining: Context,
    pub(super) dropping: Context,
    /// Never ends; has the server's clock.
    pub(super) clock: Arc<Context>,
    pub(super) stopwatch: Stopwatch,
}

/// The time since the server began, on the clock of its context.
pub(super) struct Stopwatch {
    clock: Context,
    began: Instant,
}

impl Shared {
    /// Lets this much time pass.
    pub(super) async fn pause(&self, time: Duration) {
        // `clock` never ends, so the only outcome is that the time has passed.
        let _ = self.clock.sleep(time).await;
    }

    /// What to keep of the URI of a request. A copy of a host is an exchange on a counter, and another one when it goes.
    pub(super) fn uri_to_tell(&self, uri: &Uri) -> Uri {
        match uri.path_and_query() {
            Some(path) if !self.is_observed && self.stand_in.is_none() => Uri::from(path.clone()),
            _ => uri.clone(),
        }
    }

    /// Whether the system says what it has heard on this connection. Connections of one listener are alike, so it is found out with
    /// the first one.
    pub(super) fn can_be_asked(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let open = || SockDiag::open().filter(|sock_diag| sock_diag.ask(local, peer).is_some());
        self.sock_diag.get_or_init(open).is_some()
    }

    /// What the system has heard on this connection.
    pub(super) fn heard_by_system(&self, local: SocketAddr, peer: SocketAddr) -> Option<Heard> {
        self.sock_diag.get()?.as_ref()?.ask(local, peer)
    }

    /// Tells the observer something. A panic of the observer ends there: its message went through the panic hook.
    pub(super) fn observe(&self, tell: impl FnOnce(&dyn Observer)) {
        let _ = panic::catch(|| tell(&*self.observer));
    }
}

impl Stopwatch {
    pub(super) fn start(clock: &Context) -> Stopwatch {
        Stopwatch {
            clock: clock.clone(),
            began: clock.now(),
        }
    }

    /// This time of the stopwatch on its clock; `None` if that can not hold it.
    pub(super) fn instant(&self, at: Duration) -> Option<Instant> {
        self.began.checked_add(at)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.began)
    }

    /// As `now`, a fifth of the price, and up to a tick of the system behind.
    pub(super) fn now_coarse(&self) -> Duration {
        self.clock.now_coarse().saturating_duration_since(self.began)
    }
}
