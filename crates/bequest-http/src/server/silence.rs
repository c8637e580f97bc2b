//! A peer that falls silent without closing anything: a cable is pulled, a machine loses its power, a firewall forgets.
//!
//! On HTTP/1 only the operating system can ask whether the other side is still there: by keepalive while nothing is on its
//! way, and by how long what was sent stays unacknowledged. On HTTP/2 the protocol asks as well, with PING, which also
//! finds a proxy that keeps its connections open and forwards nothing.
//!
//! # Invariants
//!
//! 1. Either way the limit is `Limits::unreachable`, and the reason `Unreachable`.
//! 2. A peer that sends anything at all is there. Only peers with a request in flight are judged; the others have the idle
//!    limit.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::limits::Limits;

/// Longer limits than this are none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The system counts milliseconds in 32 bits; this fits.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Into how many steps the limit is cut for PING.
const STEPS: u32 = 6;

/// After so many steps of silence the peer is asked; after all of them it is judged.
const ASKED_AFTER: u32 = 2;

/// Sets the options of an accepted socket: no delay of small writes, and how long the system waits for a silent peer.
pub(super) fn tune(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(limit) = bounded(limits) else {
        return Ok(());
    };
    let socket = SockRef::from(stream);
    // Half the time in quiet, and then a probe each eighth of it. The system counts whole seconds.
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time((limit / 2).clamp(second, DAY / 4))
        .with_interval((limit / 8).clamp(second, DAY / 4));
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
    let keepalive = keepalive.with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    // The system would also take a client that reads nothing for one that is not there, so that limit comes first.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(limit.max(limits.write_stall.min(DAY) + second).min(DAY)))?;
    Ok(())
}

/// Waits until a peer of HTTP/2 has not sent anything for the limit though it was asked.
pub(super) async fn silence(conn: &Connection) {
    let Some(limit) = bounded(&conn.server().limits) else {
        return std::future::pending().await;
    };
    let mut silent = 0;
    while silent < STEPS {
        conn.server().pause(limit / STEPS).await;
        let heard = conn.take_heard() || !conn.is_busy();
        silent = if heard { 0 } else { silent + 1 };
        if silent == ASKED_AFTER {
            conn.ask();
            // The question is written where the engine is polled: by the task that polls this.
            wake_itself().await;
        }
    }
}

fn bounded(limits: &Limits) -> Option<Duration> {
    (limits.unreachable < LONGEST).then_some(limits.unreachable)
}

/// Has the task polled once more.
async fn wake_itself() {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn accepted(limits: &Limits) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).await.expect("a listener");
        let (stream, _) = listener.accept().await.expect("a client");
        tune(&stream, limits).expect("an open socket");
        stream
    }

    #[tokio::test]
    async fn the_system_asks_a_silent_peer_within_the_limit() {
        let stream = accepted(&Limits {
            unreachable: Duration::from_secs(40),
            write_stall: Duration::from_secs(20),
            ..Limits::default()
        })
        .await;
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        let first = socket.tcp_keepalive_time().expect("an option");
        let each = socket.tcp_keepalive_interval().expect("an option");
        let probes = socket.tcp_keepalive_retries().expect("an option");
        assert_eq!(first + each * probes, Duration::from_secs(40));
        #[cfg(any(target_os = "linux", target_os = "android"))]
        assert_eq!(
            socket.tcp_user_timeout().expect("an option"),
            Some(Duration::from_secs(40))
        );
    }

    #[tokio::test]
    async fn absurd_limits_are_no_error() {
        for unreachable in [Duration::ZERO, LONGEST - Duration::from_secs(1), Duration::MAX] {
            accepted(&Limits {
                unreachable,
                write_stall: Duration::MAX,
                ..Limits::default()
            })
            .await;
        }
    }

    #[tokio::test]
    async fn without_a_limit_nobody_is_asked() {
        let limits = Limits {
            unreachable: Duration::MAX,
            ..Limits::default()
        };
        let stream = accepted(&limits).await;
        assert!(!SockRef::from(&stream).keepalive().expect("an option"));
    }
}
