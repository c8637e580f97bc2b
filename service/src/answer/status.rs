//! What a handler decided, and its way out of nested functions.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bequest::{Canceled, Context, Kind, Reason};
use bequest_http::server::client_closed_request;
use http::StatusCode;
use serde_json::{Map, Value};

use super::Code;
use super::go;
use crate::domain::budget::TooLittleTime;
use crate::log::Place;

/// What a handler answers: a status, a word for programs, and what there is to say.
///
/// `{"Status":404,"Code":"no_job","Result":{"message":"there is no job of that number"}}`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HandlerStatus {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    pub(crate) result: Value,
}

/// A status on its way out by `?`, with the place where it was decided. [`super::way_out`] turns it into the answer.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(super) place: Place,
    pub(super) answer: HandlerStatus,
}

impl HandlerStatus {
    /// The usual status of this code, with a message.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> HandlerStatus {
        let mut result = Map::new();
        result.insert("message".into(), message.into().into());
        HandlerStatus {
            status: code.status(),
            code,
            result: result.into(),
        }
    }

    /// The same with one more field in its result.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> HandlerStatus {
        if let Value::Object(fields) = &mut self.result {
            fields.insert(name.into(), value.into());
        }
        self
    }

    /// The answer to work that ended with its context; `request` tells whether the request's own has ended too.
    ///
    /// A deadline is a 504 that says whose it was. A client that has left gets nothing, so what is made here is never
    /// sent. A part that was cancelled while the request lives is our own fault: 500.
    pub(crate) fn ended(request: &Context, end: &Canceled) -> HandlerStatus {
        let code = match (end.kind(), end.reason()) {
            (Kind::DeadlineExceeded, _) => Code::DeadlineExceeded,
            (_, Reason::Shutdown) => Code::ShuttingDown,
            _ if request.is_done() => Code::ClientGone,
            _ => Code::Canceled,
        };
        let mut answer = HandlerStatus::new(code, end.to_string()).with("reason", end.reason().to_string());
        if code == Code::ClientGone {
            answer.status = client_closed_request();
        }
        if let Some(cause) = end.cause() {
            answer = answer.with("cause", cause.to_string());
        }
        let set_by = end.scope().0.map_or_else(
            || format!("{}:{}", end.origin().file(), end.origin().line()),
            str::to_string,
        );
        answer.with("set_by", set_by)
    }

    /// The sentence for people: the message, or what the code means.
    pub(crate) fn message(&self) -> &str {
        let message = match &self.result {
            Value::Object(fields) => fields.get("message").and_then(Value::as_str),
            other => other.as_str(),
        };
        message.unwrap_or_else(|| self.code.title())
    }
}

impl Refusal {
    /// Decided here, `place` being [`here!`](crate::log::here).
    pub(crate) fn new(place: Place, code: Code, message: impl Into<String>) -> Refusal {
        HandlerStatus::new(code, message).at(place)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Refusal {
        self.answer = self.answer.with(name, value);
        self
    }

    /// The same with a status that is not the usual one of its code.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Refusal {
        self.answer.status = status;
        self
    }

    /// [`HandlerStatus::ended`], decided here.
    pub(crate) fn ended(place: Place, request: &Context, end: &Canceled) -> Refusal {
        HandlerStatus::ended(request, end).at(place)
    }

    pub(crate) fn too_little_time(place: Place, little: TooLittleTime) -> Refusal {
        let spans = |span: Duration| go(span);
        Refusal::new(place, Code::TooLittleTime, little.to_string())
            .with("left", spans(little.left))
            .with("least", spans(little.least))
    }
}

impl HandlerStatus {
    /// On its way out from this place.
    pub(crate) fn at(self, place: Place) -> Refusal {
        Refusal { place, answer: self }
    }
}

impl IntoResponse for Refusal {
    /// A bare response that carries the refusal to the way out. It has no body before that.
    fn into_response(self) -> Response {
        let mut response = self.answer.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_504_that_says_whose() {
        let request = Context::background().with_cancel();
        let limit = request.with_timeout(Duration::ZERO).named("timeout=1us");
        let answer = HandlerStatus::ended(&request, &limit.err().unwrap());
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(answer.result["set_by"], "timeout=1us");
    }

    #[test]
    fn a_cancelled_part_of_a_live_request_is_our_fault() {
        let request = Context::background().with_cancel();
        let part = request.with_cancel();
        part.cancel();
        assert_eq!(
            HandlerStatus::ended(&request, &part.err().unwrap()).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        request.cancel_for(Reason::ClientGone);
        assert_eq!(
            HandlerStatus::ended(&request, &request.err().unwrap())
                .status
                .as_u16(),
            499
        );
    }

    #[test]
    fn without_a_message_the_code_speaks() {
        let bare = HandlerStatus {
            status: StatusCode::OK,
            code: Code::Ok,
            result: Value::Null,
        };
        assert_eq!(bare.message(), Code::Ok.title());
        assert_eq!(HandlerStatus::new(Code::NoJob, "no job 7").message(), "no job 7");
    }
}
