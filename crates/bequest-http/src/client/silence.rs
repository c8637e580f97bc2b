//! A peer of HTTP/1 that falls silent amid an exchange. On HTTP/2 the engine asks, with PING.
//!
//! Keepalive is the system's, and finds a peer of which nothing but an answer is awaited. What is sent to one that is gone, as on a
//! connection that was kept, the system repeats for a quarter of an hour; so it is asked what it has heard.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bequest::Context;
use http::Extensions;
use hyper_util::client::legacy::connect::{Connected, HttpConnector, HttpInfo};

use crate::heard::{Keepalive, Look, SHORTEST, SockDiag, bounded};

/// Has the system ask a silent peer on the connections of this connector.
pub(super) fn tune(connector: &mut HttpConnector, limit: Duration) {
    if let Some(limit) = bounded(limit) {
        let plan = Keepalive::within(limit);
        connector.set_keepalive(Some(plan.time));
        connector.set_keepalive_interval(Some(plan.interval));
        connector.set_keepalive_retries(Some(plan.probes));
    }
}

/// For asking the system, once it is needed. All connections of a client share it.
#[derive(Clone, Debug, Default)]
pub(super) struct System(Arc<OnceLock<Option<SockDiag>>>);

/// The silence of one peer.
pub(super) struct Silence {
    limit: Duration,
    local: SocketAddr,
    peer: SocketAddr,
    system: System,
    /// Until the next look.
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Silence {
    /// Of the peer at the other end, if it is to be limited and the connection says between which addresses it is.
    pub(super) fn of(connected: &Connected, limit: Duration, system: System) -> Option<Silence> {
        let limit = bounded(limit)?.max(SHORTEST);
        let mut extensions = Extensions::new();
        connected.get_extras(&mut extensions);
        let info = extensions.get::<HttpInfo>()?;
        Some(Silence {
            limit,
            local: info.local_addr(),
            peer: info.remote_addr(),
            system,
            wait: wait(limit),
        })
    }

    /// Ready when the system hears nothing of the peer any more.
    pub(super) fn poll_lost(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            ready!(self.wait.as_mut().poll(cx));
            let system = self.system.0.get_or_init(SockDiag::open);
            let heard = system
                .as_ref()
                .and_then(|system| system.ask(self.local, self.peer));
            let rest = match heard.map(|heard| heard.look(self.limit)) {
                Some(Look::Lost) => return Poll::Ready(()),
                Some(Look::Again(rest)) => rest,
                None => self.limit,
            };
            self.wait = wait(rest);
        }
    }
}

fn wait(rest: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        // The background never ends, so the only outcome is that the time has passed.
        let _ = Context::background().sleep(rest).await;
    })
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence")
            .field("limit", &self.limit)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
