//! Which values may cross, by name: nothing unless it is listed.

use std::fmt;
use std::sync::Arc;

use bequest::{Context, Key};
use http::HeaderMap;

use super::baggage::{Baggage, Member};

const BAGGAGE: &str = "baggage";

/// A list of the values that may cross in one direction, to or from one party.
///
/// Keys cross as typed values, by their [`Codec`](bequest::Codec); members that this program has no key for pass through
/// it untouched.
///
/// ```
/// use bequest::{Codec, Context, Key};
/// use bequest_http::wire::{Allow, Baggage};
/// use http::HeaderMap;
///
/// static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
///     encode: u32::to_string,
///     decode: |text| text.parse().ok(),
///     limit: 10,
/// });
///
/// let mut headers = HeaderMap::new();
/// headers.insert("baggage", "tenant=7,colour=red;a=b,secret=x".parse().unwrap());
///
/// let allow = Allow::nothing().key(&TENANT).member("colour");
/// let ctx = allow.read(&headers, Context::background());
/// assert_eq!(ctx.value(&TENANT), Some(&7));
/// assert_eq!(Baggage::of(&ctx).unwrap().members()[0].raw(), "red;a=b");
///
/// let sent = Allow::nothing().member("colour").select(&ctx);
/// assert_eq!(sent.to_header().unwrap(), "colour=red;a=b", "each list decides for itself");
/// ```
#[derive(Clone, Default)]
#[must_use = "a list does nothing until headers are read or written by it"]
pub struct Allow {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    name: String,
    /// How a value is received; `None` for a member that passes untouched.
    receive: Option<Arc<Receive>>,
    /// The longest value that can be received, in bytes.
    limit: usize,
}

/// Adds the value of a text to a context, unless it is not one.
type Receive = dyn Fn(&Context, &str) -> Option<Context> + Send + Sync;

impl Allow {
    /// Nothing crosses: where every list begins.
    pub fn nothing() -> Allow {
        Allow::default()
    }

    /// The values of `key` cross too. It has no effect on a key without a codec, or a sensitive one.
    pub fn key<T: Send + Sync + 'static>(mut self, key: &'static Key<T>) -> Allow {
        let receive = move |ctx: &Context, text: &str| ctx.with_crossed(key, text);
        self.entries.push(Entry {
            name: key.name().to_owned(),
            receive: Some(Arc::new(receive)),
            limit: key.crossing_limit().unwrap_or(0),
        });
        self
    }

    /// Members of this name, which this program has no key for, pass too.
    pub fn member(mut self, name: impl Into<String>) -> Allow {
        self.entries.push(Entry {
            name: name.into(),
            receive: None,
            limit: 0,
        });
        self
    }

    /// `ctx` with what the `baggage` of a request may give it. A value that its codec refuses is left out; of several
    /// with one key, the last one that is not refused holds.
    pub fn read(&self, headers: &HeaderMap, mut ctx: Context) -> Context {
        if self.entries.is_empty() || !headers.contains_key(BAGGAGE) {
            return ctx;
        }
        let lines = headers.get_all(BAGGAGE).iter().map(|line| line.as_bytes());
        // What is too long even with its encoding undone is not worth undoing: an encoded byte takes three.
        let reading = Baggage::read_fitting(lines, |name, length| {
            let entry = self.entry(name);
            entry.is_some_and(|entry| entry.receive.is_none() || length.div_ceil(3) <= entry.limit)
        });
        let mut untouched = Baggage::default();
        for member in reading.baggage.members() {
            if self
                .entry(member.key())
                .is_some_and(|entry| entry.receive.is_none())
            {
                untouched.push(member.clone());
            }
        }
        for entry in &self.entries {
            let Some(receive) = &entry.receive else {
                continue;
            };
            // From the last to the first, so that no more than one is put into a context, however many there are.
            let members = reading.baggage.members().iter().rev();
            let mut of_key = members.filter(|member| member.key() == entry.name);
            if let Some(received) = of_key.find_map(|member| receive(&ctx, &member.value())) {
                ctx = received;
            }
        }
        match untouched.members() {
            [] => ctx,
            _ => untouched.carried_by(&ctx),
        }
    }

    /// What of `ctx` may go out: its own values, then the members that pass through, as far as the caps allow.
    pub fn select(&self, ctx: &Context) -> Baggage {
        let mut selected = Baggage::default();
        if self.entries.is_empty() {
            return selected;
        }
        for (name, text) in ctx.crossing() {
            if let Some(member) = self.entry(name).and_then(|_| Member::new(name, &text)) {
                selected.push(member);
            }
        }
        let own = selected.members().len();
        for member in Baggage::of(ctx).map(Baggage::members).unwrap_or_default() {
            let is_own = selected.members()[..own]
                .iter()
                .any(|mine| mine.key() == member.key());
            if self.entry(member.key()).is_some() && !is_own {
                selected.push(member.clone());
            }
        }
        selected
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl fmt::Debug for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.entries.iter().map(|entry| &entry.name))
            .finish()
    }
}
