//! `tracestate`: what tracing systems note for themselves beside a trace.
//!
//! It is hostile input: a list that is too long or malformed anywhere is no list. What is well-formed passes untouched, in
//! its order.

/// The most members of a list, and the most bytes that so many can have.
const MEMBERS: usize = 32;
const BYTES: usize = MEMBERS * (PART + 1 + PART + 1);

/// The longest key, and the longest value.
const PART: usize = 256;

/// A `tracestate`: what tracing systems note for themselves, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceState(String);

impl TraceState {
    /// Reads the lines of one request as one list, of at most 32 members. `None` if any of it is malformed.
    ///
    /// Empty members are left out, as are all but the first, and so the newest, of several with one key.
    ///
    /// ```
    /// use bequest_http::wire::TraceState;
    ///
    /// let state = TraceState::parse([&b"a=1, b=2"[..], b"", b"t@v=3,a=0"]).unwrap();
    /// assert_eq!(state.as_str(), "a=1,b=2,t@v=3");
    /// assert!(TraceState::parse([&b"a=1,B=2"[..]]).is_none());
    /// ```
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<TraceState> {
        let mut members: Vec<(&str, &str)> = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        for line in lines {
            bytes += line.len() + 1;
            if bytes > BYTES {
                return None;
            }
            let line = std::str::from_utf8(line).ok()?;
            for member in line.split(',').map(|member| member.trim_matches([' ', '\t'])) {
                if member.is_empty() {
                    continue;
                }
                count += 1;
                let (key, value) = member.split_once('=')?;
                if count > MEMBERS || !is_key(key) || !is_value(value) {
                    return None;
                }
                if members.iter().all(|(known, _)| *known != key) {
                    members.push((key, value));
                }
            }
        }
        Some(TraceState::join(&members))
    }

    /// The list with this member in front, in place of one of its key: what a tracing system does that takes part in the
    /// trace. Of 33 members the last one goes. `None` if the key or the value is malformed.
    ///
    /// ```
    /// use bequest_http::wire::{Trace, TraceState};
    ///
    /// let received = TraceState::parse([&b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"[..]]).unwrap();
    /// let state = received.with("rojo", "b9c7c989f97918e1").unwrap();
    /// assert_eq!(state.as_str(), "rojo=b9c7c989f97918e1,congo=t61rcWkgMzE");
    /// assert!(received.with("Rojo", "1").is_none());
    ///
    /// let trace = Trace::start().with_state(state);
    /// assert_eq!(trace.state().get("congo"), Some("t61rcWkgMzE"));
    /// ```
    pub fn with(&self, key: &str, value: &str) -> Option<TraceState> {
        if !is_key(key) || !is_value(value) {
            return None;
        }
        let others = self.members().filter(|(known, _)| *known != key);
        let members: Vec<(&str, &str)> = [(key, value)].into_iter().chain(others).take(MEMBERS).collect();
        Some(TraceState::join(&members))
    }

    /// What is noted under this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.members()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// The list as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(',').filter_map(|member| member.split_once('='))
    }

    fn join(members: &[(&str, &str)]) -> TraceState {
        let members: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        TraceState(members.join(","))
    }
}

/// Up to 256 of a few characters, the first a letter or a digit.
fn is_key(key: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins_well = key.bytes().next().is_some_and(is_first);
    begins_well && key.len() <= PART && key.bytes().all(|byte| is_first(byte) || b"_-*/@".contains(&byte))
}

/// Printable, without `,` and `=`, not ending in a blank.
fn is_value(value: &str) -> bool {
    let fits = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= PART && value.bytes().all(fits) && !value.ends_with(' ')
}
