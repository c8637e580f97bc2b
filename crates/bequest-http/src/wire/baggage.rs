//! W3C Baggage: values by name that travel beside a request, as whoever sent them wrote them.
//!
//! It is hostile input. All lines of a request count as one list with one cap on its bytes and one on its members; what
//! is beyond either is not looked at. A member is kept whole, with its properties, or not at all.

use std::borrow::Cow;

use bequest::{Context, Key};
use http::HeaderValue;

/// The most bytes of baggage that are read or written, over all lines together.
pub const MAX_BYTES: usize = 8192;

/// The most members of baggage that are read or written, over all lines together.
pub const MAX_MEMBERS: usize = 64;

static BAGGAGE: Key<Baggage> = Key::new("baggage");

/// Members of a baggage header, in their order.
///
/// ```
/// use bequest_http::wire::Baggage;
///
/// let lines = [&b"tenant=7;ttl=1, city=S%C3%A3o"[..], b"secret=x"];
/// let reading = Baggage::read(lines, |key| key != "secret");
/// let members = reading.baggage.members();
/// assert_eq!((members[0].key(), members[0].raw()), ("tenant", "7;ttl=1"));
/// assert_eq!((members[1].key(), &*members[1].value()), ("city", "São"));
/// assert_eq!(reading.baggage.to_header().unwrap(), "tenant=7;ttl=1,city=S%C3%A3o");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// Together they fit into the caps.
    members: Vec<Member>,
    /// The length of the header they make.
    bytes: usize,
}

/// One member: a key, a value, and properties that have no set meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    key: String,
    /// The value as it is sent, and `;` and properties if there are any.
    raw: String,
}

/// What was read, and how much of the input was looked at for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaggageReading {
    /// The members that were wanted.
    pub baggage: Baggage,
    /// Bytes that were looked at: at most [`MAX_BYTES`].
    pub bytes_seen: usize,
    /// Members that were looked at: at most [`MAX_MEMBERS`].
    pub members_seen: usize,
    /// Whether there was more than was looked at.
    pub is_cut: bool,
}

impl Baggage {
    /// Reads the members whose key is wanted. Malformed members are left out.
    pub fn read<'a>(
        lines: impl IntoIterator<Item = &'a [u8]>,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> BaggageReading {
        Baggage::read_fitting(lines, |key, _length| wanted(key))
    }

    /// As `read`; what is wanted is asked for by the key and by the length of the value as it is sent.
    pub(super) fn read_fitting<'a>(
        lines: impl IntoIterator<Item = &'a [u8]>,
        mut wanted: impl FnMut(&str, usize) -> bool,
    ) -> BaggageReading {
        let mut reading = BaggageReading::default();
        for line in lines {
            if !reading.read_line(line, &mut wanted) {
                break;
            }
        }
        reading
    }

    /// The members that `ctx` carries untouched from its caller.
    pub fn of(ctx: &Context) -> Option<&Baggage> {
        ctx.value(&BAGGAGE)
    }

    /// `ctx` with these members.
    pub fn carried_by(self, ctx: &Context) -> Context {
        ctx.with_value(&BAGGAGE, self)
    }

    /// The members, in the order in which they came.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Adds a member. Answers whether it fits; if it does not, nothing is changed.
    pub fn push(&mut self, member: Member) -> bool {
        let comma = usize::from(!self.members.is_empty());
        let bytes = self.bytes + comma + member.key.len() + 1 + member.raw.len();
        let fits = bytes <= MAX_BYTES && self.members.len() < MAX_MEMBERS;
        if fits {
            self.bytes = bytes;
            self.members.push(member);
        }
        fits
    }

    /// The header they make. `None` without members.
    pub fn to_header(&self) -> Option<HeaderValue> {
        if self.members.is_empty() {
            return None;
        }
        let members: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.key, member.raw))
            .collect();
        Some(HeaderValue::try_from(members.join(",")).expect("every byte was checked"))
    }
}

impl Member {
    /// A member of a value of any text, which is percent-encoded. `None` if the key is no token.
    ///
    /// ```
    /// use bequest_http::wire::Member;
    ///
    /// assert_eq!(Member::new("user", "a,b %").unwrap().raw(), "a%2Cb%20%25");
    /// assert!(Member::new("no token", "x").is_none());
    /// ```
    pub fn new(key: &str, value: &str) -> Option<Member> {
        is_token(key.as_bytes()).then(|| Member {
            key: key.to_owned(),
            raw: encode(value),
        })
    }

    /// The key, whose case matters.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value with its percent-encoding undone; what is then no UTF-8 is replaced by U+FFFD.
    pub fn value(&self) -> Cow<'_, str> {
        let value = self.raw.split(';').next().unwrap_or_default();
        decode(value.trim_end_matches([' ', '\t']))
    }

    /// The value and the properties as they are sent.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    fn parse(text: &[u8], wanted: &mut impl FnMut(&str, usize) -> bool) -> Option<Member> {
        let equals = text.iter().position(|byte| *byte == b'=')?;
        let key = trim(&text[..equals]);
        let raw = trim(&text[equals + 1..]);
        // Asked for before the rest is looked at: what nobody wants costs no more than its key, or finding its end.
        let end = raw.iter().position(|byte| *byte == b';').unwrap_or(raw.len());
        let length = trim(&raw[..end]).len();
        let key = std::str::from_utf8(key)
            .ok()
            .filter(|key| is_token(key.as_bytes()) && wanted(key, length))?;
        let mut parts = raw.split(|byte| *byte == b';');
        let is_well_formed = is_value(trim(parts.next()?)) && parts.all(is_property);
        let raw = std::str::from_utf8(raw).ok().filter(|_| is_well_formed)?;
        Some(Member {
            key: key.to_owned(),
            raw: raw.to_owned(),
        })
    }
}

impl BaggageReading {
    /// Reads one line as far as the caps go. Answers whether there is room for another.
    fn read_line(&mut self, line: &[u8], wanted: &mut impl FnMut(&str, usize) -> bool) -> bool {
        // The comma that would join it to the line before counts as well.
        let joint = usize::from(self.bytes_seen > 0);
        let room = MAX_BYTES - self.bytes_seen;
        if room <= joint {
            self.is_cut = true;
            return false;
        }
        let seen = &line[..line.len().min(room - joint)];
        self.bytes_seen += joint + seen.len();
        let is_short = seen.len() < line.len();
        self.is_cut |= is_short;
        let mut members = seen.split(|byte| *byte == b',').peekable();
        while let Some(text) = members.next() {
            // Whether the last one of a shortened line is whole is not known.
            if is_short && members.peek().is_none() {
                return false;
            }
            if trim(text).is_empty() {
                continue;
            }
            if self.members_seen == MAX_MEMBERS {
                self.is_cut = true;
                return false;
            }
            self.members_seen += 1;
            if let Some(member) = Member::parse(text, wanted) {
                self.baggage.push(member);
            }
        }
        true
    }
}

fn is_property(text: &[u8]) -> bool {
    match text.iter().position(|byte| *byte == b'=') {
        None => is_token(trim(text)),
        Some(equals) => is_token(trim(&text[..equals])) && is_value(trim(&text[equals + 1..])),
    }
}

/// Which bytes a token may have (RFC 9110 §5.6.2), and which a value: a look-up for each, as strangers choose how many.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", b"");
const VALUE: [bool; 256] = table(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", b"\",;\\");

/// Letters, digits and `others`, without `not`.
const fn table(others: &[u8], not: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    at = 0;
    while at < not.len() {
        table[not[at] as usize] = false;
        at += 1;
    }
    table
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| is_value_byte(*byte))
}

/// Printable, and none of blank, `"`, `,`, `;`, `\`.
fn is_value_byte(byte: u8) -> bool {
    VALUE[usize::from(byte)]
}

fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    &text[start..end]
}

fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if is_value_byte(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes percent-encoding, in one pass. A `%` without two digits stands for itself.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let text = text.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let decoded = match (byte, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    // Checked once; only what is no UTF-8 is copied.
    Cow::Owned(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
