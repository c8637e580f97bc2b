//! From a request to its answer: the future that drives one handler.
//!
//! # Invariants
//!
//! 1. The handler is polled inside the connection's future (on HTTP/2: of its stream). There is no task for each request.
//! 2. The handler is told before anything else happens to it: its context ends first, and only then may it be dropped,
//!    moved or answered for.
//! 3. A handler is not begun for a client that has left, or reset its stream, already, unless the server detaches its handlers.
//! 4. What a connection drops is never lost: [`Exchanging`]'s drop hands an unfinished handler to `disconnect`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bequest::Reason;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tower_service::Service;

use super::BoxError;
use super::body::{RequestBody, ResponseBody};
use super::calling::Calling;
use super::calls::Abandoned;
use super::connection::Connection;
use super::disconnect::{Disconnect, ExchangeHandle, Handler, discard, forget, linger};
use super::exchange::Exchange;
use super::inbound::Refusal;
use super::incoming::Incoming;
use super::observe::WhyStandIn;
use super::oversee::{Overseer, Verdict};
use super::panic;
use super::peer::Peer;
use crate::wire::grpc::{self, GrpcStatus};

/// A service as this crate calls it: once for each request, owned, its answer boxed. Every fitting tower service is one.
///
/// `R` is the body with which requests come.
pub(super) trait App<R = Incoming>: Clone + Send + 'static {
    /// The body of its responses.
    type Body: Body<Error: Into<BoxError>> + Send + 'static;

    /// Waits until the service is ready and hands it the request.
    fn handle(self, request: Request<RequestBody<R>>) -> Handler<Result<Response<Self::Body>, BoxError>>;
}

impl<S, B, R> App<R> for S
where
    R: Send + 'static,
    S: Service<Request<RequestBody<R>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Body = B;

    fn handle(self, request: Request<RequestBody<R>>) -> Handler<Result<Response<B>, BoxError>> {
        Box::pin(Calling::new(self, request))
    }
}

/// A request as it has come from its connection.
pub(super) struct Come<R> {
    pub(super) head: Parts,
    pub(super) body: R,
    /// Whether the body may be one that has to be waited for.
    pub(super) has_body: bool,
    /// Whether it is refused if it could be read in two ways.
    pub(super) checks_form: bool,
}

/// One handler being polled by its connection.
pub(super) struct Exchanging<B: Send + 'static> {
    /// `None` once it has finished or was handed on, or if the request is refused.
    handler: Option<Handler<Result<Response<B>, BoxError>>>,
    /// Whether the handler was polled at all.
    begun: bool,
    /// `None` once the response's body has it.
    exchange: Option<Arc<Exchange>>,
    /// Waits for the context's end and the time after it. Made when the handler first has to wait.
    overseer: Option<Overseer>,
}

impl<B: Send + 'static> Exchanging<B> {
    /// Begins the exchange of a request: makes its context, and hands it to the service.
    pub(super) fn begin<S, R>(conn: &Arc<Connection>, service: S, request: Come<R>) -> Exchanging<B>
    where
        S: App<R, Body = B>,
    {
        let Come { mut head, body, .. } = request;
        let exchange = Exchange::begin(conn, &head, request.checks_form);
        if exchange.refusal().is_some() {
            return Exchanging {
                handler: None,
                begun: false,
                exchange: Some(exchange),
                overseer: None,
            };
        }
        let mut context = exchange.context().clone();
        let mode = conn.server().disconnect;
        if let Disconnect::Detach(_) = mode {
            context = exchange.set_disconnect(mode, &context).unwrap_or(context);
        }
        head.extensions.insert(context);
        if !conn.is_unknown() {
            head.extensions.insert(Peer {
                presence: conn.peer().clone(),
                exchange: ExchangeHandle(Arc::downgrade(&exchange)),
            });
        } else {
            head.extensions.insert(ExchangeHandle(Arc::downgrade(&exchange)));
        }
        if !conn.is_elsewhere() && head.extensions.get::<hyper::upgrade::OnUpgrade>().is_some() {
            head.extensions.insert(conn.offer_upgrade());
        }
        let watched = request.has_body.then(|| exchange.clone());
        let request = Request::from_parts(head, RequestBody::new(body, watched));
        let handler = service.handle(request);
        Exchanging {
            handler: Some(handler),
            begun: false,
            exchange: Some(exchange),
            overseer: None,
        }
    }

    /// The exchange, until it has answered.
    pub(super) fn unanswered(&self) -> Option<&Arc<Exchange>> {
        self.exchange.as_ref()
    }
}

impl<B> Future for Exchanging<B>
where
    B: Body + Send + 'static,
{
    type Output = Result<Response<ResponseBody<B>>, Abandoned>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.begun {
            if let Some(end) = this.exchange().is_too_late() {
                this.exchange().finish(end.reason());
                return Poll::Ready(Err(Abandoned(end)));
            }
            this.begun = true;
            if let Some(refusal) = this.exchange().refusal() {
                let mut answer = this.answer_with(refusal.status(), WhyStandIn::Refused(refusal));
                if refusal.ends_connection() {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                return Poll::Ready(Ok(answer));
            }
        }
        let handler = this.handler.as_mut().expect("polled again after it was ready");
        let mut polled = Poll::Pending;
        // Written in place, as an answer is large.
        if let Err(panic) = panic::catch(|| polled = handler.as_mut().poll(cx)) {
            return Poll::Ready(Ok(this.answer_panic(&panic)));
        }
        if let Poll::Ready(answer) = polled {
            this.handler = None;
            this.overseer = None;
            return Poll::Ready(Ok(this.answer(answer)));
        }
        let exchange = this.exchange.as_ref().expect("it has not answered");
        let overseer = this.overseer.get_or_insert_with(|| {
            exchange.conn().arm();
            Overseer::of(exchange)
        });
        let verdict = std::task::ready!(overseer.poll(exchange, cx));
        Poll::Ready(this.give_up(verdict))
    }
}

impl<B> Exchanging<B>
where
    B: Body + Send + 'static,
{
    /// The exchange.
    pub(super) fn exchange(&self) -> &Arc<Exchange> {
        self.unanswered().expect("it has not answered")
    }

    /// Passes on what the service said.
    fn answer(&mut self, answer: Result<Response<B>, BoxError>) -> Response<ResponseBody<B>> {
        match answer {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                let exchange = self.exchange.take().expect("it has not answered");
                let body = ResponseBody::of_service(body, exchange, &parts);
                say_goodbye(body.exchange().conn(), &mut parts.headers);
                Response::from_parts(parts, body)
            }
            Err(error) => {
                let answer = self.answer_with(StatusCode::INTERNAL_SERVER_ERROR, WhyStandIn::Failed(&error));
                self.exchange().fail(error);
                answer
            }
        }
    }

    fn answer_panic(&mut self, panic: &panic::Panic) -> Response<ResponseBody<B>> {
        self.exchange().tell(Reason::Panicked);
        self.exchange().end_detached(Reason::Panicked);
        self.exchange().report_panic(panic);
        // What is left of the handler is given up, its destructors included.
        if let Err(second) = panic::catch(|| self.handler = None) {
            self.exchange().report_panic(&second);
        }
        self.answer_with(StatusCode::INTERNAL_SERVER_ERROR, WhyStandIn::Panicked(panic))
    }

    /// The handler was told, had its time, and has not answered.
    fn give_up(&mut self, verdict: Verdict) -> Result<Response<ResponseBody<B>>, Abandoned> {
        let Verdict { end, waited, why } = verdict;
        // Gives a place among those that linger back before another one is taken.
        self.overseer = None;
        let handler = self.handler.take();
        if end.reason().is_departure() {
            if let Some(handler) = handler {
                self.exchange().finish(end.reason());
                discard(handler, self.exchange(), why);
            }
            return Err(Abandoned(end));
        }
        let answer = match end.is_timeout() {
            _ if matches!(end.reason(), Reason::Limit("body idle" | "body rate")) => {
                self.answer_with(StatusCode::REQUEST_TIMEOUT, WhyStandIn::Ended(&end))
            }
            true => self.answer_with(StatusCode::GATEWAY_TIMEOUT, WhyStandIn::Ended(&end)),
            false => self.answer_with(StatusCode::SERVICE_UNAVAILABLE, WhyStandIn::Ended(&end)),
        };
        if let Some(handler) = handler {
            self.exchange().let_linger();
            linger(handler, self.exchange().clone(), waited);
        }
        Ok(answer)
    }

    fn answer_with(&self, status: StatusCode, why: WhyStandIn<'_>) -> Response<ResponseBody<B>> {
        if self.exchange().is_grpc() {
            let exchange = self.exchange().clone();
            let mut answer = Response::new(ResponseBody::of_server(None, exchange, StatusCode::OK));
            *answer.headers_mut() = grpc_status(&why).head();
            say_goodbye(self.exchange().conn(), answer.headers_mut());
            return answer;
        }
        if let Some(answer) = self.exchange().stand_in(status, why) {
            let (mut parts, text) = answer.into_parts();
            let body = ResponseBody::of_server(Some(text), self.exchange().clone(), parts.status);
            say_goodbye(self.exchange().conn(), &mut parts.headers);
            return Response::from_parts(parts, body);
        }
        let text = Bytes::from(why.to_string());
        let mut response = Response::new(ResponseBody::of_server(
            Some(text),
            self.exchange().clone(),
            status,
        ));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        say_goodbye(self.exchange().conn(), headers);
        response
    }
}

impl<B: Send + 'static> Drop for Exchanging<B> {
    fn drop(&mut self) {
        // A handler that has not answered is dropped only when there is nobody to answer.
        let (handler, Some(exchange)) = (self.handler.take(), self.exchange.take()) else {
            return;
        };
        let Some(handler) = handler else {
            if !self.begun {
                exchange.finish(exchange.departure());
            }
            return;
        };
        self.overseer = None;
        let detached = matches!(exchange.disconnect(), Disconnect::Detach(_));
        if self.begun || detached {
            exchange.let_linger();
        }
        exchange.finish(exchange.departure());
        if self.begun || detached {
            let waited = exchange.conn().departed_for().unwrap_or_default();
            linger(handler, exchange, waited);
        } else {
            forget(handler, &exchange);
        }
    }
}

/// HTTP/1 has no goodbye but that of an answer: a client that hears it sends its next request elsewhere, and not into a connection
/// that is being closed.
fn say_goodbye(conn: &Connection, headers: &mut HeaderMap) {
    if conn.server().draining.is_done() && !conn.is_http2() && !conn.is_elsewhere() && !conn.switches() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// What a caller of gRPC is told in the handler's place.
fn grpc_status(why: &WhyStandIn<'_>) -> GrpcStatus {
    let code = match why {
        WhyStandIn::Ended(end) => return GrpcStatus::of(end),
        WhyStandIn::Refused(Refusal::Unreadable | Refusal::Malformed(_) | Refusal::Coding) => grpc::INTERNAL,
        WhyStandIn::Panicked(_) => grpc::INTERNAL,
        WhyStandIn::Refused(_) => grpc::DEADLINE_EXCEEDED,
        WhyStandIn::Failed(_) => grpc::UNKNOWN,
    };
    let message = why.to_string();
    GrpcStatus { code, message }
}
