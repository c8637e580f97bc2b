//! The one way out of the service.
//!
//! # Invariants
//!
//! 1. An answer other than 200 is told to the log before there is a response: what is returned has been logged.
//! 2. Each answer is told once: one that was told carries [`Told`], and is to be given ([`respond_at`] is `must_use`).
//! 3. What a handler says after the server has answered in its place is given to nobody, and told to nobody.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract;
use axum::middleware::Next;
use axum::response::Response;
use bequest::Context;
use bequest_http::server::{Refusal as Refused, StandIn, WhyStandIn};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::accept::wants_problem;
use super::{Code, HandlerStatus, Refusal};
use crate::log::request::{self, Request};
use crate::log::{Place, Record, here};

/// On a response that was told to the log.
#[derive(Clone, Copy, Debug)]
struct Told;

/// How much of a plain text of the router's is kept.
const LONGEST_TEXT: usize = 4096;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers the request of this context: the line is written, or queued, and only then is there a response.
///
/// `respond!(&ctx, HandlerStatus { status, code, result })` is [`respond_at`] with the place where it stands.
macro_rules! respond {
    ($ctx:expr, $answer:expr $(,)?) => {
        $crate::answer::respond_at($crate::log::here!(), $ctx, $answer)
    };
}

pub(crate) use respond;

/// Answers the request of `ctx` with the envelope, or with problem+json if its client asked for that.
///
/// Everything about the request, such as what it accepts and whose it is, comes from the context. `place` is where it
/// was decided.
#[must_use = "the log has been told that this is the answer"]
pub(crate) fn respond_at(place: Place, ctx: &Context, answer: HandlerStatus) -> Response {
    if !request::of(ctx).is_some_and(Request::is_stood_in) {
        tell(place, ctx, &answer);
    }
    in_bytes(ctx, &answer).map(Body::from)
}

/// What has been told, as it is sent.
fn in_bytes(ctx: &Context, answer: &HandlerStatus) -> Response<Bytes> {
    let request = request::of(ctx);
    let id = request.map(|request| request.id().to_string());
    let (kind, body) = match request {
        Some(request) if wants_problem(request.accept()) => (
            "application/problem+json",
            problem(answer, id.as_deref(), &request.trace_id()),
        ),
        _ => ("application/json; charset=utf-8", envelope(answer)),
    };
    let mut response = Response::new(Bytes::from(format!("{body}\n")));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert(&REQUEST_ID, id);
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response.extensions_mut().insert(Told);
    response
}

/// The layer around every route: whatever comes out leaves by [`let_out`].
pub(crate) async fn way_out(request: extract::Request, next: Next) -> Response {
    let ctx = context_of(&request);
    let response = next.run(request).await;
    let_out(&ctx, response).await
}

/// The context of a request that the server has handed to its service.
pub(crate) fn context_of<B>(request: &http::Request<B>) -> Context {
    let ctx = request.extensions().get::<Context>().cloned();
    ctx.unwrap_or_else(Context::background)
}

/// Whatever comes out of a handler leaves by [`respond_at`], or was 200.
///
/// It makes the answers of refusals, puts what the router itself refuses into the envelope, and tells of what a handler
/// answered by itself.
///
/// # Cancel safety
///
/// What a refusal says is logged before the first wait; the text of a router's own refusal is lost with the answer.
pub(crate) async fn let_out(ctx: &Context, mut response: Response) -> Response {
    if response.status() == StatusCode::OK {
        return response;
    }
    if let Some(Refusal { place, answer }) = response.extensions_mut().remove::<Refusal>() {
        return with_headers_of(response, respond_at(place, ctx, answer));
    }
    let status = response.status();
    if response.extensions().get::<Told>().is_some() {
        return response;
    }
    let code = Code::of_status(status);
    if status.is_client_error() && is_plain_text(&response) {
        let (head, body) = response.into_parts();
        let text = Limited::new(body, LONGEST_TEXT).collect().await;
        let text = text.map_or_else(
            |_| code.title().into(),
            |text| String::from_utf8_lossy(&text.to_bytes()).into_owned(),
        );
        let answer = HandlerStatus {
            status,
            ..HandlerStatus::new(code, text)
        };
        let bare = Response::from_parts(head, Body::empty());
        return with_headers_of(bare, respond_at(here!(), ctx, answer));
    }
    if !request::of(ctx).is_some_and(Request::is_stood_in) {
        let answer = HandlerStatus {
            status,
            code,
            result: Value::Null,
        };
        tell(here!(), ctx, &answer);
    }
    response
}

/// What the server answers in a handler's place, in the same words as everything else.
pub(crate) fn stand_in(missing: &StandIn<'_>) -> Response<Bytes> {
    let (place, answer) = match missing.why {
        WhyStandIn::Panicked(panic) => {
            // What it said is for the log alone: nobody outside needs to know how we break.
            let answer = HandlerStatus::new(Code::Panicked, panic.to_string());
            (panic.place().map_or_else(|| here!(), Place::of_panic), answer)
        }
        WhyStandIn::Ended(end) => (here!(), HandlerStatus::ended(missing.context, end)),
        WhyStandIn::Refused(refusal) => {
            let code = match refusal {
                Refused::Spent => Code::DeadlineExceeded,
                Refused::Unreadable => Code::BadTimeout,
                Refused::Malformed(_) | Refused::Coding => Code::BadRequest,
                _ => Code::TooLittleTime,
            };
            (here!(), HandlerStatus::new(code, refusal.to_string()))
        }
        _ => (
            here!(),
            HandlerStatus::new(Code::Internal, missing.why.to_string()),
        ),
    };
    let answer = HandlerStatus {
        status: missing.status,
        ..answer
    };
    if let Some(request) = request::of(missing.context) {
        request.stand_in();
    }
    tell(place, missing.context, &answer);
    in_bytes(missing.context, &answer)
}

/// Tells the log of an answer, if it is not 200.
fn tell(place: Place, ctx: &Context, answer: &HandlerStatus) {
    let Some(request) = request::of(ctx) else { return };
    let log = request.log();
    if answer.status == StatusCode::OK || !log.enabled(ctx, answer.status) {
        return;
    }
    let record = Record {
        at: SystemTime::now(),
        place,
        status: answer.status,
        code: answer.code,
        message: answer.message().to_owned(),
    };
    log.handle(ctx, &record);
}

fn envelope(answer: &HandlerStatus) -> Value {
    json!({ "Status": answer.status.as_u16(), "Code": answer.code.word(), "Result": answer.result })
}

/// RFC 9457. What the result says beside its message are extensions, and none of them replaces a member of ours.
fn problem(answer: &HandlerStatus, id: Option<&str>, trace: &str) -> Value {
    let mut problem = json!({
        "type": format!("urn:bequest:problem:{}", answer.code.word()),
        "title": answer.code.title(),
        "status": answer.status.as_u16(),
        "detail": answer.message(),
        "instance": id.map(|id| format!("urn:bequest:request:{id}")),
        "code": answer.code.word(),
        "request_id": id,
        "trace_id": trace,
    });
    if let (Value::Object(members), Value::Object(result)) = (&mut problem, &answer.result) {
        for (name, value) in result.iter().filter(|(name, _)| *name != "message") {
            members.entry(name.as_str()).or_insert_with(|| value.clone());
        }
    }
    problem
}

/// `answer` with what `bare` says in its head beside that: where to go, which methods there are.
fn with_headers_of(bare: Response, mut answer: Response) -> Response {
    for (name, value) in bare.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

fn is_plain_text(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind == "text/plain; charset=utf-8")
}
