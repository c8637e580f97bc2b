//! A stream that becomes a tunnel (`CONNECT`, RFC 9113, 8.5), as `hyper::upgrade::on` gives it.
//!
//! Handlers ask for what a connection changes to with hyper's types, whatever the protocol, and nobody but an engine of
//! hyper's can make one. So an engine of HTTP/1 is asked, in memory, for the same thing: it is told of a `CONNECT` that it
//! answers when the handler has, and what it hands out is then the stream, with nothing of the engine between. An engine is made
//! for each request that asks for a tunnel, and for no other.
//!
//! # Invariants
//!
//! 1. The engine reads its question and nothing else, and what it writes before its answer is complete goes nowhere.
//! 2. It is polled here only, where nothing it does has to wait; so nobody is to be woken for it. What it waits for must be none of
//!    what the runtime lets wait for others' sake: it is polled once, and in a task that may have used up its turn.
//! 3. A tunnel that is dropped ends in good order. One that is offered and not opened is refused to whoever waits for it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context as TaskContext, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::connection::{Connection, OpenTunnel};
use super::outgoing::Outgoing;

/// What the engine is asked.
const QUESTION: &[u8] = b"CONNECT tunnel:443 HTTP/1.1\r\nhost: tunnel\r\n\r\n";

/// How its answer ends.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A tunnel that was offered to a handler.
pub(super) struct Offer {
    engine: Engine,
    place: Place,
    received: RecvStream,
}

/// Where the tunnel will be, once the handler has agreed.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Tunnel>>>);

type Engine = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Offers a tunnel to the handler of the request with which this stream has come.
pub(super) fn offer(received: RecvStream) -> (Offer, OnUpgrade) {
    let place = Place::default();
    let (tell, told) = mpsc::channel();
    let agreed = place.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        // Nobody who has gone needs it.
        let _ = tell.send(hyper::upgrade::on(request));
        let agreed = agreed.clone();
        poll_fn(move |_| match agreed.lock().is_some() {
            true => Poll::Ready(Ok::<_, Infallible>(Response::new(String::new()))),
            // Invariant 2.
            false => Poll::Pending,
        })
    });
    let hatch = Hatch {
        unread: QUESTION,
        end_seen: 0,
        place: place.clone(),
        tunnel: None,
    };
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None);
    let mut engine: Engine = Box::pin(
        builder
            .serve_connection(TokioIo::new(hatch), service)
            .with_upgrades(),
    );
    let is_waiting = poll(&mut engine).is_pending();
    let upgrade = told.try_recv().ok().filter(|_| is_waiting);
    let offer = Offer {
        engine,
        place,
        received,
    };
    (offer, upgrade.expect("the engine understands the question"))
}

impl Offer {
    /// The handler has agreed: from now on the stream is whoever's has asked for it.
    pub(super) fn open(self, stream: SendStream<Bytes>, conn: &Arc<Connection>) {
        *self.place.lock() = Some(Tunnel {
            outgoing: Outgoing::into_stream(stream, conn),
            received: self.received,
            unread: Bytes::new(),
            _open: conn.opens_tunnel(),
        });
        // The engine waits for it, and hands the tunnel over by that, or drops it where nobody has asked.
        let mut engine = self.engine;
        let _ = poll(&mut engine);
    }
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<Tunnel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls the engine where it has all it waits for (invariant 2).
fn poll(engine: &mut Engine) -> Poll<hyper::Result<()>> {
    engine.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// What the engine reads and writes: its question and its answer, and from then on the tunnel.
struct Hatch {
    unread: &'static [u8],
    /// How much of [`END_OF_HEAD`] was written last.
    end_seen: usize,
    place: Place,
    /// Once it was there.
    tunnel: Option<Tunnel>,
}

/// One stream, both ways.
struct Tunnel {
    outgoing: Outgoing,
    received: RecvStream,
    /// Has come, and not been read yet.
    unread: Bytes,
    _open: OpenTunnel,
}

impl Hatch {
    /// The tunnel, once the answer is complete.
    fn tunnel(&mut self) -> Option<Pin<&mut Tunnel>> {
        if self.end_seen < END_OF_HEAD.len() {
            return None;
        }
        if self.tunnel.is_none() {
            self.tunnel = self.place.lock().take();
        }
        self.tunnel.as_mut().map(Pin::new)
    }

    /// Lets what is written of the answer go nowhere; says how much of `bytes` that is.
    fn swallow(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            self.end_seen = match byte {
                _ if byte == END_OF_HEAD[self.end_seen] => self.end_seen + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.end_seen == END_OF_HEAD.len() {
                return index + 1;
            }
        }
        bytes.len()
    }
}

impl AsyncRead for Hatch {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(tunnel) = self.tunnel() {
            return tunnel.poll_read(cx, buf);
        }
        if self.unread.is_empty() {
            // Invariant 2.
            return Poll::Pending;
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buf.remaining()));
        buf.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hatch {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.tunnel() {
            Some(tunnel) => tunnel.poll_write(cx, buf),
            None => Poll::Ready(Ok(self.swallow(buf))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.tunnel() {
            Some(tunnel) => tunnel.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.tunnel() {
            Some(tunnel) => tunnel.poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.received.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                // It has closed its side in good order, or says that there is no error.
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(failure(error))),
            }
        }
        let size = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..size]);
        self.unread.advance(size);
        // Whoever has reset the stream needs no room.
        let _ = self.received.flow_control().release_capacity(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.outgoing).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outgoing).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outgoing).poll_shutdown(cx)
    }
}

fn failure(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
