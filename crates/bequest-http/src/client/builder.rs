//! Setting a client up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::dial::{Connector, Dialler};
use super::hosts::Hosts;
use super::observe::{Observed, Observer};
use super::ready::Client;
use super::silence;
#[cfg(feature = "tls")]
use super::tls::{Https, Tls};
use crate::wire::Outbound;

/// Longer than this is for ever.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The settings of a client that is about to be made. Made by [`Client::builder`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    limits: Limits,
    outbound: Outbound,
    is_http2: bool,
    observer: Option<Observer>,
}

/// A client's limits. A parameter struct: name what differs and take the rest from [`Limits::default`].
///
/// ```
/// use bequest_http::client::Limits;
/// use std::time::Duration;
///
/// let limits = Limits { exchanges_per_host: 8, ..Limits::default() };
/// assert_eq!(limits.connect, Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the beginning of a dial to a connection. It goes on without its request, up to here. Default 10 s.
    pub connect: Duration,
    /// From the call to the end of the answer's body, as a deadline below the caller's. Default 60 s. Reason
    /// `Limit("exchange")`.
    pub exchange: Duration,
    /// How long a peer with an exchange open may be silent, though it is asked for a sign of life: then the connection is closed,
    /// its exchanges fail ([`Error::is_unreachable`](super::Error::is_unreachable)), and the next one dials anew. Default 30 s;
    /// [`Duration::MAX`]: for ever. It is asked by PING on HTTP/2, after half of the limit. On HTTP/1 the system asks the peer's
    /// system, in whole seconds: by keepalive, on connections that the client dials with its own connector; and on Linux it also
    /// repeats what was sent, on those of which the connector says between which addresses they are (`HttpInfo`).
    pub unreachable: Duration,
    /// How long a connection is kept without use. Default 90 s.
    pub idle: Duration,
    /// How many connections of one host are kept without use. Default 32.
    pub idle_per_host: usize,
    /// How many exchanges one host may have at once; further ones wait their turn. Default 256.
    pub exchanges_per_host: usize,
}

impl Builder {
    /// Sets the limits; [`Limits::default`] otherwise.
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Sets what goes out with each request; [`Outbound::default`] otherwise: the remaining time, and nothing else.
    pub fn outbound(mut self, outbound: Outbound) -> Builder {
        self.outbound = outbound;
        self
    }

    /// Sets who is told of all exchanges of the client; nobody otherwise. [`Observer::carried_by`] is for some of them.
    pub fn observer(mut self, observer: Observer) -> Builder {
        self.observer = Some(observer);
        self
    }

    /// Speaks HTTP/2 from the first byte, to peers that are known to understand it. HTTP/1.1 otherwise.
    pub fn http2(mut self) -> Builder {
        self.is_http2 = true;
        self
    }

    /// A client for `http` URIs.
    ///
    /// # Panics
    ///
    /// The client is to be used inside a tokio runtime with its timer enabled, and panics elsewhere.
    pub fn build(self) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        silence::tune(&mut connector, self.limits.unreachable);
        self.build_with(connector)
    }

    /// A client for `https` URIs, and for `http` ones. Which protocol is spoken is agreed on with each peer (ALPN): HTTP/2
    /// where it has that.
    ///
    /// # Panics
    ///
    /// As [`build`](Builder::build).
    #[cfg(feature = "tls")]
    pub fn build_tls(self, tls: Tls) -> Client<Https> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        silence::tune(&mut connector, self.limits.unreachable);
        connector.enforce_http(false);
        self.build_tls_with(connector, tls)
    }

    /// The same around a connector that connects to the hosts of `https` URIs as well.
    #[cfg(feature = "tls")]
    pub fn build_tls_with<C: Connector>(self, connector: C, tls: Tls) -> Client<Https<C>> {
        let connector = Https::new(connector, tls, self.is_http2);
        self.build_with(connector)
    }

    /// A client that dials with `connector`, for example one that speaks TLS.
    pub fn build_with<C: Connector>(self, connector: C) -> Client<C> {
        let observed = Observed::default();
        let dialler = Dialler::new(connector, self.limits.clone(), self.is_http2, observed.clone());
        let ping = Some(self.limits.unreachable / 2).filter(|half| *half < LONGEST);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(ping)
            .http2_keep_alive_timeout(ping.unwrap_or(LONGEST))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.limits.idle)
            .pool_max_idle_per_host(self.limits.idle_per_host)
            .http2_only(self.is_http2)
            // What comes late for a stream that was given up is an error of the peer's to the engine, which would close the
            // connection after 1024 of those, with everybody else's exchanges on it.
            .http2_max_local_error_reset_streams(None)
            .build(dialler);
        Client {
            pool,
            hosts: Arc::new(Hosts::new(self.limits.exchanges_per_host)),
            is_http2: self.is_http2,
            exchange: self.limits.exchange,
            outbound: Arc::new(self.outbound),
            observer: self.observer,
            observed,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(10),
            exchange: Duration::from_secs(60),
            unreachable: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            idle_per_host: 32,
            exchanges_per_host: 256,
        }
    }
}

impl<C: Connector> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("exchange", &self.exchange)
            .field("outbound", &self.outbound)
            .finish_non_exhaustive()
    }
}
