//! How long each stage of a connection and of a request may take, and how many of each there may be.
//!
//! Every limit is the deadline of a context, on the clock of the context that was given to `serve`. None is infinite by
//! accident: whoever wants no limit says `Duration::MAX`.

use std::time::Duration;

/// The server's limits.
///
/// A parameter struct: name what differs and take the rest from [`Limits::default`].
///
/// ```
/// use bequest_http::server::Limits;
/// use std::time::Duration;
///
/// let limits = Limits { request: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.header, Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the accepted connection to its first byte, and with TLS again from the handshake to the first byte within. Default
    /// 5 s. Reason `Limit("first byte")`.
    pub first_byte: Duration,
    /// The handshake of TLS, from the accepted connection on. Default 10 s. Reason `Limit("handshake")`.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its header; on HTTP/2 also a half-sent preface, frame or header
    /// block on a connection that serves nothing else. Default 10 s. Reason `Limit("header")`.
    ///
    /// The engine bounds its size: 64 KiB and 100 lines on HTTP/1, on HTTP/2 16 KiB, in which each field counts 32 bytes more. The
    /// answer to more is 431.
    pub header: Duration,
    /// Between two requests of one connection. On HTTP/2, frames that open no stream do not count as activity; sent by
    /// halves, they gain `header` at most; a connection is not idle while a tunnel (`CONNECT`) is open. Default 60 s. Reason `Limit("idle")`.
    pub idle: Duration,
    /// From the end of a request's header to the end of its response body: the deadline of the request's context.
    /// Default 30 s. Reason `Limit("request")`. A route may have less by [`Builder::request_context`](super::Builder::request_context).
    pub request: Duration,
    /// How long a handler may wait for the next piece of its request's body. Default 10 s. Reason `Limit("body idle")`;
    /// answered with 408.
    pub body_idle: Duration,
    /// Bytes of a request's body for each second that a handler waits for it, once it has waited for `body_idle` in all.
    /// Default 500; 0: any. Reason `Limit("body rate")`; answered with 408.
    pub body_rate: u64,
    /// How long a client may leave what is written to it untaken, before its connection is closed; on HTTP/2 also a stream
    /// whose window it leaves closed, before that stream is reset. Default 30 s. Reason `Limit("write stall")`, or
    /// [`Unreachable`](bequest::Reason::Unreachable) if the system knows that nobody was there to take it, for `unreachable`.
    pub write_stall: Duration,
    /// How long a client with a request in flight, or an open tunnel, may be silent, though it is asked for a sign of life. Default 30 s. Reason
    /// [`Unreachable`](bequest::Reason::Unreachable).
    ///
    /// On HTTP/2 it is asked by PING, and it may take a sixth longer. On HTTP/1 the client's system is asked, by keepalive and by
    /// repeating what it has not acknowledged, in whole seconds. A client whose system answers is there, however little it
    /// reads, and has `write_stall`. Elsewhere than on Linux keepalive is all there is, and on Android a limit on what stays
    /// unacknowledged, no shorter than `write_stall` and a second.
    pub unreachable: Duration,
    /// How long a handler that was told of its end may take to answer for itself, before the server answers in its
    /// place (504 for a deadline, 503 otherwise). It is also how long the reader of a stream that the shutdown has ended
    /// ([`UntilShutdown`](super::UntilShutdown)) may leave the rest untaken. Default 250 ms.
    pub answer: Duration,
    /// After the server's context has ended: how long requests may go on as if nothing had happened. Default 10 s.
    pub drain: Duration,
    /// Of `drain`: how long a connection of HTTP/1 that is kept and idle may still ask for something. The answer says that the
    /// connection is closed behind it. Default 0: an idle connection is closed at once, unless a request has come on it; one
    /// that is still on its way then meets a closed connection.
    pub drain_idle: Duration,
    /// After `drain`: how long handlers may run on once they have been told of the shutdown, before they are dropped. It
    /// is also how long a peer is given to take part in an orderly close. Default 2 s.
    pub drain_grace: Duration,
    /// How much of what a client has sent may be read ahead of its handler, so that its departure behind those bytes is
    /// noticed. Per connection; default 1 MiB. 0: nothing is read ahead.
    pub read_ahead: usize,
    /// The same over all connections of the server. Default 64 MiB.
    pub read_ahead_total: usize,
    /// Connections served at once; further ones wait in the operating system's queue. Default 10 000.
    pub connections: usize,
    /// Requests of one HTTP/2 connection at once, as its client is told. Default 200. A client that resets streams may open
    /// others before the handlers of the former ones are dropped; once there are more of both than this and
    /// `lingering_per_connection` together, a stream is refused (`REFUSED_STREAM`) and its handler is not begun.
    pub streams: u32,
    /// Streams of one HTTP/2 connection that its client may reset before they are answered. Default 1000, as in nghttp2;
    /// `u32::MAX`: any number. Each request that is answered to its end gives one back, and all of them come back within 5 s:
    /// who lets half of its requests be answered, or leaves each of 200 at once for a second before giving it up, never has too
    /// many. Reason `Limit("resets")`; the client is told (`GOAWAY` with `ENHANCE_YOUR_CALM`).
    pub resets: u32,
    /// Handlers of one connection that may run on after their client has left. Default 32.
    pub lingering_per_connection: usize,
    /// Handlers of the whole server that may run on after their client has left. Default 1024.
    pub lingering: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            first_byte: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            request: Duration::from_secs(30),
            body_idle: Duration::from_secs(10),
            body_rate: 500,
            write_stall: Duration::from_secs(30),
            unreachable: Duration::from_secs(30),
            answer: Duration::from_millis(250),
            drain: Duration::from_secs(10),
            drain_idle: Duration::ZERO,
            drain_grace: Duration::from_secs(2),
            read_ahead: 1024 * 1024,
            read_ahead_total: 64 * 1024 * 1024,
            connections: 10_000,
            streams: 200,
            resets: 1000,
            lingering_per_connection: 32,
            lingering: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_without_a_limit_by_default() {
        let seconds = Duration::from_secs;
        let limits = Limits::default();
        for (limit, default) in [
            (limits.first_byte, seconds(5)),
            (limits.handshake, seconds(10)),
            (limits.header, seconds(10)),
            (limits.idle, seconds(60)),
            (limits.request, seconds(30)),
            (limits.body_idle, seconds(10)),
            (limits.write_stall, seconds(30)),
            (limits.unreachable, seconds(30)),
            (limits.drain, seconds(10)),
            (limits.drain_grace, seconds(2)),
        ] {
            assert_eq!(limit, default, "{limits:?}");
        }
        assert_eq!(
            (
                limits.body_rate,
                limits.connections,
                limits.streams,
                limits.resets
            ),
            (500, 10_000, 200, 1000)
        );
        assert_eq!((limits.lingering_per_connection, limits.lingering), (32, 1024));
    }
}
