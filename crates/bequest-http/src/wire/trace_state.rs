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
    /// Empty members are left out. Of several with one key the first is the newest; they are passed on as they came.
    ///
    /// ```
    /// use bequest_http::wire::TraceState;
    ///
    /// let state = TraceState::parse([&b"a=1, b=2"[..], b"", b"t@v=3,a=0"]).unwrap();
    /// assert_eq!(state.as_str(), "a=1,b=2,t@v=3,a=0");
    /// assert_eq!(state.get("a"), Some("1"));
    /// assert!(TraceState::parse([&b"a=1,B=2"[..]]).is_none());
    /// ```
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<TraceState> {
        let mut state = TraceState::default();
        let (mut bytes, mut members) = (0, 0);
        for line in lines {
            bytes += line.len() + 1;
            if bytes > BYTES {
                return None;
            }
            let line = std::str::from_utf8(line).ok()?;
            state.0.reserve(line.len() + 1);
            for member in line.split(',').map(|member| member.trim_matches([' ', '\t'])) {
                if member.is_empty() {
                    continue;
                }
                members += 1;
                let (key, value) = member.split_once('=')?;
                if members > MEMBERS || !is_key(key) || !is_value(value) {
                    return None;
                }
                state.push(member);
            }
        }
        Some(state)
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
        let mut state = TraceState(format!("{key}={value}"));
        let is_other = |member: &&str| member.split_once('=').is_some_and(|(known, _)| known != key);
        for member in self.members().filter(is_other).take(MEMBERS - 1) {
            state.push(member);
        }
        Some(state)
    }

    /// What is noted under this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut members = self.members().filter_map(|member| member.split_once('='));
        members.find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// The list as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        self.0.split(',')
    }

    fn push(&mut self, member: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(member);
    }
}

/// Up to 256 of a few characters, the first a letter or a digit.
fn is_key(key: &str) -> bool {
    let is_first = |byte: u8| is_within(byte, b'a', b'z') | is_within(byte, b'0', b'9');
    let is_other = |byte| (byte == b'_') | (byte == b'-') | (byte == b'*') | (byte == b'/') | (byte == b'@');
    let begins_well = key.bytes().next().is_some_and(is_first);
    begins_well && key.len() <= PART && all(key, |byte| is_first(byte) | is_other(byte))
}

/// Printable, without `,` and `=`, not ending in a blank.
fn is_value(value: &str) -> bool {
    let fits = |byte| is_within(byte, b' ', b'~') & (byte != b',') & (byte != b'=');
    !value.is_empty() && value.len() <= PART && !value.ends_with(' ') && all(value, fits)
}

fn is_within(byte: u8, first: u8, last: u8) -> bool {
    byte.wrapping_sub(first) <= last - first
}

/// Whether all bytes are so. It does not stop at the first that is not, and its questions are not skipped either: strangers
/// choose how many bytes there are, and like this the processor asks many at a time.
fn all(text: &str, is_so: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is_so(byte))
}
