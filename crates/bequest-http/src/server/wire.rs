//! The socket as the engine of a protocol reads it, hyper's or our own: which protocol it speaks, whether the client is still
//! there, and how far it has come.
//!
//! Both protocols are served on one port. A client of HTTP/2 opens with a fixed preface; whatever differs from it, even
//! in its second byte, is HTTP/1. The bytes read to find out are read again by the engine.
//!
//! The same store of bytes lets the server *read ahead*. The engine does not read while a body is left unread or a pipelined
//! request waits, and then neither meets the end of the connection. The [`Tap`] reads in its place, within a bound, so
//! that an end behind those bytes is met all the same; the engine gets the bytes when it asks for them.
//!
//! What HTTP/2 writes is *gathered* while the engine is polled and sent after it: several answers of one connection are one
//! system call, and an answer can be given in the poll that has read its request.
//!
//! # Invariants
//!
//! 1. Bytes reach the engine once, in order, and the end or failure of the connection after all of them.
//! 2. The tap reads only while the engine does not wait for bytes itself, and never holds more than its bound.
//! 3. The lock is held for one operation of the socket and never while anybody is told of what came of it.
//! 4. What was gathered is on its way to the socket before anything that is written later, before the end of writing, and
//!    before the task of the connection goes to sleep. It is never more than [`GATHERED`].
//! 5. A read in which a stream is reset is the engine's last one of its poll: before it reads on, it hands out what was opened,
//!    so that what is opened and reset does not pile up in it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::peer::PeerState;
use super::ping::Framing;
use super::statistics::Held;
use super::transport::{self, Transport};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read ahead in one step.
const STEP: usize = 8 * 1024;

/// The most that is gathered before it is written.
const GATHERED: usize = 16 * 1024;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A socket that reports to its connection.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Arc<Shared>,
    conn: Arc<Connection>,
    /// Whether what is written may be held back, and so has to be flushed.
    holds_back: bool,
    /// Whether what is written is gathered.
    gathers: bool,
}

/// What `Wire` and `Tap` share.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Whether the engine waits for bytes, or is to, as of the present poll. Written and read by the connection's task.
    awaited: AtomicBool,
}

/// Reads ahead of the engine on the same socket.
#[derive(Debug)]
pub(super) struct Tap {
    inner: Arc<Shared>,
    conn: Arc<Connection>,
    /// Whether what is written is gathered.
    gathers: bool,
}

/// Guarded by the lock of `Wire` and `Tap`, which one task uses in turn.
#[derive(Debug)]
struct Inner {
    transport: Transport,
    /// Read already, to be handed to the engine.
    store: BytesMut,
    /// What of `store` counts against the server's bound.
    held: Option<Held>,
    /// How reading ended. The engine hears of it once `store` is empty.
    end: Option<Result<(), io::ErrorKind>>,
    /// Of HTTP/2 only.
    framing: Option<Framing>,
    /// What is gathered, if anything is.
    gathered: BytesMut,
    /// Why what was gathered could not be written. The engine hears of it with its next write.
    broken: Option<io::ErrorKind>,
}

/// How a step of reading ahead ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// All there is has been read, or the engine reads itself.
    Waiting,
    /// The bound is reached.
    Full,
    /// The client has closed its sending side, or the connection has failed.
    Ended(PeerState),
}

impl Wire {
    /// A wire whose first bytes, in `store`, have shown the protocol.
    pub(super) fn new(
        transport: Transport,
        store: BytesMut,
        protocol: Protocol,
        conn: Arc<Connection>,
    ) -> Wire {
        Wire {
            holds_back: !transport.is_plain(),
            gathers: protocol == Protocol::Http2,
            inner: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    transport,
                    store,
                    held: None,
                    end: None,
                    framing: (protocol == Protocol::Http2).then(|| Framing::new(PREFACE.len())),
                    gathered: BytesMut::new(),
                    broken: None,
                }),
                awaited: AtomicBool::new(false),
            }),
            conn,
        }
    }

    pub(super) fn tap(&self) -> Tap {
        Tap {
            inner: self.inner.clone(),
            conn: self.conn.clone(),
            gathers: self.gathers,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner.inner)
    }

    /// Gathers what is written, if it has room and nothing stands before it.
    fn gather(&self, bufs: &[io::IoSlice<'_>]) -> Option<io::Result<usize>> {
        let size = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let mut inner = self.inner();
        if let Some(kind) = inner.broken {
            return Some(Err(kind.into()));
        }
        if size > GATHERED - inner.gathered.len() {
            return None;
        }
        bufs.iter().for_each(|buf| inner.gathered.extend_from_slice(buf));
        inner.wrote(bufs, size);
        Some(Ok(size))
    }

    /// Writes behind what is gathered.
    fn write<T>(
        &self,
        cx: &mut TaskContext<'_>,
        operate: impl FnOnce(&mut Inner, &mut TaskContext<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let result = self.inner.write(&self.conn, |inner| {
            ready!(inner.poll_gathered(cx))?;
            operate(inner, cx)
        });
        result.map(|result| self.noted(result))
    }

    /// Passes a result on, and notes that the client is gone if it is a failure.
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.conn.saw(PeerState::of_error(error)))
    }
}

impl Shared {
    /// Writes, and notes whether the client takes what is written.
    fn write<T>(
        &self,
        conn: &Connection,
        operate: impl FnOnce(&mut Inner) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        Shared::write_with(lock(&self.inner), conn, operate)
    }

    /// As [`write`](Shared::write), with the lock in hand.
    fn write_with<T>(
        mut inner: MutexGuard<'_, Inner>,
        conn: &Connection,
        operate: impl FnOnce(&mut Inner) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let before = inner.transport.socket().taken();
        let result = operate(&mut inner);
        let taken = inner.transport.socket().taken() > before;
        let waits = result.is_pending() || inner.transport.holds_back();
        drop(inner);
        conn.wrote(taken || !waits);
        result
    }
}

impl Inner {
    /// Fills `buf` with what was read ahead, else from the socket.
    fn poll_read(&mut self, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.store.is_empty() && self.awaits_answer() && self.end.is_none() {
            ready!(self.poll_sieved(cx))?;
        }
        if self.store.is_empty() {
            return match self.end {
                Some(end) => Poll::Ready(end.map_err(io::Error::from)),
                None => Pin::new(&mut self.transport).poll_read(cx, buf),
            };
        }
        let size = self.store.len().min(buf.remaining());
        buf.put_slice(&self.store[..size]);
        self.store.advance(size);
        if let Some(held) = &mut self.held {
            held.shrink_to(self.store.len());
        }
        if self.store.is_empty() {
            // Gives the memory back.
            self.store = BytesMut::new();
            self.held = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the store with what is for the engine, while an answer is awaited that is not. Ready if there is something, if reading
    /// has ended, or if the answer is here.
    fn poll_sieved(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        while self.store.is_empty() && self.awaits_answer() {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; STEP];
            let mut buf = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buf));
            match &read {
                Ok(()) if !buf.filled().is_empty() => {}
                // The end comes behind what was held back.
                Ok(()) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error.kind())),
            }
            self.take_in(buf.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what has come, to be handed to the engine; nothing: reading has ended.
    fn take_in(&mut self, bytes: &[u8]) {
        match &mut self.framing {
            Some(framing) => framing.take_in(bytes, &mut self.store),
            None => self.store.extend_from_slice(bytes),
        }
    }

    /// Whether the client was asked whether it is there, and has not answered.
    fn awaits_answer(&self) -> bool {
        self.framing.as_ref().is_some_and(Framing::awaits_answer)
    }

    /// Writes that question behind all else, if it may stand there.
    fn ask(&mut self) -> bool {
        let question = self.framing.as_mut().and_then(|framing| framing.ask(&self.store));
        if let Some(question) = question {
            self.gathered.extend_from_slice(question);
        }
        question.is_some()
    }

    /// Takes note of what the engine has written: the first `size` bytes of `bufs`.
    fn wrote(&mut self, bufs: &[io::IoSlice<'_>], mut size: usize) {
        let Some(framing) = &mut self.framing else { return };
        for buf in bufs {
            let part = &buf[..size.min(buf.len())];
            if !part.is_empty() {
                framing.wrote(part);
            }
            size -= part.len();
        }
    }

    /// Whether something that was written is not on its way yet.
    fn has_unsent(&self) -> bool {
        !self.gathered.is_empty() || self.transport.holds_back()
    }

    /// Writes what was gathered.
    fn poll_gathered(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// What these bytes leave behind: whether the client is in the middle of a header, and whether it has reset a stream.
    fn follow(&mut self, bytes: &[u8]) -> (bool, bool) {
        match &mut self.framing {
            Some(framing) => framing.read(bytes),
            None => (true, false),
        }
    }
}

impl Tap {
    /// To be called before the engine is polled: whether it waits for bytes will show.
    pub(super) fn begin_poll(&self) {
        self.inner.awaited.store(false, Relaxed);
    }

    /// Sends what the engine has written in its poll. To be called after that.
    pub(super) fn send_gathered(&self, cx: &mut TaskContext<'_>) {
        if !self.gathers {
            return;
        }
        let mut inner = lock(&self.inner.inner);
        // A question that has not been answered stands for this one.
        if self.conn.is_to_be_asked() && (inner.awaits_answer() || inner.ask()) {
            self.conn.was_asked();
        }
        if !inner.has_unsent() {
            return;
        }
        let sent = Shared::write_with(inner, &self.conn, |inner| {
            ready!(inner.poll_gathered(cx))?;
            Pin::new(&mut inner.transport).poll_flush(cx)
        });
        // What waits for the client to take it wakes the task when it can go on.
        if let Poll::Ready(Err(error)) = sent {
            lock(&self.inner.inner).broken = Some(error.kind());
            self.conn.saw(PeerState::of_error(&error));
        }
    }

    /// Sends a client away that resets too many streams: says so behind all else that was written, and writes nothing more. To be
    /// called once the engine is gone. Waits for as long as the client does not take it.
    pub(super) async fn send_away(&self) {
        {
            let mut inner = lock(&self.inner.inner);
            let word = inner.framing.as_ref().and_then(Framing::send_away);
            word.iter()
                .for_each(|word| inner.gathered.extend_from_slice(word));
        }
        let said = poll_fn(|cx| {
            self.inner.write(&self.conn, |inner| {
                ready!(inner.poll_gathered(cx))?;
                Pin::new(&mut inner.transport).poll_shutdown(cx)
            })
        });
        // A client that has gone hears nothing.
        let _ = said.await;
    }

    /// Reads ahead until `bound` bytes are stored. `hold` makes the claim on the server's bound.
    pub(super) fn poll_ahead(
        &self,
        cx: &mut TaskContext<'_>,
        bound: usize,
        hold: impl Fn() -> Held,
    ) -> Ahead {
        if self.inner.awaited.load(Relaxed) {
            return Ahead::Waiting;
        }
        let mut inner = lock(&self.inner.inner);
        let inner = &mut *inner;
        if inner.end.is_some() {
            return Ahead::Waiting;
        }
        loop {
            let room = bound.saturating_sub(inner.store.len()).min(STEP);
            let held = inner.held.get_or_insert_with(&hold);
            if room == 0 || !held.grow_to(inner.store.len() + room) {
                return Ahead::Full;
            }
            let mut space = [const { MaybeUninit::<u8>::uninit() }; STEP];
            let mut buf = ReadBuf::uninit(&mut space[..room]);
            let read = Pin::new(&mut inner.transport).poll_read(cx, &mut buf);
            if read.is_ready() {
                let awaited = inner.awaits_answer();
                inner.take_in(buf.filled());
                if awaited {
                    self.conn.hears();
                }
            }
            if let Some(held) = &mut inner.held {
                held.shrink_to(inner.store.len());
            }
            match read {
                Poll::Pending => return Ahead::Waiting,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Ok(())) => {
                    inner.end = Some(Ok(()));
                    return Ahead::Ended(PeerState::HalfClosed);
                }
                Poll::Ready(Err(error)) if transport::is_bare_end(&error) => {
                    inner.end = Some(Ok(()));
                    return Ahead::Ended(PeerState::HalfClosed);
                }
                Poll::Ready(Err(error)) => {
                    inner.end = Some(Err(error.kind()));
                    return Ahead::Ended(PeerState::of_error(&error));
                }
            }
        }
    }
}

/// Waits for the client's first bytes, and takes as many as an ordinary header has: an engine that is given less reads the
/// same bytes over and over. `Ok(false)`: it left without a word.
pub(super) async fn first_bytes(transport: &mut Transport, store: &mut BytesMut) -> io::Result<bool> {
    let read = poll_fn(|cx| {
        let mut space = [const { MaybeUninit::<u8>::uninit() }; STEP];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *transport).poll_read(cx, &mut buf))?;
        // Not more than has come is kept.
        store.extend_from_slice(buf.filled());
        Poll::Ready(Ok(!buf.filled().is_empty()))
    });
    match read.await {
        Err(error) if transport::is_bare_end(&error) => Ok(false),
        read => read,
    }
}

/// Reads on until it is clear what the client speaks. A client that leaves midway speaks HTTP/1, whose engine then
/// meets the end.
pub(super) async fn protocol(transport: &mut Transport, store: &mut BytesMut) -> io::Result<Protocol> {
    if let Some(agreed) = transport.agreed() {
        return Ok(agreed);
    }
    loop {
        let compared = store.len().min(PREFACE.len());
        if store[..compared] != PREFACE[..compared] {
            return Ok(Protocol::Http1);
        }
        if compared == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        if transport.read_buf(store).await? == 0 {
            return Ok(Protocol::Http1);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.conn.lets_go();
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gathers && self.inner.awaited.load(Relaxed) {
            // The engine has found nothing in this poll, or is given no more in it, and is woken when there is something.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let mut inner = self.inner();
        let awaited = inner.awaits_answer();
        let result = inner.poll_read(cx, buf);
        if awaited && !inner.awaits_answer() {
            self.conn.hears();
        }
        self.inner.awaited.store(result.is_pending(), Relaxed);
        let result = match ready!(result) {
            // What follows an upgrade may end where the connection does, so there the difference is passed on.
            Err(error) if transport::is_bare_end(&error) && !self.conn.switches() => Ok(()),
            result => result,
        };
        let read = &buf.filled()[before..];
        let (owes_more, resets) = inner.follow(read);
        drop(inner);
        self.noted(result)?;
        if resets {
            // Invariant 5.
            self.inner.awaited.store(true, Relaxed);
            cx.waker().wake_by_ref();
        }
        if !read.is_empty() {
            self.conn.saw_bytes(owes_more, resets);
        } else if buf.remaining() > 0 {
            self.conn.saw(PeerState::HalfClosed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gathers {
            if let Some(gathered) = self.gather(bufs) {
                return Poll::Ready(gathered);
            }
        }
        self.write(cx, |inner, cx| {
            let size = ready!(Pin::new(&mut inner.transport).poll_write_vectored(cx, bufs))?;
            inner.wrote(bufs, size);
            Poll::Ready(Ok(size))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // What is gathered is flushed after the poll.
        match self.holds_back && !self.gathers {
            true => self.write(cx, |inner, cx| Pin::new(&mut inner.transport).poll_flush(cx)),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.inner.write(&self.conn, |inner| {
            ready!(inner.poll_gathered(cx))?;
            Pin::new(&mut inner.transport).poll_shutdown(cx)
        })
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}
