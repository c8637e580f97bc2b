//! The body of an answer, which ends with its context.
//!
//! # Invariants
//!
//! 1. When the context ends, the protocol engine's body is dropped at once, polled or not, so that the peer hears of it.
//! 2. The engine's body is polled and dropped, and wakers are woken, outside the lock.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bequest::{AfterFunc, CancelScope, Canceled};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BoxError;
use super::error::{Error, Step, Why};
use super::observe::Watch;

/// The body of an answer. It fails when its context ends, and dropping it gives the exchange up.
pub struct ResponseBody<B = Incoming> {
    held: Arc<Mutex<Held<B>>>,
    size: SizeHint,
    /// `None` once the body is at its end.
    open: Option<Open>,
}

/// What an exchange holds while its body is being read. Dropped in this order.
struct Open {
    /// Drops the engine's body when the context ends.
    _told: AfterFunc,
    scope: CancelScope,
    _place: Box<dyn Any + Send + Sync>,
    watch: Option<Watch>,
    margin: Duration,
}

/// What the reader and the context's end share.
struct Held<B> {
    /// `None` while it is polled, and after its end.
    body: Option<Pin<Box<B>>>,
    /// Set by the context's end.
    end: Option<Canceled>,
    /// Whoever waits for the next frame. Set by the reader, taken by the context's end.
    waker: Option<Waker>,
}

impl<B: Body + Send + 'static> ResponseBody<B> {
    pub(super) fn new(
        body: B,
        scope: CancelScope,
        margin: Duration,
        place: Box<dyn Any + Send + Sync>,
        watch: Option<Watch>,
    ) -> ResponseBody<B> {
        let size = body.size_hint();
        let is_over = body.is_end_stream();
        let held = Arc::new(Mutex::new(Held {
            body: (!is_over).then(|| Box::pin(body)),
            end: None,
            waker: None,
        }));
        let open = if is_over {
            watch.inspect(Watch::complete);
            None
        } else {
            let weak = Arc::downgrade(&held);
            let told = scope.after_func(move |end| {
                if let Some(held) = weak.upgrade() {
                    give_up(&held, end);
                }
            });
            Some(Open {
                _told: told,
                scope,
                _place: place,
                watch,
                margin,
            })
        };
        ResponseBody { held, size, open }
    }

    fn fail(&mut self, why: Why) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        self.size = SizeHint::with_exact(0);
        Poll::Ready(self.open.take().map(|open| Err(open.error(why))))
    }

    /// Takes the body out to be polled. `Err`: the context has ended.
    fn take(&self, waker: Waker) -> Result<Option<Pin<Box<B>>>, Canceled> {
        let (taken, replaced) = {
            let mut held = lock(&self.held);
            if let Some(end) = held.end.clone() {
                return Err(end);
            }
            (held.body.take(), held.waker.replace(waker))
        };
        drop(replaced);
        Ok(taken)
    }

    /// Puts the body back after it was polled. `Err`: the context has ended meanwhile, and the body is dropped.
    fn put_back(&self, body: Pin<Box<B>>) -> Result<(), Canceled> {
        let mut held = lock(&self.held);
        match held.end.clone() {
            None => {
                held.body = Some(body);
                Ok(())
            }
            Some(end) => {
                drop(held);
                drop(body);
                Err(end)
            }
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let this = &mut *self;
        if this.open.is_none() {
            return Poll::Ready(None);
        }
        let mut body = match this.take(cx.waker().clone()) {
            Ok(Some(body)) => body,
            Ok(None) => return Poll::Ready(None),
            Err(end) => return this.fail(Why::Ended(end)),
        };
        let polled = body.as_mut().poll_frame(cx);
        match polled {
            Poll::Ready(None) => {
                this.open.take().inspect(Open::complete);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                // What the engine makes of an end that it was told of is the context's end. The request's body may have
                // told it before the callback that gives this one up has run.
                let end = this.open.as_ref().and_then(|open| open.scope.err());
                let why = end.map_or_else(|| Why::Failed(error.into()), Why::Ended);
                this.fail(why)
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.size = body.size_hint();
                if body.is_end_stream() {
                    this.open.take().inspect(Open::complete);
                } else if let Err(end) = this.put_back(body) {
                    return this.fail(Why::Ended(end));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => match this.put_back(body) {
                Ok(()) => Poll::Pending,
                Err(end) => this.fail(Why::Ended(end)),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Open {
    fn complete(&self) {
        if let Some(watch) = &self.watch {
            watch.complete();
        }
    }

    fn error(&self, why: Why) -> Error {
        let error = Error::new(Step::Reading, why, self.margin);
        if let Some(watch) = &self.watch {
            watch.failed(&error);
        }
        error
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Whoever holds a body whose context has ended hears of it by dropping it, too.
        let end = self.watch.is_some().then(|| self.scope.err()).flatten();
        if let Some(end) = end {
            drop(self.error(Why::Ended(end)));
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_open", &self.open.is_some())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The context has ended: lets the engine's body go, and wakes its reader.
fn give_up<B>(held: &Mutex<Held<B>>, end: Canceled) {
    let (body, waker) = {
        let mut held = lock(held);
        held.end = Some(end);
        (held.body.take(), held.waker.take())
    };
    drop(body);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn lock<B>(held: &Mutex<Held<B>>) -> MutexGuard<'_, Held<B>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
