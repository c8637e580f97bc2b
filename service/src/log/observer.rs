//! What the servers tell: the access line of each exchange that is over, and the counters behind `/metrics`.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bequest::Kind;
use bequest_http::server::{Dropped, Finished, Observer, PanicReport};
use http::Uri;
use serde_json::json;

use super::access::{self, Format};
use super::sink::Sink;
use super::{event, request};

/// How many requests ended how, over the public listener and the embedded back end.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) client_left: AtomicU64,
    pub(crate) deadline: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

pub(crate) static COUNTERS: Counters = Counters {
    answered: AtomicU64::new(0),
    client_left: AtomicU64::new(0),
    deadline: AtomicU64::new(0),
    panicked: AtomicU64::new(0),
    dropped: AtomicU64::new(0),
};

thread_local! {
    /// Room for one line. What a client may choose in it is limited, and so is what this keeps.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Listens to one server.
#[derive(Debug)]
pub(super) struct Listening {
    /// Which listener it is.
    pub(super) listener: &'static str,
    /// Where its access lines go, if it has any.
    pub(super) access: Option<(Arc<Sink>, Format)>,
}

impl Observer for Listening {
    fn request_finished(&self, finished: &Finished<'_>) {
        let counter = match finished.end.kind() {
            _ if finished.client_left() => &COUNTERS.client_left,
            Kind::DeadlineExceeded => &COUNTERS.deadline,
            _ => &COUNTERS.answered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let (Some((sink, format)), Some(request)) = (&self.access, request::of(finished.context)) {
            LINE.with_borrow_mut(|line| {
                line.clear();
                access::push_line(line, request, finished, *format);
                sink.write(line);
            });
        }
    }

    fn panicked(&self, panic: &PanicReport<'_>) {
        COUNTERS.panicked.fetch_add(1, Ordering::Relaxed);
        event(
            "a handler panicked",
            &json!({
                "listener": self.listener,
                "method": panic.method.as_str(),
                "target": target(panic.uri),
                "panic": panic.panic.to_string(),
            }),
        );
    }

    fn handler_dropped(&self, dropped: &Dropped<'_>) {
        COUNTERS.dropped.fetch_add(1, Ordering::Relaxed);
        event(
            "a handler was dropped before it had finished",
            &json!({
                "listener": self.listener,
                "method": dropped.method.as_str(),
                "target": target(dropped.uri),
                "why": dropped.why.to_string(),
            }),
        );
    }
}

/// What was asked for, alike on both protocols: HTTP/2 puts scheme and host before it.
fn target(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.to_string(), ToString::to_string)
}
