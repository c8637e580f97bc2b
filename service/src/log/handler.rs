//! Who is told of an answer: the JSON line, the counters behind `/metrics`, and in tests a recorder.
//!
//! The shape is that of Go's `log/slog`: a handler is asked first, with the context, whether it wants the record at all.
//! The end of a context does not keep anything from being logged: it is often the very thing to log.

use std::sync::Arc;
use std::time::SystemTime;

use bequest::Context;
use http::StatusCode;

use super::Place;
use crate::answer::Code;

/// How bad an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// An answer that is about to be given.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: SystemTime,
    pub(crate) place: Place,
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// Is told of answers before their heads leave. It must neither block nor panic.
pub(crate) trait Handler: Send + Sync {
    /// Whether a record with this status would be of use. Asked first, so that nothing is made in vain.
    fn enabled(&self, ctx: &Context, status: StatusCode) -> bool;

    /// Takes the record. What the line says of request and session comes from `ctx`, whether or not that has ended.
    fn handle(&self, ctx: &Context, record: &Record);
}

/// Several handlers as one. Each is asked for itself, and none can change what the next is told.
pub(crate) struct Fanout(Vec<Arc<dyn Handler>>);

impl Fanout {
    pub(crate) fn new(handlers: impl IntoIterator<Item = Arc<dyn Handler>>) -> Fanout {
        Fanout(handlers.into_iter().collect())
    }
}

impl Handler for Fanout {
    fn enabled(&self, ctx: &Context, status: StatusCode) -> bool {
        self.0.iter().any(|handler| handler.enabled(ctx, status))
    }

    fn handle(&self, ctx: &Context, record: &Record) {
        for handler in &self.0 {
            if handler.enabled(ctx, record.status) {
                handler.handle(ctx, record);
            }
        }
    }
}

impl Level {
    pub(crate) fn of(status: StatusCode) -> Level {
        match status.as_u16() {
            500.. => Level::Error,
            400.. => Level::Warn,
            _ => Level::Info,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}
