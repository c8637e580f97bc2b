//! The log: one JSON line for each request, on the standard error stream, and the counters behind `/metrics`.
//!
//! Everything that a client can choose is a JSON string by the time it is written, so one request is one line.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bequest::Kind;
use bequest_http::server::{Dropped, Finished, Observer, PanicReport};
use http::Uri;
use serde_json::{Value, json};

use crate::answer::millis;

/// Listens to a server and writes what it hears.
#[derive(Debug)]
pub(crate) struct Log {
    /// Which listener it is.
    listener: &'static str,
}

/// How many requests ended how, over all listeners.
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

impl Log {
    pub(crate) fn of(listener: &'static str) -> Log {
        Log { listener }
    }
}

impl Observer for Log {
    fn request_finished(&self, request: &Finished<'_>) {
        let counter = match request.end.kind() {
            _ if request.client_left() => &COUNTERS.client_left,
            Kind::DeadlineExceeded => &COUNTERS.deadline,
            _ => &COUNTERS.answered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        write_line(&json!({
            "time": timestamp(SystemTime::now()),
            "listener": self.listener,
            "method": request.method.as_str(),
            "target": target(request.uri),
            "status": request.logged_status().as_u16(),
            "bytes": request.bytes,
            "elapsed_ms": millis(request.elapsed),
            "budget_left_ms": request.context.remaining().map(millis),
            "end": request.end.reason().to_string(),
            "peer": request.conn.peer_addr().to_string(),
        }));
    }

    fn panicked(&self, panic: &PanicReport<'_>) {
        COUNTERS.panicked.fetch_add(1, Ordering::Relaxed);
        write_line(&json!({
            "time": timestamp(SystemTime::now()),
            "listener": self.listener,
            "level": "error",
            "method": panic.method.as_str(),
            "target": target(panic.uri),
            "message": panic.panic.to_string(),
        }));
    }

    fn handler_dropped(&self, dropped: &Dropped<'_>) {
        COUNTERS.dropped.fetch_add(1, Ordering::Relaxed);
        write_line(&json!({
            "time": timestamp(SystemTime::now()),
            "listener": self.listener,
            "level": "warn",
            "method": dropped.method.as_str(),
            "target": target(dropped.uri),
            "message": format!("a handler was dropped before it had finished: {}", dropped.why),
        }));
    }
}

/// A line for an event of the process.
pub(crate) fn event(message: &str, details: &Value) {
    write_line(&json!({ "time": timestamp(SystemTime::now()), "message": message, "details": details }));
}

fn write_line(line: &Value) {
    let line = format!("{line}\n");
    // There is nowhere left to report to if the standard error stream is gone, and no reason to stop serving.
    std::io::stderr().lock().write_all(line.as_bytes()).ok();
}

/// What was asked for, alike on both protocols: HTTP/2 puts scheme and host before it.
fn target(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.to_string(), ToString::to_string)
}

/// RFC 3339, UTC, milliseconds.
pub(crate) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970, by the calendar's cycle of 400 years, counted from March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn writes_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_501_322_910, "2017-07-29T10:08:30.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
