//! A reader that stops with its context: before a read, and in the middle of one that blocks.
//!
//! A reader that only looks before each read stays in a read that never returns. This one is told by a callback, which
//! makes the blocked read return: for a socket, by shutting it down.
//!
//! Run it with `cargo run -p bequest-test --example reader`; it says nothing if every assertion holds.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use bequest::{AfterFunc, Context, Kind, Reason};

/// A reader that answers with the context's error as soon as the context has ended.
pub(crate) struct ContextReader<R> {
    ctx: Context,
    inner: R,
    /// Withdrawn with the reader.
    _interrupt: Option<AfterFunc>,
}

impl<R: Read> ContextReader<R> {
    /// For readers that never block.
    pub(crate) fn new(ctx: &Context, inner: R) -> ContextReader<R> {
        ContextReader {
            ctx: ctx.clone(),
            inner,
            _interrupt: None,
        }
    }

    /// For readers that block: `interrupt` makes a blocked read return.
    pub(crate) fn interrupted_by(ctx: &Context, inner: R, interrupt: impl FnOnce() + Send + 'static) -> Self {
        ContextReader {
            _interrupt: Some(ctx.after_func(|_| interrupt())),
            ..ContextReader::new(ctx, inner)
        }
    }
}

impl<R: Read> Read for ContextReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ctx.check()?;
        match self.inner.read(buffer) {
            // What was read before the end is handed on; the next read says why there is no more.
            Ok(length) if length > 0 => Ok(length),
            nothing => {
                self.ctx.check()?;
                nothing
            }
        }
    }
}

fn main() -> io::Result<()> {
    let scope = Context::background().with_cancel();
    let mut reader = ContextReader::new(&scope, &b"123456789"[..]);
    let mut three = [0; 3];
    assert_eq!((reader.read(&mut three)?, &three), (3, b"123"));
    assert_eq!((reader.read(&mut three)?, &three), (3, b"456"));
    scope.cancel();
    let error = reader.read(&mut three).unwrap_err();
    assert_eq!(why(&error), Some((Kind::Canceled, Reason::Explicit)));

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (stream, _) = listener.accept()?;
    let scope = Context::background().with_cancel();
    let other = stream.try_clone()?;
    let interrupt = move || other.shutdown(Shutdown::Both).expect("the socket was open");
    let mut reader = ContextReader::interrupted_by(&scope, stream, interrupt);
    peer.write_all(b"123")?;
    reader.read_exact(&mut three)?;
    let blocked = thread::spawn(move || reader.read(&mut three));
    scope.cancel_for(Reason::ClientGone);
    let error = blocked.join().expect("it does not panic").unwrap_err();
    assert_eq!(why(&error), Some((Kind::Canceled, Reason::ClientGone)));
    Ok(())
}

/// The kind and the reason with which a context ended, if that is what the error says.
pub(crate) fn why(error: &io::Error) -> Option<(Kind, Reason)> {
    let end = error.get_ref()?.downcast_ref::<bequest::Canceled>()?;
    Some((end.kind(), end.reason()))
}
