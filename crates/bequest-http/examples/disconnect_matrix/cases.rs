//! The ways in which clients leave, and clients that leave in those ways.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::stream::{Over, Stream};

/// One row of the table: what a client asks, what the handler does with it, and how the client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// What stands in the table.
    pub(crate) name: &'static str,
    pub(crate) sends: Sends,
    pub(crate) route: Route,
    pub(crate) leaves: Leaves,
    /// Whether it goes over TLS.
    pub(crate) tls: bool,
}

/// What a client sends. Numbers are bytes of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    Get,
    /// A second request right behind the first one.
    Pipelined,
    /// A second request once the handler of the first one runs.
    PipelinedLate,
    Post {
        announced: usize,
        at_once: usize,
        /// Once the handler runs.
        late: usize,
    },
    /// `Expect: 100-continue`, and then nothing.
    Expect,
    Http2Get,
    /// A body that has begun and not ended.
    Http2Open,
}

/// What the handler does before it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Holds the body and does not read it.
    Held,
    /// Drops the body.
    Ignored,
    /// Reads the body to its end first.
    Read,
    /// Reads the body until that fails.
    Reading,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// `close`, or with TLS the same without a farewell: a FIN behind everything it has sent.
    Close,
    /// A TCP reset.
    Reset,
    /// `close_notify`, the farewell of TLS; the socket stays open.
    CloseNotify,
    /// `RST_STREAM`; the connection stays.
    StreamReset,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a server reads ahead at most by default; more than that unread hides a FIN.
pub(crate) const BEYOND: usize = 16 * MIB;

const fn post(announced: usize, at_once: usize, late: usize) -> Sends {
    Sends::Post {
        announced,
        at_once,
        late,
    }
}

/// The eleven ordinary cases of HTTP/1.
const ORDINARY: [(&str, Sends, Route); 11] = [
    ("GET", Sends::Get, Route::Held),
    ("POST 10 B, read first", post(10, 10, 0), Route::Read),
    ("POST 10 B, ignored", post(10, 10, 0), Route::Ignored),
    ("POST 10 B late, ignored", post(10, 0, 10), Route::Ignored),
    ("POST 10 B, held unread", post(10, 10, 0), Route::Held),
    (
        "POST 64 KiB, held unread",
        post(64 * KIB, 64 * KIB, 0),
        Route::Held,
    ),
    ("POST 1 MiB, held unread", post(MIB, MIB, 0), Route::Held),
    ("POST 1 MiB, ignored", post(MIB, MIB, 0), Route::Ignored),
    ("POST 1 MiB, 10 B sent, held", post(MIB, 10, 0), Route::Held),
    ("GET + pipelined GET", Sends::Pipelined, Route::Held),
    ("GET + pipelined GET, later", Sends::PipelinedLate, Route::Held),
];

/// Further cases of HTTP/1.
const FURTHER: [(&str, Sends, Route); 5] = [
    ("POST 10 B late, held unread", post(10, 0, 10), Route::Held),
    (
        "POST 1 MiB, 10 B sent, being read",
        post(MIB, 10, 0),
        Route::Reading,
    ),
    ("POST 1 MiB, 10 B sent, ignored", post(MIB, 10, 0), Route::Ignored),
    (
        "POST with Expect: 100-continue, unread",
        Sends::Expect,
        Route::Held,
    ),
    ("POST 16 MiB, held unread", post(BEYOND, BEYOND, 0), Route::Held),
];

const HTTP2: [(&str, Sends, Route); 4] = [
    ("HTTP/2 GET", Sends::Http2Get, Route::Held),
    (
        "HTTP/2 POST, body open, held unread",
        Sends::Http2Open,
        Route::Held,
    ),
    (
        "HTTP/2 POST, body open, ignored",
        Sends::Http2Open,
        Route::Ignored,
    ),
    (
        "HTTP/2 POST, body open, being read",
        Sends::Http2Open,
        Route::Reading,
    ),
];

impl Case {
    /// The eleven ordinary cases.
    pub(crate) fn ordinary(tls: bool) -> Vec<Case> {
        with(&ORDINARY, &[Leaves::Close], tls)
    }

    /// All cases, each with each way to leave.
    pub(crate) fn all(tls: bool) -> Vec<Case> {
        let farewell = tls.then_some(Leaves::CloseNotify);
        let mut ways = vec![Leaves::Close, Leaves::Reset];
        ways.extend(farewell);
        let mut cases = with(&ORDINARY, &ways, tls);
        cases.extend(with(&FURTHER, &ways, tls));
        ways.push(Leaves::StreamReset);
        cases.extend(with(&HTTP2, &ways, tls));
        cases
    }

    fn over(&self) -> Over {
        match self.sends {
            _ if !self.tls => Over::Plain,
            Sends::Http2Get | Sends::Http2Open => Over::Tls(b"h2"),
            _ => Over::Tls(b"http/1.1"),
        }
    }

    /// Whether more is left unread than is read ahead.
    pub(crate) fn is_beyond(&self) -> bool {
        matches!(self.sends, Sends::Post { at_once: BEYOND, .. })
    }
}

fn with(rows: &[(&'static str, Sends, Route)], ways: &[Leaves], tls: bool) -> Vec<Case> {
    let case = |&(name, sends, route)| {
        ways.iter().map(move |&leaves| Case {
            name,
            sends,
            route,
            leaves,
            tls,
        })
    };
    rows.iter().flat_map(case).collect()
}

impl Route {
    pub(crate) const ALL: [Route; 4] = [Route::Held, Route::Ignored, Route::Read, Route::Reading];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Route::Held => "/held",
            Route::Ignored => "/ignored",
            Route::Read => "/read",
            Route::Reading => "/reading",
        }
    }
}

/// A client whose request is under way.
pub(crate) enum Client {
    Http1(Stream),
    Http2 {
        stream: Stream,
        body: h2::SendStream<Bytes>,
        connection: JoinHandle<()>,
        /// Keeps the connection wanted.
        _send: h2::client::SendRequest<Bytes>,
        /// Keeps the stream's response wanted.
        _response: h2::client::ResponseFuture,
    },
}

impl Client {
    /// Connects and sends what the case says, without what comes late.
    pub(crate) async fn begin(addr: SocketAddr, case: &Case) -> std::io::Result<Client> {
        let mut stream = Stream::connect(addr, case.over()).await?;
        if case.leaves == Leaves::Reset {
            stream.close_is_reset()?;
        }
        let path = case.route.path();
        let get = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        match case.sends {
            Sends::Http2Get => return Client::begin_http2(stream, Method::GET, path).await,
            Sends::Http2Open => return Client::begin_http2(stream, Method::POST, path).await,
            Sends::Get | Sends::PipelinedLate => stream.write_all(get.as_bytes()).await?,
            Sends::Pipelined => stream.write_all(get.repeat(2).as_bytes()).await?,
            Sends::Expect => {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
            }
            Sends::Post {
                announced, at_once, ..
            } => {
                let head =
                    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {announced}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                stream.offer(&vec![b'x'; at_once])?;
            }
        }
        stream.flush().await?;
        Ok(Client::Http1(stream))
    }

    async fn begin_http2(stream: Stream, method: Method, path: &str) -> std::io::Result<Client> {
        let (send, connection) = h2::client::handshake(stream.clone())
            .await
            .map_err(std::io::Error::other)?;
        // Its end is the client's leaving.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut send = send.ready().await.map_err(std::io::Error::other)?;
        let open = method == Method::POST;
        let request = Request::builder()
            .method(method)
            .uri(format!("http://test{path}"))
            .body(());
        let request = request.map_err(std::io::Error::other)?;
        let (response, mut body) = send.send_request(request, !open).map_err(std::io::Error::other)?;
        if open {
            body.send_data(Bytes::from_static(b"0123456789"), false)
                .map_err(std::io::Error::other)?;
        }
        Ok(Client::Http2 {
            stream,
            body,
            connection,
            _send: send,
            _response: response,
        })
    }

    /// Sends what comes once the handler runs.
    pub(crate) async fn go_on(&mut self, case: &Case) -> std::io::Result<()> {
        let Client::Http1(stream) = self else {
            return Ok(());
        };
        match case.sends {
            Sends::Post { late: 0, .. } => Ok(()),
            Sends::Post { late, .. } => {
                stream.write_all(&vec![b'x'; late]).await?;
                stream.flush().await
            }
            Sends::PipelinedLate => {
                let path = case.route.path();
                let get = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
                stream.write_all(get.as_bytes()).await?;
                stream.flush().await
            }
            _ => Ok(()),
        }
    }

    fn stream(&self) -> &Stream {
        match self {
            Client::Http1(stream) | Client::Http2 { stream, .. } => stream,
        }
    }

    /// Leaves. What is left of the client is to be kept until nothing more is asked of the server: a stream that is reset
    /// leaves its connection open.
    #[must_use]
    pub(crate) fn leave(mut self, how: Leaves) -> Option<Client> {
        let stream = self.stream().clone();
        match (&mut self, how) {
            (Client::Http2 { body, .. }, Leaves::StreamReset) => body.send_reset(h2::Reason::CANCEL),
            (_, Leaves::CloseNotify) => {
                // It waits for room behind what was offered, as long as the server takes none of that.
                tokio::spawn(async move {
                    let mut stream = stream;
                    stream.shutdown().await
                });
            }
            // What the server has said by itself is unread, and a close would then be a reset.
            (_, Leaves::Close) if stream.is_tls() => drop(stream.fin()),
            _ => {
                if let Client::Http2 { connection, .. } = &self {
                    connection.abort();
                }
                return None;
            }
        }
        Some(self)
    }
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leaves::Close => "close",
            Leaves::Reset => "TCP reset",
            Leaves::CloseNotify => "close_notify",
            Leaves::StreamReset => "RST_STREAM",
        })
    }
}
