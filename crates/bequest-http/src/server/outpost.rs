//! Watching the socket of a connection that somebody else's loop reads and writes.
//!
//! The watch has a handle of its own on the socket, as whoever drives it does not share theirs. It is made when the
//! connection is introduced, and waited on only once a request of it waits.
//!
//! # Invariants
//!
//! 1. The second handle is closed when the service of the connection is dropped, so that it does not keep a connection
//!    open that its owner has closed.
//! 2. It is never read from, written to or shut down; a look at what waits there leaves that where it is.

use std::io;
use std::mem::MaybeUninit;
use std::net;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::connection::Connection;
use super::peer::PeerState;

/// The place from which a socket is watched.
#[derive(Debug, Default)]
pub(super) struct Outpost(Mutex<Watch>);

#[derive(Debug, Default)]
enum Watch {
    /// Nothing to watch, or not any more.
    #[default]
    Off,
    /// To be armed once a request waits.
    Ready(net::TcpStream),
    Armed(Arc<tokio::net::TcpStream>, AbortHandle),
}

impl Outpost {
    /// Makes this second handle on a socket ready to be watched.
    pub(super) fn man(&self, second: net::TcpStream) {
        *self.watch() = Watch::Ready(second);
    }

    /// Begins to watch, unless that has been done.
    pub(super) fn arm(&self, conn: &Arc<Connection>) {
        let mut watch = self.watch();
        if let Watch::Ready(_) = &*watch {
            if let Watch::Ready(second) = std::mem::take(&mut *watch) {
                *watch = begin(second, conn).unwrap_or_default();
            }
        }
    }

    /// Stops watching, and closes the second handle.
    pub(super) fn abandon(&self) {
        let watch = std::mem::take(&mut *self.watch());
        if let Watch::Armed(_, task) = watch {
            task.abort();
        }
    }

    /// Asks the system whether the client has left, as far as nothing unread stands before that.
    pub(super) fn look(&self) -> Option<PeerState> {
        let peeked = match &*self.watch() {
            Watch::Off => return None,
            Watch::Ready(second) => peek(second.into()),
            Watch::Armed(second, _) => peek((&**second).into()),
        };
        match peeked {
            Ok(0) => Some(PeerState::HalfClosed),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(PeerState::of_error(&error)),
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` if the runtime takes no more sockets, or if this system can not tell the end of reading from data. Then what the
/// loop itself notices is all there is.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn begin(second: net::TcpStream, conn: &Arc<Connection>) -> Option<Watch> {
    let runtime = &conn.server().runtime;
    let _entered = runtime.enter();
    let second = Arc::new(tokio::net::TcpStream::from_std(second).ok()?);
    let watch = super::attend::watch(conn.clone(), super::socket::Lookout::of(second.clone()));
    Some(Watch::Armed(second, runtime.spawn(watch).abort_handle()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn begin(_second: net::TcpStream, _conn: &Arc<Connection>) -> Option<Watch> {
    None
}

fn peek(socket: socket2::SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}
