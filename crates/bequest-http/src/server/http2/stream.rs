//! One stream: its handler, then the body of its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::super::BoxError;
use super::super::body::ResponseBody;
use super::super::connection::Connection;
use super::super::exchange::Exchange;
use super::super::panic::{self, Panic};
use super::super::service::Exchanging;
use super::pipe::{self, Pipe};
use super::tunnel::Offer;
use super::{Placed, head};

pin_project! {
    /// One stream. Ready when nothing is to be done for it any more; its drop before that resets it.
    pub(super) struct Stream<B>
    where
        B: Send,
        B: 'static,
    {
        respond: SendResponse<Bytes>,
        #[pin]
        stage: Stage<B>,
        is_over: bool,
    }

    impl<B> PinnedDrop for Stream<B>
    where
        B: Send,
        B: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if !*this.is_over {
                // Whoever is at work on it is told first. The body of the request may be elsewhere, and keep the stream.
                this.stage.set(Stage::Over);
                this.respond.send_reset(Reason::CANCEL);
            }
        }
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<B>
    where
        B: Send,
        B: 'static,
    {
        Handler {
            exchanging: Exchanging<B>,
            // If the request asks for a tunnel.
            tunnel: Option<Offer>,
            has_begun: bool,
        },
        Body {
            #[pin]
            pipe: Pipe<ResponseBody<B>>,
        },
        Over,
    }
}

impl<B: Send + 'static> Stream<B> {
    pub(super) fn new(
        exchanging: Exchanging<B>,
        respond: SendResponse<Bytes>,
        tunnel: Option<Offer>,
    ) -> Stream<B> {
        Stream {
            respond,
            stage: Stage::Handler {
                exchanging,
                tunnel,
                has_begun: false,
            },
            is_over: false,
        }
    }

    /// Whether the client has reset it, or its connection has failed. If not, the task is woken by that.
    pub(super) fn is_reset(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> bool {
        self.project().respond.poll_reset(cx).is_ready()
    }

    /// The exchange whose answer is being sent, if it has come so far.
    pub(super) fn answering(&self) -> Option<&Exchange>
    where
        B: Body,
    {
        match &self.stage {
            Stage::Handler { .. } | Stage::Over => None,
            Stage::Body { pipe } => Some(pipe.body().exchange()),
        }
    }

    /// Something of the service's has panicked where nobody has caught it.
    fn broke(self: Pin<&mut Self>, panic: &Panic, conn: &Connection)
    where
        B: Body,
    {
        let this = self.project();
        let exchange = match this.stage.as_ref().get_ref() {
            Stage::Handler { exchanging, .. } => exchanging.unanswered().map(Arc::as_ref),
            Stage::Body { pipe } => Some(pipe.body().exchange()),
            Stage::Over => None,
        };
        match exchange {
            Some(exchange) => {
                exchange.tell(bequest::Reason::Panicked);
                exchange.report_panic(panic);
            }
            // It was lost on the way from the handler to the body.
            None => drop(conn.server().tally.panicked.fetch_add(1, Relaxed)),
        }
        *this.is_over = true;
        this.respond.send_reset(Reason::INTERNAL_ERROR);
    }
}

/// Polls a stream, and drops it as soon as it is over. A panic of the service's, be it in a destructor, is the end of this stream and
/// of no other.
pub(super) fn poll_placed<B>(
    placed: &mut Placed<Stream<B>>,
    conn: &Connection,
    cx: &mut TaskContext<'_>,
) -> Poll<()>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let polled = panic::catch(|| {
        let stream = placed.as_mut().as_pin_mut().expect("a stream that is not over");
        let polled = stream.poll(cx);
        if polled.is_ready() {
            placed.set(None);
        }
        polled
    });
    polled.unwrap_or_else(|panic| {
        match placed.as_mut().as_pin_mut() {
            Some(stream) => stream.broke(&panic, conn),
            None => drop(conn.server().tally.panicked.fetch_add(1, Relaxed)),
        }
        // Whatever else panics, the first is the one that is told of.
        let _ = panic::catch(|| placed.set(None));
        Poll::Ready(())
    })
}

impl<B> Future for Stream<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        ready!(self.as_mut().poll_to_end(cx));
        *self.project().is_over = true;
        Poll::Ready(())
    }
}

impl<B> Stream<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    fn poll_to_end(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        if let StageProj::Handler {
            exchanging,
            tunnel,
            has_begun,
        } = this.stage.as_mut().project()
        {
            if !std::mem::replace(has_begun, true) && exchanging.exchange().conn().resets() {
                // Nothing is begun for a stream that was reset.
                if this.respond.poll_reset(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            let Poll::Ready(answer) = Pin::new(exchanging).poll(cx) else {
                return this.respond.poll_reset(cx).map(drop);
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(abandoned) => {
                    this.respond.send_reset(pipe::reset_for(&abandoned));
                    return Poll::Ready(());
                }
            };
            let tunnel = tunnel.take();
            let Some(pipe) = respond(this.respond, answer, tunnel) else {
                return Poll::Ready(());
            };
            this.stage.set(Stage::Body { pipe });
        }
        match this.stage.project() {
            StageProj::Body { pipe } => pipe.poll(cx),
            StageProj::Handler { .. } | StageProj::Over => unreachable!("it has answered"),
        }
    }
}

/// Sends the head of an answer. The body, if there is one, is left to send.
fn respond<B>(
    respond: &mut SendResponse<Bytes>,
    answer: Response<ResponseBody<B>>,
    tunnel: Option<Offer>,
) -> Option<Pipe<ResponseBody<B>>>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let (mut parts, body) = answer.into_parts();
    head::make_fit(&mut parts.headers);
    if let Some(tunnel) = tunnel.filter(|_| parts.status.is_success()) {
        // What a tunnel carries has no length (RFC 9110, 9.3.6), and whoever says one means something else.
        if head::content_length(&parts.headers).is_some_and(|length| length != 0) {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return None;
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        match respond.send_response(Response::from_parts(parts, ()), false) {
            Ok(stream) => tunnel.open(stream, body.exchange().conn()),
            Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
        }
        return None;
    }
    let is_over = body.is_end_stream();
    if !is_over {
        head::say_length(&mut parts.headers, &body.size_hint());
    }
    match respond.send_response(Response::from_parts(parts, ()), is_over) {
        Ok(stream) if !is_over => Some(Pipe::new(body, stream)),
        Ok(_) => None,
        // A head that is none, or a stream that is no more.
        Err(_) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}
