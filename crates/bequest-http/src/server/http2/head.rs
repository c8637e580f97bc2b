//! Heads of HTTP/2: what an answer must say, and what it must not.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header};
use http_body::SizeHint;

/// What is said of one connection has no place in HTTP/2 (RFC 9113, 8.2.2), and neither has what `connection` names.
const OF_CONNECTION: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
];

/// The time of day, as `date` says it, and until when.
struct Today {
    said: HeaderValue,
    until: SystemTime,
}

thread_local! {
    static TODAY: RefCell<Option<Today>> = const { RefCell::new(None) };
}

/// How many bytes a request announces, if it is clear about that.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?;
    lengths
        .all(|other| other == length)
        .then(|| length.to_str().ok()?.parse().ok())
        .flatten()
}

/// Takes out of the head of an answer what has no place in it, and says when it was given if it does not.
pub(super) fn make_fit(headers: &mut HeaderMap) {
    if headers.keys().any(|name| OF_CONNECTION.contains(&name.as_str())) {
        take_out(headers);
    }
    headers.entry(header::DATE).or_insert_with(date);
}

/// Says how long a body is that knows it, if the head does not.
pub(super) fn say_length(headers: &mut HeaderMap, size: &SizeHint) {
    if let Some(length) = size.exact() {
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
}

/// Looks at the clock. Whoever polls streams does so before, once for all of them.
pub(super) fn look_at_clock() {
    look_at(SystemTime::now());
}

fn look_at(now: SystemTime) {
    TODAY.with_borrow_mut(|today| {
        // A clock that was set back is before all that was said.
        let is_over = |today: &Today| now >= today.until || today.until > now + Duration::from_secs(1);
        if today.as_ref().is_none_or(is_over) {
            *today = Some(Today::new(now));
        }
    });
}

fn take_out(headers: &mut HeaderMap) {
    let lists = headers.get_all(header::CONNECTION).iter();
    let named: Vec<String> = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(',').map(|name| name.trim().to_owned()))
        .collect();
    let names = named.iter().map(String::as_str).chain(OF_CONNECTION);
    names.for_each(|name| drop(headers.remove(name)));
}

/// The time in the form of RFC 9110, 5.6.7, as of the last look at the clock.
fn date() -> HeaderValue {
    TODAY.with_borrow_mut(|today| {
        let today = today.get_or_insert_with(|| Today::new(SystemTime::now()));
        today.said.clone()
    })
}

impl Today {
    fn new(now: SystemTime) -> Today {
        // No date of HTTP is before that, and a clock that says so is wrong.
        let now = now.max(UNIX_EPOCH);
        let of_second = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        Today {
            said: HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("a date is ASCII"),
            until: now + Duration::from_secs(1) - Duration::from_nanos(of_second.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_date_is_made_once_a_second_and_anew_when_the_clock_is_set_back() {
        let at = |millis: u64| {
            look_at(UNIX_EPOCH + Duration::from_millis(millis));
            date()
        };
        assert_eq!(at(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(at(784_111_778_999), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(at(784_111_770_000), "Sun, 06 Nov 1994 08:49:30 GMT");
        look_at(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(date(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn what_is_of_the_connection_is_taken_out_and_what_it_names() {
        let mut headers = map(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("x-end", "2"),
            ("date", "today"),
        ]);
        make_fit(&mut headers);
        assert_eq!(headers, map(&[("x-end", "2"), ("date", "today")]));
    }

    #[test]
    fn a_length_is_clear_if_it_is_said_once_or_the_same() {
        assert_eq!(content_length(&map(&[])), None);
        assert_eq!(content_length(&map(&[("content-length", "7")])), Some(7));
        let twice = map(&[("content-length", "7"), ("content-length", "7")]);
        assert_eq!(content_length(&twice), Some(7));
        let two = map(&[("content-length", "7"), ("content-length", "8")]);
        assert_eq!(content_length(&two), None);
        assert_eq!(content_length(&map(&[("content-length", "seven")])), None);
    }
}
