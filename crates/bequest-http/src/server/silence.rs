//! A peer that falls silent without closing anything: a cable is pulled, a machine loses its power, a firewall forgets.
//!
//! On HTTP/1 only the operating system can ask whether the other side is still there; see [`heard`](crate::heard). On HTTP/2 the
//! protocol asks as well, with PING, which also finds a proxy that keeps its connections open and forwards nothing.
//!
//! # Invariants
//!
//! 1. Either way the limit is `Limits::unreachable`, and the reason `Unreachable`.
//! 2. A peer that sends anything at all is there. Only peers with a request in flight or an open tunnel are judged; the others
//!    have the idle limit.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::limits::Limits;
use super::peer::PeerState;
use crate::heard::{Keepalive, Look, SHORTEST, bounded};

/// After this part of the limit the peer is asked; after all of it, it is judged.
const ASKED_AFTER: u32 = 3;

/// Nobody is asked more often than is worth it.
const LEAST: Duration = Duration::from_millis(10);

/// This part of the limit it has for its answer in any case.
const ANSWERED_WITHIN: u32 = 6;

/// Sets the options of an accepted socket: no delay of small writes, and how long the system waits for a silent peer. `is_asked`
/// says whether it will be asked what it has heard.
pub(super) fn tune(stream: &TcpStream, limits: &Limits, is_asked: impl FnOnce() -> bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(limit) = bounded(limits.unreachable) else {
        return Ok(());
    };
    let socket = SockRef::from(stream);
    let plan = Keepalive::within(limit);
    let keepalive = TcpKeepalive::new()
        .with_time(plan.time)
        .with_interval(plan.interval);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
    let keepalive = keepalive.with_retries(plan.probes);
    socket.set_tcp_keepalive(&keepalive)?;
    // It takes a client that reads nothing for one that is not there, so that limit comes first; and keepalive goes by this then.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !is_asked() {
        const SECOND: Duration = Duration::from_secs(1);
        // The system counts milliseconds in 32 bits; this fits.
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let limit = limit.max(limits.write_stall.min(DAY) + SECOND).min(DAY);
        socket.set_tcp_user_timeout(Some(limit))?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    drop(is_asked);
    Ok(())
}

/// Waits until a peer of HTTP/2 has not sent anything for the limit though it was asked.
pub(super) async fn silence(conn: &Connection) {
    let server = conn.server();
    let Some(limit) = bounded(server.limits.unreachable) else {
        return std::future::pending().await;
    };
    let limit = limit.max(LEAST);
    let (until_asked, to_answer) = (limit / ASKED_AFTER, limit / ANSWERED_WITHIN);
    let mut asked: Option<Duration> = None;
    let mut is_excused = false;
    loop {
        let (now, heard) = (server.stopwatch.now(), conn.heard());
        let quiet = now.saturating_sub(heard);
        asked = asked.filter(|&asked| asked > heard && conn.is_in_use());
        let rest = match asked {
            Some(asked) => {
                // Who was asked late has the time to answer.
                let until = (heard + limit).max(asked + to_answer);
                match until.saturating_sub(now) {
                    Duration::ZERO => return,
                    rest => rest,
                }
            }
            None if !conn.is_in_use() => until_asked,
            None if quiet < until_asked => until_asked - quiet,
            None => {
                (asked, is_excused) = (Some(now), false);
                conn.ask();
                // The question is written where the engine is polled: by the task that polls this.
                wake_itself().await;
                continue;
            }
        };
        // Not the whole rest: once there is an answer, the time until the next question runs from that.
        let rest = rest.min(until_asked);
        server.pause(rest).await;
        let woken = server.stopwatch.now();
        if !is_excused && woken.saturating_sub(now) > rest + to_answer {
            // What has kept this task may have kept the answer as well, as if the process was stopped. Not for ever.
            asked = asked.map(|_| woken);
            is_excused = asked.is_some();
        }
    }
}

/// Waits until the system has not heard anything of the peer for the limit though it repeats what it has sent. `is_wanted` says
/// whether that matters at the moment.
pub(super) async fn unheard(conn: &Connection, is_wanted: impl Fn() -> bool) {
    let Some(limit) = bounded(conn.server().limits.unreachable) else {
        return std::future::pending().await;
    };
    let limit = limit.max(SHORTEST);
    let mut rest = limit;
    loop {
        conn.server().pause(rest).await;
        let heard = if is_wanted() { conn.heard_by_system() } else { None };
        rest = match heard.map(|heard| heard.look(limit)) {
            Some(Look::Lost) => return,
            Some(Look::Again(after)) => after,
            // Whatever comes now, this long it is there.
            None => limit,
        };
    }
}

/// Whether a client that has taken nothing for `Limits::write_stall` was not there to take it; if so, the connection ends with
/// that.
pub(super) fn finds_lost(conn: &Connection) -> bool {
    // The system heard of it for the last time before it took something for the last time, or just then.
    const SLACK: Duration = Duration::from_secs(1);
    let Some(limit) = bounded(conn.server().limits.unreachable) else {
        return false;
    };
    let heard = conn.heard_by_system();
    let is_lost = heard.is_some_and(|heard| heard.quiet + SLACK >= limit && heard.is_in_vain());
    if is_lost {
        conn.saw(PeerState::Unreachable);
    }
    is_lost
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

    async fn accepted(limits: &Limits, is_asked: bool) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).await.expect("a listener");
        let (stream, _) = listener.accept().await.expect("a client");
        tune(&stream, limits, || is_asked).expect("an open socket");
        stream
    }

    #[tokio::test]
    async fn the_system_asks_a_silent_peer_within_the_limit() {
        let limits = Limits {
            unreachable: Duration::from_secs(40),
            write_stall: Duration::from_secs(60),
            ..Limits::default()
        };
        let stream = accepted(&limits, true).await;
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        let first = socket.tcp_keepalive_time().expect("an option");
        let each = socket.tcp_keepalive_interval().expect("an option");
        let probes = socket.tcp_keepalive_retries().expect("an option");
        assert_eq!(first + each * probes, Duration::from_secs(40));
        #[cfg(any(target_os = "linux", target_os = "android"))]
        assert_eq!(socket.tcp_user_timeout().expect("an option"), None);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_system_that_says_nothing_has_a_limit_of_its_own_for_what_is_not_acknowledged() {
        for (unreachable, write_stall, expected) in [(40, 20, 40), (40, 40, 41), (20, 40, 41)] {
            let limits = Limits {
                unreachable: Duration::from_secs(unreachable),
                write_stall: Duration::from_secs(write_stall),
                ..Limits::default()
            };
            let stream = accepted(&limits, false).await;
            let limit = SockRef::from(&stream).tcp_user_timeout().expect("an option");
            assert_eq!(limit, Some(Duration::from_secs(expected)));
        }
    }

    #[tokio::test]
    async fn absurd_limits_are_no_error() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for unreachable in [Duration::ZERO, year - Duration::from_secs(1), Duration::MAX] {
            let limits = Limits {
                unreachable,
                write_stall: Duration::MAX,
                ..Limits::default()
            };
            accepted(&limits, true).await;
            accepted(&limits, false).await;
        }
    }

    #[tokio::test]
    async fn without_a_limit_nobody_is_asked() {
        let limits = Limits {
            unreachable: Duration::MAX,
            ..Limits::default()
        };
        let stream = accepted(&limits, true).await;
        assert!(!SockRef::from(&stream).keepalive().expect("an option"));
    }
}
