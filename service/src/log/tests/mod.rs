//! The logs as a whole: rows L of Go's behaviours, the order of line and head, and whatever a client may send.

mod order;
mod random;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};

use bequest::Context;
use http::{Request, StatusCode};

use super::handler::{Handler, Record};
use super::request;

/// A log that keeps what it is told.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<String>>);

impl Recording {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Handler for Recording {
    fn enabled(&self, _ctx: &Context, _status: StatusCode) -> bool {
        true
    }

    fn handle(&self, ctx: &Context, record: &Record) {
        let session =
            request::of(ctx).and_then(|request| request.session().map(|session| session.user.id.clone()));
        let line = format!("{} {} {session:?}", record.status.as_u16(), record.message);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The context of a request for `/`, whose lines go to `log`.
fn context(parent: &Context, log: &Arc<dyn Handler>) -> Context {
    let (head, ()) = Request::get("/").body(()).unwrap().into_parts();
    request::remember(parent, &head, ([192, 0, 2, 1], 4711).into(), log)
}
