//! The other side of a connection: what is known of it, and what a half-closed connection means.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use bequest::Reason;

use super::disconnect::ExchangeHandle;
use super::observe::ConnInfo;

/// What the server knows of the client behind a request. Found in the request's extensions.
///
/// The context says *that* nobody waits any more; this says what was seen of the socket. A handler that would rather
/// answer a client that may still be reading asks it before it gives up.
///
/// # Example: telling half-closed from gone
///
/// ```
/// use bequest_http::server::{Peer, PeerState};
///
/// async fn report(request: http::Request<bequest_http::server::RequestBody>) -> http::Response<String> {
///     let peer = request.extensions().get::<Peer>().expect("each request has one");
///     let body = match peer.state() {
///         PeerState::Open | PeerState::HalfClosed => "it may still be reading",
///         _ => "nobody reads this",
///     };
///     http::Response::new(body.to_owned())
/// }
/// ```
#[derive(Clone)]
pub struct Peer {
    pub(super) presence: Arc<Presence>,
    /// Rides along, so that a request carries one thing less.
    pub(super) exchange: ExchangeHandle,
}

/// How far a client has left. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerState {
    /// Nothing was seen of a departure.
    Open,
    /// On HTTP/1, it has closed its sending side. Whether it still reads can not be known before something is written to
    /// it: a process that has ended and one that waits for its answer look alike.
    HalfClosed,
    /// It has closed a connection that has no half-closed state (HTTP/2).
    Closed,
    /// It refuses to take anything more: the connection was reset, or writing to it failed.
    Reset,
    /// It has not answered for [`Limits::unreachable`](super::Limits::unreachable), and closed nothing.
    Unreachable,
}

/// What it means that an HTTP/1 client closes its sending side while a request of it is being served.
///
/// On the wire the end of a process and `shutdown(SHUT_WR)` are the same segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HalfClose {
    /// It counts as gone: the context ends with [`ClientGone`](bequest::Reason::ClientGone), and the handler has its grace.
    /// What it answers within that is sent, so that a client that is still reading gets its answer. As in Go.
    #[default]
    Gone,
    /// It stays: the context goes on until the connection is reset, writing to it fails, or a limit passes. For services
    /// whose clients half-close by habit; a client that has really left is then noticed late.
    Stays,
}

/// What stands behind a [`Peer`].
#[derive(Debug)]
pub(super) struct Presence {
    info: ConnInfo,
    /// A `PeerState` as a number. Only ever raised.
    state: AtomicU8,
}

impl Peer {
    /// What is known now.
    pub fn state(&self) -> PeerState {
        self.presence.state()
    }

    /// The connection on which the request came: its number and its addresses.
    pub fn conn(&self) -> &ConnInfo {
        &self.presence.info
    }
}

impl Presence {
    pub(super) fn of(info: ConnInfo) -> Presence {
        Presence {
            info,
            state: AtomicU8::new(PeerState::Open as u8),
        }
    }

    pub(super) fn info(&self) -> &ConnInfo {
        &self.info
    }

    pub(super) fn state(&self) -> PeerState {
        match self.state.load(Relaxed) {
            0 => PeerState::Open,
            1 => PeerState::HalfClosed,
            2 => PeerState::Closed,
            3 => PeerState::Reset,
            _ => PeerState::Unreachable,
        }
    }

    /// Moves down the list. Says whether that was news.
    pub(super) fn saw(&self, state: PeerState) -> bool {
        let new = state as u8;
        self.state.fetch_max(new, Relaxed) < new
    }
}

impl PeerState {
    /// What an error of the socket says about the client.
    pub(super) fn of_error(error: &io::Error) -> PeerState {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                PeerState::Unreachable
            }
            _ => PeerState::Reset,
        }
    }

    /// The reason with which contexts end in this state.
    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            PeerState::Open => None,
            PeerState::HalfClosed | PeerState::Closed | PeerState::Reset => Some(Reason::ClientGone),
            PeerState::Unreachable => Some(Reason::Unreachable),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence() -> Presence {
        let nowhere = ([0, 0, 0, 0], 0).into();
        Presence::of(ConnInfo::new(0, nowhere, nowhere))
    }

    #[test]
    fn what_the_system_says_of_a_silent_peer_is_unreachable() {
        for kind in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
        ] {
            let state = PeerState::of_error(&io::Error::from(kind));
            assert_eq!(state.reason(), Some(Reason::Unreachable));
        }
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(PeerState::of_error(&reset), PeerState::Reset);
    }

    #[test]
    fn a_state_only_moves_down() {
        let presence = presence();
        assert!(presence.saw(PeerState::HalfClosed));
        assert!(!presence.saw(PeerState::HalfClosed));
        assert!(presence.saw(PeerState::Reset));
        assert!(!presence.saw(PeerState::Closed));
        assert_eq!(presence.state(), PeerState::Reset);
    }
}
