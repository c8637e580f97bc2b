//! Deadline headers: remaining time as text.
//!
//! Two formats. gRPC's is a number of at most 8 digits and a unit; the others are milliseconds of at most 10 digits.
//! Neither has room for an overflow. Zero is *no time*, never *no limit*.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header in which remaining milliseconds are written unless another name is chosen.
pub const DEADLINE_HEADER: HeaderName = HeaderName::from_static("bequest-timeout-ms");

const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");
const CONNECT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ENVOY: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// The most digits of gRPC's format, and of milliseconds.
const GRPC_DIGITS: usize = 8;
const MILLISECOND_DIGITS: usize = 10;

/// Which deadline headers are read.
///
/// ```
/// use bequest_http::wire::DeadlineHeaders;
/// use http::HeaderMap;
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("grpc-timeout", "2S".parse().unwrap());
/// headers.insert("bequest-timeout-ms", "150".parse().unwrap());
/// let reading = DeadlineHeaders::default().read(&headers);
/// assert_eq!(reading.budget, Some(Duration::from_millis(150)), "the smallest holds");
///
/// headers.append("bequest-timeout-ms", "90".parse().unwrap());
/// let reading = DeadlineHeaders::default().read(&headers);
/// assert_eq!(reading.budget, Some(Duration::from_secs(2)), "said twice is not said");
/// assert_eq!(reading.unreadable.unwrap(), "bequest-timeout-ms");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineHeaders {
    /// Whether gRPC's `grpc-timeout` is read.
    pub grpc: bool,
    /// Whether Connect's `connect-timeout-ms` is read.
    pub connect: bool,
    /// Whether Envoy's `x-envoy-expected-rq-timeout-ms` is read.
    pub envoy: bool,
    /// A header of milliseconds by another name; [`DEADLINE_HEADER`] by default.
    pub other: Option<HeaderName>,
}

/// What the deadline headers of a request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlineReading {
    /// The smallest budget that could be read; zero if a header says that nothing is left.
    pub budget: Option<Duration>,
    /// The header that says it.
    pub header: Option<HeaderName>,
    /// A header that is there and cannot be read: malformed, negative, too long, or there twice.
    pub unreadable: Option<HeaderName>,
}

impl DeadlineHeaders {
    /// No header is read.
    pub const fn none() -> DeadlineHeaders {
        DeadlineHeaders {
            grpc: false,
            connect: false,
            envoy: false,
            other: None,
        }
    }

    /// Reads them.
    pub fn read(&self, headers: &HeaderMap) -> DeadlineReading {
        let mut reading = DeadlineReading::default();
        // One walk over the names is less than four look-ups, and mostly there is nothing.
        if !headers.keys().any(|name| self.reads(name)) {
            return reading;
        }
        if self.grpc {
            reading.look(headers, &GRPC, parse_grpc_timeout);
        }
        if self.connect {
            reading.look(headers, &CONNECT, parse_milliseconds);
        }
        if self.envoy {
            reading.look(headers, &ENVOY, parse_milliseconds);
        }
        if let Some(other) = &self.other {
            reading.look(headers, other, parse_milliseconds);
        }
        reading
    }
}

impl DeadlineHeaders {
    fn reads(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        (self.grpc && text == GRPC.as_str())
            || (self.connect && text == CONNECT.as_str())
            || (self.envoy && text == ENVOY.as_str())
            || self.other.as_ref() == Some(name)
    }
}

impl Default for DeadlineHeaders {
    /// All four.
    fn default() -> DeadlineHeaders {
        DeadlineHeaders {
            grpc: true,
            connect: true,
            envoy: true,
            other: Some(DEADLINE_HEADER),
        }
    }
}

impl DeadlineReading {
    fn look(&mut self, headers: &HeaderMap, name: &HeaderName, parse: fn(&[u8]) -> Option<Duration>) {
        if !headers.contains_key(name) {
            return;
        }
        match read_once(headers, name, parse) {
            None => self.unreadable = Some(name.clone()),
            Some(budget) if self.budget.is_none_or(|smallest| budget < smallest) => {
                self.budget = Some(budget);
                self.header = Some(name.clone());
            }
            Some(_) => {}
        }
    }
}

/// What a header says that is there once and can be read: said twice is not said.
pub(super) fn read_once(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&[u8]) -> Option<Duration>,
) -> Option<Duration> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(only), None) => parse(only.as_bytes()),
        _ => None,
    }
}

/// The time of a `grpc-timeout`: 1 to 8 digits and one of `H M S m u n`.
///
/// ```
/// use bequest_http::wire::parse_grpc_timeout;
/// use std::time::Duration;
///
/// assert_eq!(parse_grpc_timeout(b"100m"), Some(Duration::from_millis(100)));
/// assert_eq!(parse_grpc_timeout(b"0n"), Some(Duration::ZERO));
/// for bad in ["", "m", "100", "1 S", "-1S", "1s", "123456789m", "1.5S", "+1S"] {
///     assert_eq!(parse_grpc_timeout(bad.as_bytes()), None, "{bad:?}");
/// }
/// ```
pub fn parse_grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = number(digits, GRPC_DIGITS)?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The time of a header of milliseconds: 1 to 10 digits.
///
/// ```
/// use bequest_http::wire::parse_milliseconds;
/// use std::time::Duration;
///
/// assert_eq!(parse_milliseconds(b"1500"), Some(Duration::from_millis(1500)));
/// for bad in ["", " 1", "-5", "+5", "1e3", "5ms", "12345678901", "99999999999999999999999"] {
///     assert_eq!(parse_milliseconds(bad.as_bytes()), None, "{bad:?}");
/// }
/// ```
pub fn parse_milliseconds(text: &[u8]) -> Option<Duration> {
    number(text, MILLISECOND_DIGITS).map(Duration::from_millis)
}

/// Remaining time as a `grpc-timeout`, in the finest unit that fits, rounded down. `None` if that is nothing.
///
/// ```
/// use bequest_http::wire::encode_grpc_timeout;
/// use std::time::Duration;
///
/// assert_eq!(encode_grpc_timeout(Duration::from_micros(1500)).unwrap(), "1500000n");
/// assert_eq!(encode_grpc_timeout(Duration::from_secs(100)).unwrap(), "100000m");
/// assert_eq!(encode_grpc_timeout(Duration::MAX).unwrap(), "99999999H");
/// assert_eq!(encode_grpc_timeout(Duration::ZERO), None);
/// ```
pub fn encode_grpc_timeout(left: Duration) -> Option<HeaderValue> {
    const TOO_MUCH: u128 = 100_000_000;
    let seconds = u128::from(left.as_secs());
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
        ((seconds / 3600).min(TOO_MUCH - 1), 'H'),
    ];
    let (number, unit) = units.into_iter().find(|(number, _)| *number < TOO_MUCH)?;
    let text = (number > 0).then(|| format!("{number}{unit}"))?;
    HeaderValue::try_from(text).ok()
}

/// Remaining time in milliseconds, rounded down. `None` if that is nothing.
///
/// ```
/// use bequest_http::wire::encode_milliseconds;
/// use std::time::Duration;
///
/// assert_eq!(encode_milliseconds(Duration::from_micros(1999)).unwrap(), "1");
/// assert_eq!(encode_milliseconds(Duration::from_micros(999)), None);
/// assert_eq!(encode_milliseconds(Duration::MAX).unwrap(), "9999999999");
/// ```
pub fn encode_milliseconds(left: Duration) -> Option<HeaderValue> {
    let most = 10_u128.pow(MILLISECOND_DIGITS as u32) - 1;
    let number = left.as_millis().min(most);
    let number = u64::try_from(number).ok().filter(|number| *number > 0)?;
    Some(HeaderValue::from(number))
}

/// A number of 1 to `most` digits, and nothing but digits. No `most` used here lets it overflow.
fn number(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}
