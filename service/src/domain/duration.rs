//! Durations as Go writes them: `1s`, `300ms`, `1h15m`, `-1.5h`.
//!
//! The grammar and the limits are those of Go's `time.ParseDuration`: an optional sign, then one or more decimal numbers
//! each with a unit (`ns`, `us` or `µs`, `ms`, `s`, `m`, `h`), or a bare `0`; 64 bits of nanoseconds.

use std::fmt;
use std::time::Duration;

/// A signed span of time of 64 bits of nanoseconds, as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoDuration(i64);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotADuration {
    /// The text does not follow the grammar.
    Malformed(String),
    MissingUnit(String),
    UnknownUnit(String, String),
}

impl GoDuration {
    /// The span as time to wait; zero for all that is not positive.
    pub(crate) fn to_wait(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    pub(crate) fn from_std(span: Duration) -> GoDuration {
        GoDuration(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Reads `text`.
    pub(crate) fn parse(text: &str) -> Result<GoDuration, NotADuration> {
        let malformed = || NotADuration::Malformed(text.to_string());
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "0" {
            return Ok(GoDuration(0));
        }
        if unsigned.is_empty() {
            return Err(malformed());
        }
        let mut nanos: u128 = 0;
        let mut rest = unsigned;
        while !rest.is_empty() {
            let (part, after) = read_part(text, rest)?;
            nanos = nanos.checked_add(part).ok_or_else(malformed)?;
            rest = after;
        }
        let signed = i128::try_from(nanos).map_err(|_| malformed())?;
        let signed = if negative { -signed } else { signed };
        i64::try_from(signed).map(GoDuration).map_err(|_| malformed())
    }
}

/// Reads one number with its unit from the front of `rest`; `text` is the whole, for errors.
fn read_part<'t>(text: &str, rest: &'t str) -> Result<(u128, &'t str), NotADuration> {
    let malformed = || NotADuration::Malformed(text.to_string());
    let (whole, after) = split_digits(rest);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(malformed());
    }
    let end = after
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(after.len());
    let (unit, after) = after.split_at(end);
    let scale: u128 = match unit {
        "" => return Err(NotADuration::MissingUnit(text.to_string())),
        "ns" => 1,
        // Both micro signs: U+00B5 and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(NotADuration::UnknownUnit(unit.to_string(), text.to_string())),
    };
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().map_err(|_| malformed())?
    };
    Ok((u128::from(whole) * scale + fraction_of(fraction, scale), after))
}

/// The part of `scale` that decimal `digits` after the point stand for. As in Go, it is worked out in floating point, and
/// digits beyond what 63 bits hold are read and have no weight.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as Go does"
)]
fn fraction_of(digits: &str, scale: u128) -> u128 {
    const MOST: u64 = 1 << 63;
    let (mut numerator, mut denominator) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        let next = numerator
            .checked_mul(10)
            .and_then(|ten| ten.checked_add(u64::from(digit - b'0')));
        match next {
            Some(next) if next <= MOST => numerator = next,
            _ => break,
        }
        denominator *= 10.0;
    }
    (numerator as f64 * (scale as f64 / denominator)) as u128
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// As Go prints it: `1h15m0s`, `1.5s`, `300ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => decimal(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, nanos, 1_000_000, "ms"),
            _ => {
                let (minutes, seconds) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(f, "{minutes}m")?,
                    (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
                }
                decimal(f, seconds, 1_000_000_000, "s")
            }
        }
    }
}

fn decimal(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return write!(f, "{whole}{name}");
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
}

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotADuration::Malformed(text) => write!(f, "invalid duration {text:?}"),
            NotADuration::MissingUnit(text) => write!(f, "missing unit in duration {text:?}"),
            NotADuration::UnknownUnit(unit, text) => write!(f, "unknown unit {unit:?} in duration {text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("5s", 5_000_000_000),
            ("30s", 30_000_000_000),
            ("1478s", 1_478_000_000_000),
            ("-5s", -5_000_000_000),
            ("5.0s", 5_000_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("5.004s", 5_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("1h15m", 4_500_000_000_000),
            ("3h30m", 12_600_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.9223372036854775807h", 55 * 60_000_000_000 + 20_413_933_267),
            ("39h9m14.425s", 140_954_425_000_000),
        ] {
            assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "3000000h",
            "9223372036854775808ns",
            "1s x",
            "\u{661}s",
        ] {
            assert!(GoDuration::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            GoDuration::parse("3").unwrap_err().to_string(),
            r#"missing unit in duration "3""#
        );
        assert_eq!(
            GoDuration::parse("1d").unwrap_err().to_string(),
            r#"unknown unit "d" in duration "1d""#
        );
        assert_eq!(
            GoDuration::parse("soon").unwrap_err().to_string(),
            r#"invalid duration "soon""#
        );
    }

    #[test]
    fn prints_as_go_prints_and_reads_it_back() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (4_500_000_000_000, "1h15m0s"),
            (-1_000_000_000, "-1s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
            assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)));
        }
    }
}
