//! W3C Trace Context, level 2: which trace a request belongs to.
//!
//! The formats are kept to the letter. Whether to sample, and where spans go, is not decided here.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use bequest::{Context, Key};
use http::{HeaderMap, HeaderValue};

use super::trace_state::TraceState;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00, and of the part that every later version begins with.
const LENGTH: usize = 55;

/// The flags that have a meaning; others are not passed on.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

static TRACE: Key<Trace> = Key::new("trace");

/// The trace of a request: whose it is, and the span in which this process works for it.
///
/// ```
/// use bequest_http::wire::Trace;
/// use http::HeaderMap;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
/// headers.insert("tracestate", "congo=t61rcWkgMzE".parse().unwrap());
///
/// let here = Trace::read(&headers).expect("it is well-formed").child();
/// let mut onward = HeaderMap::new();
/// here.write(&mut onward);
/// let sent = onward["traceparent"].to_str().unwrap();
/// assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "the same trace");
/// assert!(!sent.contains("00f067aa0ba902b7"), "another span");
/// assert_eq!(onward["tracestate"], "congo=t61rcWkgMzE");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    parent: TraceParent,
    state: TraceState,
}

/// A `traceparent`: the trace, the span, and flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl Trace {
    /// A trace that begins here, not sampled. Its id is random, and says so.
    pub fn start() -> Trace {
        Trace {
            parent: TraceParent {
                trace_id: random_id(),
                span_id: random_id(),
                flags: RANDOM,
            },
            state: TraceState::default(),
        }
    }

    /// The trace that the headers of a request belong to, in the span of its caller. `None` without a well-formed
    /// `traceparent`, and if there are two; a `tracestate` is then not looked at. A malformed `tracestate` is as none.
    pub fn read(headers: &HeaderMap) -> Option<Trace> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        // Blanks around a value are not a part of it; HTTP/2 hands them on.
        let parent = TraceParent::parse(lines.next()?.as_bytes().trim_ascii())?;
        if lines.next().is_some() {
            return None;
        }
        let state = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
        Some(Trace {
            parent,
            state: TraceState::parse(state).unwrap_or_default(),
        })
    }

    /// The same trace, in a span of its own.
    #[must_use]
    pub fn child(&self) -> Trace {
        let mut child = self.clone();
        child.parent.span_id = random_id();
        child
    }

    /// As [`child`](Trace::child), with a decision of its own whether it is recorded.
    #[must_use]
    pub fn sampled_child(&self, is_sampled: bool) -> Trace {
        let mut child = self.child();
        child.parent.flags &= !SAMPLED;
        child.parent.flags |= if is_sampled { SAMPLED } else { 0 };
        child
    }

    /// The same with these notes, such as [`TraceState::with`] makes.
    #[must_use]
    pub fn with_state(self, state: TraceState) -> Trace {
        Trace { state, ..self }
    }

    /// Sets the two headers, in place of any that are there.
    pub fn write(&self, headers: &mut HeaderMap) {
        let parent = self.parent.to_string();
        let parent = HeaderValue::try_from(parent).expect("hexadecimal digits fit in a header");
        headers.insert(TRACEPARENT, parent);
        headers.remove(TRACESTATE);
        if !self.state.as_str().is_empty() {
            let state = HeaderValue::try_from(self.state.as_str()).expect("every byte was checked");
            headers.insert(TRACESTATE, state);
        }
    }

    /// The trace that `ctx` carries.
    pub fn of(ctx: &Context) -> Option<&Trace> {
        ctx.value(&TRACE)
    }

    /// `ctx` with this trace.
    #[must_use]
    pub fn carried_by(self, ctx: &Context) -> Context {
        ctx.with_value(&TRACE, self)
    }

    /// The ids and flags.
    pub fn parent(&self) -> TraceParent {
        self.parent
    }

    /// What tracing systems noted.
    pub fn state(&self) -> &TraceState {
        &self.state
    }
}

impl TraceParent {
    /// Reads one: lower-case hexadecimal, no id of zeros; of a version later than 00 the part that is known.
    ///
    /// ```
    /// use bequest_http::wire::TraceParent;
    ///
    /// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let parent = TraceParent::parse(text.as_bytes()).unwrap();
    /// assert!(parent.is_sampled());
    /// assert_eq!(parent.to_string(), text);
    /// assert!(TraceParent::parse(text.to_uppercase().as_bytes()).is_none());
    /// ```
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let known = text.get(..LENGTH)?;
        let [version] = hex(&known[..2])?;
        let ends_well = match version {
            0 => text.len() == LENGTH,
            0xff => false,
            _ => matches!(text.get(LENGTH), None | Some(b'-')),
        };
        if !ends_well || [2, 35, 52].iter().any(|dash| known[*dash] != b'-') {
            return None;
        }
        let [flags] = hex(&known[53..])?;
        let parent = TraceParent {
            trace_id: hex(&known[3..35])?,
            span_id: hex(&known[36..52])?,
            flags: flags & (SAMPLED | RANDOM),
        };
        (parent.trace_id != [0; 16] && parent.span_id != [0; 8]).then_some(parent)
    }

    /// The trace's id.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span's id.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the caller may have recorded this trace. It is advice, and a stranger's is worth little.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Whether whoever began this trace says that the last 7 bytes of its id are random.
    pub fn is_random(&self) -> bool {
        self.flags & RANDOM != 0
    }
}

/// Bytes from twice as many lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Random bytes that are not all zero, a multiple of 8 of them. They tell traces apart and protect nothing.
fn random_id<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    while id == [0; N] {
        for part in id.chunks_mut(8) {
            // The standard library keys its hashers from the system's randomness, each differently.
            let random = RandomState::new().build_hasher().finish().to_be_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }
    id
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
        );
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}
