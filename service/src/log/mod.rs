//! The logs: a combined access log, a JSON line for each answer other than 200, and lines for events of the process.
//!
//! ```text
//! head of a request ─► Request, in its context ─► handler ─► respond ─► error line, counters ─► head of the answer
//!                             │                                                                        │
//!                             └──────────────────── access line ◄─────────── the exchange is over ◄────┘
//! ```
//!
//! What lives here: formats, escaping, the queues and threads that write. What does not: which answer is given, and
//! its words; that is [`crate::answer`].
//!
//! # Invariants
//!
//! 1. The line of an answer is queued before the answer has a head.
//! 2. One request is one access line, and at most one error line, whatever its client sent.
//! 3. A log that is slow, full or broken delays no request; what it loses is counted and told.
//! 4. A context's end keeps no line from being written.

mod access;
mod errors;
mod escape;
mod handler;
mod observer;
mod place;
mod reopen;
pub(crate) mod request;
mod settings;
mod sink;
#[cfg(test)]
mod tests;
mod time;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use bequest::{Canceled, Context};
use bequest_http::server::Builder;
use serde_json::{Value, json};

pub(crate) use handler::{Fanout, Handler, Record};
pub(crate) use observer::COUNTERS;
pub(crate) use place::{Place, here};
pub(crate) use reopen::reopen_on_hangup;
pub(crate) use request::identify;
pub(crate) use settings::LogSettings;
pub(crate) use time::timestamp;

use crate::answer;

/// The logs of the service.
pub(crate) struct Logs {
    access: Arc<sink::Sink>,
    errors: Arc<sink::Sink>,
    format: access::Format,
    /// The error log and the counters.
    handler: Arc<dyn Handler>,
}

impl Logs {
    /// Opens the logs.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened; the error names it.
    pub(crate) fn open(settings: &LogSettings) -> io::Result<Logs> {
        let access = Arc::new(sink::Sink::start("access", settings.open_access())?);
        let errors = Arc::new(sink::Sink::start("error", settings.open_errors())?);
        let lines = errors::ErrorLog {
            sink: Arc::clone(&errors),
            which: settings.error_lines,
            personal: settings.log_personal,
        };
        let handlers: [Arc<dyn Handler>; 2] = [Arc::new(lines), Arc::new(answer::Counting)];
        Ok(Logs {
            access,
            errors,
            format: settings.access_format,
            handler: Arc::new(Fanout::new(handlers)),
        })
    }

    /// The settings of a server whose requests are logged, as those of this listener.
    pub(crate) fn public(&self, builder: Builder) -> Builder {
        let access = Some((Arc::clone(&self.access), self.format));
        self.answers(builder).observer(observer::Listening {
            listener: "public",
            access,
        })
    }

    /// The same for a part of this service that has a listener for itself: its answers are not the public's.
    pub(crate) fn internal(&self, builder: Builder, listener: &'static str) -> Builder {
        self.answers(builder).observer(observer::Listening {
            listener,
            access: None,
        })
    }

    /// Lets the contexts of a server's requests carry what the logs need, and its own answers take the one way out.
    pub(crate) fn answers(&self, builder: Builder) -> Builder {
        answering(builder, &self.handler)
    }

    /// Opens the files anew, after they have been moved away.
    pub(crate) fn reopen(&self) {
        self.access.reopen();
        self.errors.reopen();
    }

    /// Writes what is still waiting, and takes no more lines.
    ///
    /// # Errors
    ///
    /// The end of `ctx`, with lines still waiting.
    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Canceled> {
        let (access, errors) = tokio::join!(self.access.close(ctx), self.errors.close(ctx));
        errors.and(access)
    }

    /// What has become of the lines of each log.
    pub(crate) fn counts(&self) -> [(&'static str, sink::Counts); 2] {
        [&self.access, &self.errors].map(|sink| (sink.name(), sink.counts()))
    }
}

/// As [`Logs::answers`], with any handler.
fn answering(builder: Builder, handler: &Arc<dyn Handler>) -> Builder {
    let handler = Arc::clone(handler);
    builder
        .request_context(move |ctx, head, conn| request::remember(&ctx, head, conn.peer_addr(), &handler))
        .stand_in(answer::stand_in)
}

/// A line for an event of the process.
pub(crate) fn event(message: &str, details: &Value) {
    let mut line = String::new();
    let value = json!({ "time": timestamp(SystemTime::now()), "message": message, "details": details });
    escape::push_json(&mut line, &value);
    line.push('\n');
    // There is nowhere left to report to if the standard error stream is gone, and no reason to stop serving.
    std::io::stderr().lock().write_all(line.as_bytes()).ok();
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs")
            .field("access", &self.access)
            .field("errors", &self.errors)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}
