//! A reader of event streams (WHATWG HTML, section 9.2.6), chunk by chunk.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use super::GUARD;
use super::client::{Answer, Client};

/// An open stream. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct EventStream {
    client: Client,
    pub(crate) head: Answer,
    /// Sent, and not yet part of an event.
    text: String,
}

/// What was sent up to an empty line.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl EventStream {
    /// Asks for the live contexts as they change.
    pub(crate) fn follow(admin: SocketAddr) -> EventStream {
        EventStream::open(admin, "/debug/contexts.events", &[]).expect("an answer")
    }

    pub(crate) fn open(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> io::Result<EventStream> {
        let mut client = Client::connect(addr)?;
        client.send("GET", target, headers)?;
        let head = client.head()?;
        Ok(EventStream {
            client,
            head,
            text: String::new(),
        })
    }

    /// The next event, whatever comments stand before it; `None` if the stream has ended in good order.
    pub(crate) fn next(&mut self) -> io::Result<Option<Event>> {
        let begun = Instant::now();
        loop {
            // Comments keep the socket's own limit from passing.
            assert!(begun.elapsed() < GUARD, "waited {GUARD:?} for an event");
            let Some(end) = self.text.find("\n\n") else {
                match self.client.chunk()? {
                    Some(more) => self.text.push_str(&more),
                    None => return Ok(None),
                }
                continue;
            };
            let block: String = self.text.drain(..end + 2).collect();
            let event = parse(&block);
            if !event.kind.is_empty() {
                return Ok(Some(event));
            }
        }
    }

    /// The next event that meets the condition.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Event) -> bool) -> Event {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < GUARD, "waited {GUARD:?} for {what}");
            let event = self
                .next()
                .unwrap_or_else(|error| panic!("{error} before {what}"));
            let event = event.unwrap_or_else(|| panic!("the end before {what}"));
            if holds(&event) {
                return event;
            }
        }
    }
}

impl Event {
    /// The rows of one of its lists.
    pub(crate) fn rows(&self, list: &str) -> &[Value] {
        self.data[list].as_array().map_or(&[], Vec::as_slice)
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "id" => event.id = Some(value.parse().expect("a number")),
            "event" => value.clone_into(&mut event.kind),
            "data" => event.data = serde_json::from_str(value).expect("JSON"),
            _ => {}
        }
    }
    event
}
