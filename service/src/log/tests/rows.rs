//! Rows L1 to L3: what Go's `log/slog` does with a context.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bequest::Context;
use http::StatusCode;

use super::{Recording, context};
use crate::answer::{Code, HandlerStatus, respond};
use crate::domain::session::{Gender, Session, SessionHash, User};
use crate::log::handler::{Fanout, Handler, Record};
use crate::log::identify;

/// Wants what its context says it wants, and refuses to be told of anything else.
struct Picky {
    wanted: StatusCode,
    told: Arc<Recording>,
}

impl Handler for Picky {
    fn enabled(&self, ctx: &Context, status: StatusCode) -> bool {
        assert!(
            crate::log::request::of(ctx).is_some(),
            "asked with the request's own context"
        );
        status == self.wanted
    }

    fn handle(&self, ctx: &Context, record: &Record) {
        assert_eq!(record.status, self.wanted, "told without being asked first");
        self.told.handle(ctx, record);
    }
}

fn ann() -> Arc<Session> {
    Arc::new(Session {
        id: SessionHash([0x0a; 32]),
        user: User {
            id: "ann".into(),
            gender: Gender::Female,
            age: Some(41),
        },
        login_time: SystemTime::UNIX_EPOCH,
    })
}

/// A log that wants 404 alone, and what it was told.
fn picky() -> (Arc<dyn Handler>, Arc<Recording>) {
    let told = Arc::new(Recording::default());
    let picky = Picky {
        wanted: StatusCode::NOT_FOUND,
        told: Arc::clone(&told),
    };
    (Arc::new(picky), told)
}

/// `Enabled` comes first, with the context, and decides.
#[test]
fn l1_context_goes_to_enabled_first() {
    let (log, told) = picky();
    let ctx = context(&Context::background(), &log);
    drop(respond!(&ctx, HandlerStatus::new(Code::Internal, "not wanted")));
    drop(respond!(&ctx, HandlerStatus::new(Code::NoJob, "wanted")));
    assert_eq!(told.lines(), ["404 wanted None"]);
}

/// The end of a context keeps nothing from being logged.
#[test]
fn l1_cancellation_does_not_affect_logging() {
    let log = Arc::new(Recording::default());
    let handler: Arc<dyn Handler> = log.clone();
    let scope = Context::background().with_cancel();
    let ctx = context(&scope, &handler);
    scope.cancel();
    assert!(ctx.is_done());
    drop(respond!(&ctx, HandlerStatus::new(Code::Canceled, "it is over")));
    assert_eq!(log.lines(), ["500 it is over None"]);
}

/// Go puts the background in the place of a nil context. DIFFERENCE: there is no nil here; a context of no request is
/// the nearest thing, and answering on it logs nothing and panics nowhere.
#[test]
fn l1_a_context_of_no_request_is_answered() {
    let response = respond!(
        &Context::background(),
        HandlerStatus::new(Code::NoJob, "no job 7")
    );
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

/// DIFFERENCE: Go's handlers read nothing from the context, and everybody writes the same wrapper. Ours reads the
/// request and its session, for one and the same line, wherever the context has travelled.
#[test]
fn l2_the_line_says_what_the_context_carries() {
    let log = Arc::new(Recording::default());
    let handler: Arc<dyn Handler> = log.clone();
    let request = context(&Context::background(), &handler);
    assert!(identify(&request, ann()));
    assert!(!identify(&request, ann()), "once");
    assert!(!identify(&Context::background(), ann()), "there is no request");
    let job = request.without_cancel().with_cancel();
    drop(respond!(&job, HandlerStatus::new(Code::NoJob, "gone")));
    assert_eq!(log.lines(), [r#"404 gone Some("ann")"#]);
}

/// Each of several handlers is asked for itself. DIFFERENCE: Go clones the record for each; here it is lent, and cannot
/// be changed.
#[test]
fn l3_a_fanout_asks_each_with_the_context() {
    let (first, wanted) = picky();
    let all = Arc::new(Recording::default());
    let fanout = Fanout::new([first, all.clone() as Arc<dyn Handler>]);
    let ctx = context(&Context::background(), &(all.clone() as Arc<dyn Handler>));
    for (status, code) in [
        (StatusCode::NOT_FOUND, Code::NotFound),
        (StatusCode::CONFLICT, Code::JobOver),
    ] {
        assert!(fanout.enabled(&ctx, status), "one of them wants it");
        let record = Record {
            at: UNIX_EPOCH,
            place: crate::log::here!(),
            status,
            code,
            message: code.word().into(),
        };
        fanout.handle(&ctx, &record);
    }
    assert_eq!(wanted.lines(), ["404 not_found None"]);
    assert_eq!(all.lines(), ["404 not_found None", "409 job_over None"]);
    assert!(!Fanout::new([]).enabled(&ctx, StatusCode::OK), "nobody wants it");
}
