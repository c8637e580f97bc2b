//! One request and its answer, as all its parts share it: the handler's future, the two bodies, a lingering task.
//!
//! # Invariants
//!
//! 1. An exchange is finished once: by the drop of its response body, or by the drop of its unfinished handler. Only
//!    then are its contexts ended by the server, the observer told and its end counted.
//! 2. The context ends by the first event; `finish` never overrides a reason that is there already.
//! 3. Nothing is cancelled, observed or dropped under the lock of `route`.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bequest::{AfterFunc, CancelScope, Canceled, Context, Reason};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};

use super::BoxError;
use super::connection::Connection;
use super::disconnect::Disconnect;
use super::form;
use super::inbound::{Handed, Refusal};
use super::observe::{Dropped, Finished, PanicReport, StandIn, WhyDropped, WhyStandIn};
use super::panic::{self, Panic};
use super::peer::PeerState;
use super::shared::Shared;
use super::statistics::TaskGuard;
use crate::wire::grpc;

/// One request and its answer.
pub(super) struct Exchange {
    conn: Arc<Connection>,
    /// The owner of the request's context.
    scope: CancelScope,
    /// The scope's with values, if it has any.
    context: Option<Context>,
    /// When its own deadline passes, on the server's stopwatch.
    until: Duration,
    /// Why the handler is not to begin, if what the caller asks for is not worth beginning.
    refusal: Option<Refusal>,
    /// Whether there ever was a detached context.
    has_detached: AtomicBool,
    /// What the routes have decided. Written by layers before the handler starts, read when the client leaves.
    route: Mutex<Route>,
    method: Method,
    /// What was asked for; without the host, which nobody would be told of, if the program looks at none of it.
    uri: Uri,
    version: Version,
    /// Whether it is a call of gRPC, so that what is said in the handler's place is said in its terms.
    is_grpc: bool,
    /// When it began, on the server's stopwatch.
    began: Duration,
    /// The status handed to the connection; 0: none. Written once, by whoever answers.
    status: AtomicU16,
    /// Whether the client had left when the status was written.
    late: AtomicBool,
    /// Whether the connection has been given a frame of the response and not come back for the next one. Written by the
    /// response body only.
    untaken: AtomicBool,
    /// How many frames the connection has been given. Written by the response body only.
    frames: AtomicU64,
    /// Bytes of body handed to the connection. Written by the response body only.
    bytes: AtomicU64,
    /// Whether its response ends with the server's shutdown. Set when that begins, by whoever answers.
    ends_with_shutdown: AtomicBool,
    /// Whether the handler goes on after the exchange is over; its detached context then does too.
    lingers: AtomicBool,
    /// Set by `finish`, once (invariant 1), and not by the drop of the last handle: a lingering handler is no live request.
    finished: AtomicBool,
    /// Where no connection's task stands for it: what a shutdown waits for. Taken by `finish`.
    task: Option<Mutex<Option<TaskGuard>>>,
}

struct Route {
    mode: Disconnect,
    /// The contexts of detached routes, the innermost last.
    detached: Vec<Detached>,
}

/// The context of a detached route, and what ends it beside its limit.
struct Detached {
    scope: CancelScope,
    /// Each carries an end over to `scope`, and stops doing so when dropped.
    ties: Vec<AfterFunc>,
}

impl Exchange {
    /// Begins an exchange: its context is derived from the connection's, with the request limit or the caller's deadline,
    /// and given the values that the caller hands down and those that the program adds. `checks_form`: what could be read in two
    /// ways is refused.
    pub(super) fn begin(conn: &Arc<Connection>, head: &Parts, checks_form: bool) -> Arc<Exchange> {
        let server = conn.server();
        let task = conn.is_elsewhere().then(|| Mutex::new(Some(server.tally.task())));
        let began = conn.time_of_poll();
        let since = conn.request_began();
        let waited = since.map_or(Duration::ZERO, |since| began.saturating_sub(since));
        let Handed {
            scope,
            context,
            until,
            refusal,
        } = server.inbound.take(conn, head, began, waited);
        let flaw = checks_form.then(|| form::flaw(head)).flatten();
        let refusal = flaw.or(refusal);
        let context = match &server.request_context {
            Some(make) => {
                let plain = context.unwrap_or_else(|| scope.context());
                Some(make(plain, head, conn.info()))
            }
            None => context,
        };
        // Made in here, as it is large and would be copied once more outside.
        Arc::new(Exchange {
            scope,
            context,
            until,
            refusal,
            route: Mutex::new(Route {
                mode: server.disconnect,
                detached: Vec::new(),
            }),
            method: head.method.clone(),
            uri: server.uri_to_tell(&head.uri),
            version: head.version,
            is_grpc: head.method == Method::POST && grpc::is_grpc(&head.headers),
            began,
            status: AtomicU16::new(0),
            late: AtomicBool::new(false),
            untaken: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ends_with_shutdown: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            has_detached: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            task,
            conn: conn.clone(),
        })
    }

    pub(super) fn conn(&self) -> &Arc<Connection> {
        &self.conn
    }

    pub(super) fn server(&self) -> &Shared {
        self.conn.server()
    }

    pub(super) fn context(&self) -> &Context {
        self.context.as_ref().unwrap_or(&self.scope)
    }

    /// Why the connection has dropped this exchange, when it has.
    pub(super) fn departure(&self) -> Reason {
        // Whoever drives the connection may have met its end before the watch has.
        if let Some(state) = self.conn.outpost().look() {
            self.conn.saw(state);
        }
        self.conn.departure(self.version == Version::HTTP_2)
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn disconnect(&self) -> Disconnect {
        self.route().mode
    }

    /// Sets the mode for whatever is inside the caller, which uses `outer` so far. Answers the context that the inside is
    /// to use from now on, if that is another one.
    pub(super) fn set_disconnect(&self, mode: Disconnect, outer: &Context) -> Option<Context> {
        match mode {
            Disconnect::Detach(limit) => {
                let detached = self.detach(limit, outer);
                let inner = detached.scope.context();
                self.has_detached.store(true, Relaxed);
                let mut route = self.route();
                route.mode = mode;
                route.detached.push(detached);
                Some(inner)
            }
            Disconnect::Drop | Disconnect::Grace(_) => {
                let outermost = {
                    let mut route = self.route();
                    route.mode = mode;
                    std::mem::take(&mut route.detached)
                };
                // A layer further out detached and this one takes it back: those contexts follow the request again.
                let tied = outermost
                    .into_iter()
                    .map(|detached| detached.tied_to(&self.scope))
                    .collect();
                self.route().detached = tied;
                None
            }
        }
    }

    /// The end of the context, if its client has left for so long that the handler is not to be begun.
    ///
    /// A client that has only closed its sending side may still wait for its answer, so it has its grace.
    pub(super) fn is_too_late(&self) -> Option<Canceled> {
        let departed = self.conn.departed_for()?;
        let too_late = match self.server().disconnect {
            Disconnect::Detach(_) => false,
            Disconnect::Drop => true,
            Disconnect::Grace(grace) => departed >= grace || self.conn.peer().state() > PeerState::HalfClosed,
        };
        self.scope.err().filter(|_| too_late)
    }

    /// Records the status that goes to the client.
    pub(super) fn answered(&self, status: StatusCode) {
        // On HTTP/1 only the connection can leave. No deadline matters here, so the clock is not looked at.
        let may_be_late = self.version == Version::HTTP_2 || self.conn.peer().state() != PeerState::Open;
        let ended = may_be_late.then(|| self.scope.known_end()).flatten();
        let late = ended.is_some_and(|end| end.reason().is_departure());
        self.conn.answers_upgrade(&self.method, status);
        self.late.store(late, Relaxed);
        self.status.store(status.as_u16(), Relaxed);
    }

    /// Records bytes of body that go to the client.
    pub(super) fn sent(&self, bytes: u64) {
        // Not an atomic addition, as one body writes.
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
    }

    /// The connection has come for the next frame of the response, or has been given one.
    pub(super) fn hands_out(&self, given: bool) {
        self.untaken.store(given, Relaxed);
        if given {
            self.frames.store(self.frames.load(Relaxed) + 1, Relaxed);
        }
    }

    /// The response has no end of its own: the server's shutdown is to end it.
    pub(super) fn end_with_shutdown(&self) {
        self.ends_with_shutdown.store(true, Relaxed);
        self.conn.set_ends_with_shutdown(true);
    }

    /// Whether the response is one that the server's shutdown ends.
    pub(super) fn ends_with_shutdown(&self) -> bool {
        self.ends_with_shutdown.load(Relaxed)
    }

    /// Whether that has happened.
    pub(super) fn is_shut_down(&self) -> bool {
        self.ends_with_shutdown() && self.server().draining.is_done()
    }

    /// The number of the frame on which the connection sits, if it sits on one.
    pub(super) fn untaken(&self) -> Option<u64> {
        self.untaken.load(Relaxed).then(|| self.frames.load(Relaxed))
    }

    /// Ends the request's context, and the exchange goes on: the handler may still answer or tidy up.
    pub(super) fn tell(&self, reason: Reason) {
        self.scope.cancel_for(reason);
    }

    /// Ends the request's context with an error of the service's own.
    pub(super) fn fail(&self, error: BoxError) {
        self.scope.cancel_with(error);
    }

    /// Ends the detached contexts.
    pub(super) fn end_detached(&self, reason: Reason) {
        // With the store in `set_disconnect`, which comes before: the same task, or one that was handed the exchange.
        if !self.has_detached.load(Relaxed) {
            return;
        }
        let detached = std::mem::take(&mut self.route().detached);
        for detached in detached {
            detached.scope.cancel_for(reason);
        }
    }

    /// Waits until a detached handler has been told of its limit and had time to answer.
    pub(super) async fn detached_end(&self) {
        let context = self
            .route()
            .detached
            .last()
            .map(|detached| detached.scope.context());
        if let Some(context) = context {
            context.done().await;
            self.server().pause(self.server().limits.answer).await;
        }
    }

    /// The handler will go on after the exchange is over, so its detached context stays.
    pub(super) fn let_linger(&self) {
        self.lingers.store(true, Relaxed);
    }

    /// The exchange is over: the client has its answer to the end.
    pub(super) fn finish_answered(self: &Arc<Exchange>) {
        // Of limits of seconds.
        let now = self.server().stopwatch.now_coarse();
        // The exchange goes with this handle, its context with it, and nobody could see how that ends.
        let is_unseen = Arc::strong_count(self) == 1
            && self.context.is_none()
            && !self.server().is_observed
            && now < self.until
            && self.scope.is_unobserved();
        if !is_unseen {
            return self.finish(Reason::ResponseEnded);
        }
        // Not a swap, as nobody else has a handle.
        if !self.finished.load(Relaxed) {
            self.finished.store(true, Relaxed);
            self.release(now, true);
        }
    }

    /// The exchange is over: the client has its answer to the end, or will never have it.
    pub(super) fn finish(&self, reason: Reason) {
        if self.finished.swap(true, Relaxed) {
            return;
        }
        self.scope.cancel_for(reason);
        if !self.lingers.load(Relaxed) {
            self.end_detached(reason);
        }
        let now = self.server().stopwatch.now();
        let end = self.scope.err().expect("cancelled above");
        self.report_finished(&end, now);
        if let Some(counter) = self.counter(&end) {
            counter.fetch_add(1, Relaxed);
        }
        // What has panicked is dropped without having been asked, and no doing of the client's.
        if reason == Reason::StreamReset && end.reason() != Reason::Panicked {
            self.conn.counts_reset(now);
        }
        self.release(now, end.reason() == Reason::ResponseEnded);
    }

    /// Last, so that whoever sees that no request is being served sees what has become of each.
    fn release(&self, now: Duration, served: bool) {
        self.conn.request_ended(now, served);
        if let Some(task) = &self.task {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(task);
        }
    }

    fn report_finished(&self, end: &Canceled, now: Duration) {
        let status = StatusCode::from_u16(self.status.load(Relaxed)).ok();
        self.server().observe(|observer| {
            observer.request_finished(&Finished {
                conn: self.conn.info(),
                context: self.context(),
                method: &self.method,
                uri: &self.uri,
                version: self.version,
                status,
                late: self.late.load(Relaxed),
                bytes: self.bytes.load(Relaxed),
                elapsed: now.saturating_sub(self.began),
                end,
            });
        });
    }

    pub(super) fn report_panic(&self, panic: &Panic) {
        self.server().tally.panicked.fetch_add(1, Relaxed);
        self.server().observe(|observer| {
            observer.panicked(&PanicReport {
                conn: self.conn.info(),
                context: self.context(),
                method: &self.method,
                uri: &self.uri,
                panic,
            });
        });
    }

    /// What the program wants to be answered in the handler's place, if it wants anything particular.
    pub(super) fn stand_in(&self, status: StatusCode, why: WhyStandIn<'_>) -> Option<Response<Bytes>> {
        let make = self.server().stand_in.as_ref()?;
        let missing = StandIn {
            conn: self.conn.info(),
            context: self.context(),
            method: &self.method,
            uri: &self.uri,
            status,
            why,
        };
        // A panic went through the panic hook; the short text stands in for the stand-in.
        panic::catch(|| make(&missing)).ok()
    }

    pub(super) fn report_dropped(&self, why: WhyDropped) {
        let tally = &self.server().tally;
        tally.dropped.fetch_add(1, Relaxed);
        if why == WhyDropped::TooManyLinger {
            tally.refused_grace.fetch_add(1, Relaxed);
        }
        self.server().observe(|observer| {
            observer.handler_dropped(&Dropped {
                conn: self.conn.info(),
                method: &self.method,
                uri: &self.uri,
                why,
            });
        });
    }

    /// Where an end that has a number of its own is counted.
    fn counter(&self, end: &Canceled) -> Option<&AtomicU64> {
        let tally = &self.server().tally;
        match end.reason() {
            Reason::Shutdown => Some(&tally.shut_down),
            _ if end.is_timeout() => Some(&tally.timed_out),
            reason if reason.is_departure() => Some(&tally.client_gone),
            _ => None,
        }
    }

    /// A context with the values of `outer` that ends with its own limit or the server's shutdown.
    fn detach(&self, limit: Duration, outer: &Context) -> Detached {
        let scope = outer
            .without_cancel()
            .with_timeout(limit)
            .named("detached")
            .reason(Reason::Limit("detached"));
        Detached {
            scope,
            ties: Vec::new(),
        }
        .tied_to(&self.server().context)
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Only if what was to finish it was never made: a panic in between.
        if !*self.finished.get_mut() {
            let now = self.server().stopwatch.now();
            self.conn.request_ended(now, false);
        }
    }
}

impl Detached {
    /// Ends for the same reason as `outer`, as soon as that ends.
    fn tied_to(mut self, outer: &Context) -> Detached {
        let canceller = self.scope.canceller();
        self.ties
            .push(outer.after_func(move |end| canceller.cancel_for(end.reason())));
        self
    }
}
