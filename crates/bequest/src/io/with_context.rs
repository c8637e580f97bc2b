//! Any reader or writer, under a context.

use std::io::{self, Read, Write};

use crate::Context;
#[cfg(feature = "tokio")]
use crate::DoneOwned;

/// A reader or writer whose operations fail once its context has ended.
///
/// Around tokio's readers and writers (feature `tokio`), an operation that waits is ended too. Around blocking ones the
/// context is asked before each operation, so that a long copy ends between two pieces; for a blocked one see
/// [`BlockingSocket`](super::BlockingSocket).
///
/// # Cancel safety
///
/// That of what is wrapped: no byte is lost here. What has come for a read that the context ended is still there, for whoever
/// takes what is wrapped [back](WithContext::into_inner). What a `read_exact` or a `write_all` has done when the context ends
/// stays done, and is not told.
///
/// # Errors
///
/// The context's end, as [`canceled`](super::canceled) finds it; otherwise those of what is wrapped. Shutting a writer down
/// is tried even after the end, and given up only if it has to wait.
///
/// # Example: a copy that ends between two pieces
///
/// ```
/// use bequest::Context;
/// use bequest::io::{WithContext, canceled};
/// use std::io::Write;
///
/// let ctx = Context::background().with_cancel();
/// let mut out = Vec::new();
/// let mut writer = WithContext::new(&ctx, &mut out);
/// writer.write_all(b"before").unwrap();
/// ctx.cancel();
/// assert!(canceled(&writer.write_all(b"after").unwrap_err()).is_some());
/// assert_eq!(*writer.into_inner(), b"before");
/// ```
#[derive(Debug)]
pub struct WithContext<T> {
    inner: T,
    ctx: Context,
    /// Whoever reads, and whoever writes, may be different tasks. Made when they first have to wait.
    #[cfg(feature = "tokio")]
    reading: Option<DoneOwned>,
    #[cfg(feature = "tokio")]
    writing: Option<DoneOwned>,
}

impl<T> WithContext<T> {
    /// `inner`, until `ctx` ends.
    pub fn new(ctx: &Context, inner: T) -> WithContext<T> {
        WithContext {
            inner,
            ctx: ctx.clone(),
            #[cfg(feature = "tokio")]
            reading: None,
            #[cfg(feature = "tokio")]
            writing: None,
        }
    }

    /// What is wrapped.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is wrapped. Operations on it do not end with the context.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// What is wrapped, for a life after this context.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<R: Read> Read for WithContext<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ctx.check()?;
        self.inner.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        self.ctx.check()?;
        self.inner.read_vectored(buffers)
    }
}

impl<W: Write> Write for WithContext<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ctx.check()?;
        self.inner.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.ctx.check()?;
        self.inner.write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.ctx.check()?;
        self.inner.flush()
    }
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use std::future::Future;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context as TaskContext, Poll, ready};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::WithContext;
    use crate::{Context, DoneOwned};

    impl<R: AsyncRead + Unpin> AsyncRead for WithContext<R> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut TaskContext<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = &mut *self;
            this.ctx.check()?;
            match Pin::new(&mut this.inner).poll_read(cx, buffer) {
                Poll::Pending => poll_end(&this.ctx, &mut this.reading, cx),
                read @ Poll::Ready(_) => read,
            }
        }
    }

    impl<W: AsyncWrite + Unpin> AsyncWrite for WithContext<W> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut TaskContext<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let this = &mut *self;
            this.ctx.check()?;
            match Pin::new(&mut this.inner).poll_write(cx, bytes) {
                Poll::Pending => poll_end(&this.ctx, &mut this.writing, cx),
                written @ Poll::Ready(_) => written,
            }
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut TaskContext<'_>,
            pieces: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = &mut *self;
            this.ctx.check()?;
            match Pin::new(&mut this.inner).poll_write_vectored(cx, pieces) {
                Poll::Pending => poll_end(&this.ctx, &mut this.writing, cx),
                written @ Poll::Ready(_) => written,
            }
        }

        fn is_write_vectored(&self) -> bool {
            self.inner.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            this.ctx.check()?;
            match Pin::new(&mut this.inner).poll_flush(cx) {
                Poll::Pending => poll_end(&this.ctx, &mut this.writing, cx),
                flushed @ Poll::Ready(_) => flushed,
            }
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            match Pin::new(&mut this.inner).poll_shutdown(cx) {
                Poll::Pending => poll_end(&this.ctx, &mut this.writing, cx),
                shut @ Poll::Ready(_) => shut,
            }
        }
    }

    /// Ready, with the error, when the context ends.
    fn poll_end<T>(
        ctx: &Context,
        waiting: &mut Option<DoneOwned>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<io::Result<T>> {
        let done = waiting.get_or_insert_with(|| ctx.clone().done_owned());
        let end = ready!(Pin::new(done).poll(cx));
        Poll::Ready(Err(end.into()))
    }
}
