//! A blocking socket, under a context that ends a blocked operation too.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::{AfterFunc, Canceled, Context};

/// A blocking socket whose reads and writes, blocked ones included, end with its context.
///
/// When the context ends, the socket is shut down in both directions: a blocked operation returns, and the peer sees the
/// end. That connection is then over, as one that was given up in the middle has to be. One that is to live longer than the
/// context is taken back by [`into_inner`](BlockingSocket::into_inner) before.
///
/// `&BlockingSocket` reads and writes too, so that one thread may read while another writes.
///
/// # Errors
///
/// The context's end, as [`canceled`](super::canceled) finds it, and otherwise the socket's own. An end of the stream
/// that comes after the context's is told as the context's.
///
/// ```
/// use bequest::Context;
/// use bequest::io::{BlockingSocket, canceled};
/// use std::io::Read;
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0").unwrap();
/// let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
/// let (_silent_peer, _) = listener.accept().unwrap();
///
/// let ctx = Context::background().with_cancel();
/// let mut socket = BlockingSocket::new(&ctx, stream);
/// let canceller = ctx.canceller();
/// std::thread::spawn(move || canceller.cancel_with("not needed any more"));
/// let error = socket.read(&mut [0; 16]).unwrap_err();
/// assert_eq!(canceled(&error).unwrap().cause().unwrap().to_string(), "not needed any more");
/// ```
pub struct BlockingSocket<S: ShutDown> {
    socket: Arc<S>,
    ctx: Context,
    /// Shuts the socket down when the context ends.
    told: AfterFunc,
}

/// A socket whose blocked operations return when it is shut down from another thread.
pub trait ShutDown: Send + Sync + 'static {
    /// Shuts both directions down.
    ///
    /// # Errors
    ///
    /// Those of the system, for example that the socket is not connected any more.
    fn shut_down(&self) -> io::Result<()>;
}

impl ShutDown for TcpStream {
    fn shut_down(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

#[cfg(unix)]
impl ShutDown for UnixStream {
    fn shut_down(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl<S: ShutDown> BlockingSocket<S> {
    /// `socket`, until `ctx` ends. If it has ended already, the socket is shut down at once.
    pub fn new(ctx: &Context, socket: S) -> BlockingSocket<S> {
        let socket = Arc::new(socket);
        let weak = Arc::downgrade(&socket);
        let told = ctx.after_func(move |_end| {
            if let Some(socket) = weak.upgrade() {
                // A socket that is not connected any more blocks nobody.
                let _ = socket.shut_down();
            }
        });
        BlockingSocket {
            socket,
            ctx: ctx.clone(),
            told,
        }
    }

    /// The socket itself. Operations on it are woken by the end of the context, but their results are the system's.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The socket, for a life after this context.
    ///
    /// # Errors
    ///
    /// If the context has ended first: the socket is shut down, or about to be.
    pub fn into_inner(self) -> Result<S, Canceled> {
        let BlockingSocket { socket, ctx, told } = self;
        if !told.stop() {
            ctx.check()?;
        }
        match Arc::try_unwrap(socket) {
            Ok(socket) => Ok(socket),
            // Held by the callback alone, which runs only once the context has ended.
            Err(_) => Err(ctx.wait()),
        }
    }

    /// Does one operation, and says why it was ended if it was.
    fn attempt(&self, work: impl FnOnce(&S) -> io::Result<usize>) -> io::Result<usize> {
        self.ctx.check()?;
        match work(&self.socket) {
            Ok(moved) if moved > 0 => Ok(moved),
            nothing_or_failure => {
                self.ctx.check()?;
                nothing_or_failure
            }
        }
    }
}

impl<S: ShutDown> Read for &BlockingSocket<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match buffer.is_empty() {
            true => self.ctx.check().map(|()| 0).map_err(Into::into),
            false => self.attempt(|mut socket| socket.read(buffer)),
        }
    }
}

impl<S: ShutDown> Write for &BlockingSocket<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|mut socket| socket.write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.attempt(|mut socket| socket.write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|mut socket| socket.flush().map(|()| 0)).map(drop)
    }
}

impl<S: ShutDown> Read for BlockingSocket<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl<S: ShutDown> Write for BlockingSocket<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl<S: ShutDown + fmt::Debug> fmt::Debug for BlockingSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingSocket")
            .field("socket", &self.socket)
            .field("ctx", &self.ctx)
            .finish_non_exhaustive()
    }
}
