//! One exchange under its context: the part that [`Client`](super::Client) and [`ContextLayer`](super::ContextLayer) share.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bequest::{CancelScope, Context, Reason};
use http::Response;
use http::request::Parts;
use http_body::Body;

use super::BoxError;
use super::body::ResponseBody;
use super::error::{Error, Step, Why};
use super::observe::{Exchange, Observer, Watch};
use crate::wire::Outbound;

/// An exchange that has begun. Its drop ends its context.
pub(crate) struct Call {
    scope: CancelScope,
    margin: Duration,
    /// `None`: nobody observes it.
    watch: Option<Watch>,
}

impl Call {
    /// Begins an exchange for `ctx`, of at most `limit`, and writes into the head what goes along. `observer` is told of it
    /// beside those that `ctx` carries.
    pub(crate) fn begin(
        ctx: &Context,
        limit: Duration,
        outbound: &Outbound,
        observer: Option<&Observer>,
        head: &mut Parts,
    ) -> Result<Call, Error> {
        let scope = ctx
            .with_timeout(limit)
            .named("exchange")
            .reason(Reason::Limit("exchange"));
        let applied = match scope.err() {
            None => outbound.apply(&scope, head).map_err(Why::TooLittle),
            Some(end) => Err(Why::Ended(end)),
        };
        let call = Call {
            watch: Watch::begin(&scope, observer, head),
            scope,
            margin: outbound.margin,
        };
        match applied {
            Ok(()) => Ok(call),
            Err(why) => Err(call.error(Step::Waiting, why)),
        }
    }

    /// Does a part of the exchange, unless the context ends first; work that has finished wins a tie.
    pub(crate) async fn run<T, E: Into<BoxError>>(
        &self,
        step: impl Fn() -> Step,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        // Pinned here, so that the step is asked for before the work is dropped and looks finished.
        let mut work = pin!(self.scope.run(work));
        let why = match work.as_mut().await {
            Ok(Ok(done)) => return Ok(done),
            // What the engine makes of an end that we told it of is the context's end.
            Ok(Err(error)) => self
                .scope
                .err()
                .map_or_else(|| Why::Failed(error.into()), Why::Ended),
            Err(end) => Why::Ended(end),
        };
        Err(self.error(step(), why))
    }

    /// The answer, whose body ends with the context. `place` is given back when the body is at its end or dropped.
    pub(crate) fn answer<R, P>(self, response: Response<R>, place: P) -> Response<ResponseBody<R>>
    where
        R: Body + Send + 'static,
        P: Send + Sync + 'static,
    {
        if let Some(watch) = &self.watch {
            watch.answered(response.status());
        }
        response.map(|body| ResponseBody::new(body, self.scope, self.margin, Box::new(place), self.watch))
    }

    /// The exchange, if anybody observes it.
    pub(super) fn observed(&self) -> Option<&Arc<Exchange>> {
        self.watch.as_ref().map(Watch::exchange)
    }

    /// The context of the exchange.
    pub(crate) fn context(&self) -> Context {
        self.scope.context()
    }

    fn error(&self, step: Step, why: Why) -> Error {
        let error = Error::new(step, why, self.margin);
        if let Some(watch) = &self.watch {
            watch.failed(&error);
        }
        error
    }
}
