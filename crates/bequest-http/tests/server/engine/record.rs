//! What a client has seen, in a form that can be compared and written down.

use std::collections::BTreeMap;
use std::fmt;

use h2::Reason;

/// All that a client was sent but what the protocol makes of time: how data was cut, and when windows were opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// What was sent on each stream; on 0, what is of the connection.
    streams: BTreeMap<u32, Vec<Event>>,
    /// The server's settings, in its order.
    pub(super) settings: Vec<(u16, u32)>,
    /// How many of the client's it has taken note of.
    pub(super) acknowledged: usize,
    /// What its handlers have said.
    pub(super) told: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The head of an answer, or trailers, which have no status.
    Fields {
        status: Option<u16>,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Data {
        bytes: Vec<u8>,
        end: bool,
    },
    Reset(Reason),
    GoAway {
        last: u32,
        reason: Reason,
        debug: String,
    },
    Closed,
}

impl Record {
    /// Takes note of this. Data that follows data is one with it, unless it is empty: that is said on purpose.
    pub(super) fn push(&mut self, stream: u32, event: Event) {
        let events = self.streams.entry(stream).or_default();
        if let (Event::Data { bytes: more, end }, Some(Event::Data { bytes, end: had_end })) =
            (&event, events.last_mut())
        {
            if !more.is_empty() && !bytes.is_empty() && !*had_end {
                bytes.extend_from_slice(more);
                *had_end = *end;
                return;
            }
        }
        events.push(event);
    }

    /// Leaves out what was seen of a stream.
    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Whether an answer has begun on this stream.
    pub(super) fn is_answered(&self, stream: u32) -> bool {
        let is_head = |event: &Event| {
            matches!(
                event,
                Event::Fields {
                    status: Some(200..),
                    ..
                }
            )
        };
        self.events(stream).any(is_head)
    }

    /// Whether the server has ended or reset this stream.
    pub(super) fn is_over(&self, stream: u32) -> bool {
        self.events(stream).any(|event| match event {
            Event::Fields { end, .. } | Event::Data { end, .. } => *end,
            Event::Reset(_) => true,
            Event::GoAway { .. } | Event::Closed => false,
        })
    }

    pub(super) fn is_reset(&self, stream: u32) -> bool {
        self.events(stream).any(|event| matches!(event, Event::Reset(_)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.events(0).any(|event| *event == Event::Closed)
    }

    /// How often the server has said goodbye.
    pub(super) fn goodbyes(&self) -> usize {
        let is_goodbye = |event: &&Event| matches!(event, Event::GoAway { .. });
        self.events(0).filter(is_goodbye).count()
    }

    /// How many bytes of data have come on this stream.
    pub(super) fn data(&self, stream: u32) -> usize {
        let bytes = |event: &Event| match event {
            Event::Data { bytes, .. } => bytes.len(),
            _ => 0,
        };
        self.events(stream).map(bytes).sum()
    }

    fn events(&self, stream: u32) -> impl Iterator<Item = &Event> {
        self.streams.get(&stream).into_iter().flatten()
    }

    /// A line for each stream, the connection and the handlers, if there is anything to tell of it.
    pub(super) fn lines(&self) -> Vec<String> {
        let said = |events: &[Event]| {
            let words: Vec<String> = events.iter().map(Event::to_string).collect();
            words.join(", ")
        };
        let of_streams = self
            .streams
            .iter()
            .map(|(stream, events)| format!("{stream}: {}", said(events)));
        let of_handlers = self.told.iter().map(|told| format!("told: {told}"));
        of_streams.chain(of_handlers).collect()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#?}", self.lines())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: &bool| if *end { " END" } else { "" };
        match self {
            Event::Fields {
                status,
                fields,
                end: last,
            } => {
                let status = status.map_or("trailers".to_owned(), |status| status.to_string());
                let fields: Vec<String> = fields.iter().map(field).collect();
                write!(f, "{status} [{}]{}", fields.join("; "), end(last))
            }
            Event::Data { bytes, end: last }
                if bytes.len() <= 64 && bytes.iter().all(|byte| *byte >= b' ') =>
            {
                write!(f, "{:?}{}", String::from_utf8_lossy(bytes), end(last))
            }
            Event::Data { bytes, end: last } => write!(f, "{} bytes{}", bytes.len(), end(last)),
            Event::Reset(reason) => write!(f, "RST_STREAM {reason:?}"),
            Event::GoAway { last, reason, debug } => write!(f, "GOAWAY {last} {reason:?} {debug:?}"),
            Event::Closed => f.write_str("closed"),
        }
    }
}

/// A field; of a long value, its length.
fn field((name, value): &(String, String)) -> String {
    match value.len() {
        0..=64 => format!("{name}: {value}"),
        long => format!("{name}: {long} bytes"),
    }
}
