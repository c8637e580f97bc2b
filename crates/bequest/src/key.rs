//! Typed values that travel with a context, and the keys that find them.
//!
//! Values live in the handle, not in the tree: adding one registers nothing, takes no lock, and cannot form a cycle
//! with the node.
//!
//! # Invariants
//!
//! 1. A key's number is unique in the process and belongs to one `T`: an entry found under it holds a `T`.
//! 2. A list is at most [`STEP`] entries long above its table. The table holds every key visible below, once, so a
//!    look-up takes at most `STEP` steps and one binary search, however deep the context, and a shadowed value is let
//!    go when the next table is made.
//! 3. Nothing recurses on drop: tables hold entries, and entries hold no links.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The key of a value in a context. It is made as a `static`, and finds only values put in under itself.
///
/// The type of the value is the key's: no downcast, no collision, no panic. Keep the static private to its module and
/// offer functions in the terms of the domain; then nobody else can read or forge the value.
///
/// ```
/// use bequest::{Context, Key};
///
/// static USER: Key<String> = Key::new("user");
///
/// let ctx = Context::background().with_value(&USER, "ann".to_string());
/// assert_eq!(ctx.value(&USER).map(String::as_str), Some("ann"));
/// assert_eq!(Context::background().value(&USER), None);
/// ```
///
/// A `const` does not work, since every use of it would be another key:
///
/// ```compile_fail
/// use bequest::{Context, Key};
///
/// const USER: Key<u32> = Key::new("user");
/// let ctx = Context::background().with_value(&USER, 7); // error: temporary value dropped
/// ```
pub struct Key<T> {
    name: &'static str,
    /// Zero until the first use, then a number of its own.
    id: AtomicU64,
    sensitive: bool,
    codec: Option<Codec<T>>,
    holds: PhantomData<fn() -> T>,
}

/// How a value crosses to another process: as text, within a limit.
///
/// Wire formats read it; by default no value leaves its process.
///
/// ```
/// use bequest::{Codec, Context, Key};
///
/// static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
///     encode: |tenant| tenant.to_string(),
///     decode: |text| text.parse().ok(),
///     limit: 10,
/// });
///
/// let ctx = Context::background().with_value(&TENANT, 7);
/// assert_eq!(ctx.crossing(), [("tenant", "7".to_string())]);
///
/// let received = Context::background().with_crossed(&TENANT, "7").unwrap();
/// assert_eq!(received.value(&TENANT), Some(&7));
/// assert!(Context::background().with_crossed(&TENANT, "seven").is_none());
/// ```
#[derive(Debug)]
pub struct Codec<T> {
    /// The value as text.
    pub encode: fn(&T) -> String,
    /// The value of a text, or `None` if it is not one.
    pub decode: fn(&str) -> Option<T>,
    /// The longest text, in bytes, that is sent or accepted.
    pub limit: usize,
}

impl<T> Key<T> {
    /// A key whose values stay in this process and whose name may be printed.
    pub const fn new(name: &'static str) -> Key<T> {
        Key {
            name,
            id: AtomicU64::new(0),
            sensitive: false,
            codec: None,
            holds: PhantomData,
        }
    }

    /// Marks the values as sensitive: not even the key's name is printed, and they never cross.
    pub const fn sensitive(mut self) -> Key<T> {
        self.sensitive = true;
        self
    }

    /// Lets the values cross to other processes.
    pub const fn crossing(mut self, codec: Codec<T>) -> Key<T> {
        self.codec = Some(codec);
        self
    }

    /// The name given to [`new`](Key::new).
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn decode(&self, text: &str) -> Option<T> {
        let codec = self
            .codec
            .as_ref()
            .filter(|codec| !self.sensitive && text.len() <= codec.limit)?;
        (codec.decode)(text)
    }

    fn id(&self) -> u64 {
        // Relaxed: the number stands for nothing but itself.
        match self.id.load(Ordering::Relaxed) {
            0 => self.number(),
            id => id,
        }
    }

    #[cold]
    fn number(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        match self
            .id
            .compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => id,
            Err(first) => first,
        }
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.sensitive { "(sensitive)" } else { self.name };
        f.debug_struct("Key").field("name", &name).finish_non_exhaustive()
    }
}

/// The values that a handle carries: a short list above a table.
#[derive(Clone, Default)]
pub(crate) struct Values(Option<Arc<Listed>>);

/// How many entries a list has before they are gathered into a table.
const STEP: usize = 8;

struct Listed {
    entry: Arc<Entry>,
    below: Below,
    /// Entries in the list from here down.
    length: usize,
}

enum Below {
    Nothing,
    List(Arc<Listed>),
    /// Sorted by the key's number.
    Table(Box<[Arc<Entry>]>),
}

/// A value under its key.
struct Entry<T: ?Sized = dyn Any + Send + Sync> {
    key: u64,
    /// `None` for a sensitive key.
    name: Option<&'static str>,
    /// The value as text, if it may cross.
    encode: fn(&(dyn Any + Send + Sync)) -> Option<Crossing>,
    value: T,
}

type Crossing = (&'static str, String);

impl Values {
    pub(crate) const EMPTY: Values = Values(None);

    pub(crate) fn with<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Values {
        let crosses = key.codec.is_some() && !key.sensitive;
        let entry = Arc::new(Entry {
            key: key.id(),
            name: (!key.sensitive).then_some(key.name),
            encode: if crosses { encode_keyed::<T> } else { |_| None },
            value: Keyed { key, value },
        });
        let (below, length) = match &self.0 {
            None => (Below::Nothing, 1),
            Some(list) if list.length < STEP => (Below::List(Arc::clone(list)), list.length + 1),
            Some(_) => (Below::Table(self.gather()), 1),
        };
        Values(Some(Arc::new(Listed { entry, below, length })))
    }

    pub(crate) fn get<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        let id = key.id();
        let mut listed = self.0.as_deref()?;
        let entry = loop {
            if listed.entry.key == id {
                break &listed.entry;
            }
            match &listed.below {
                Below::Nothing => return None,
                Below::List(next) => listed = next,
                Below::Table(table) => {
                    let place = table.binary_search_by_key(&id, |entry| entry.key).ok()?;
                    break &table[place];
                }
            }
        };
        // Invariant 1: the number belongs to one `T`.
        entry.value.downcast_ref::<Keyed<T>>().map(|keyed| &keyed.value)
    }

    /// The names of the visible keys, newest first, without those of sensitive ones.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.visible().iter().filter_map(|entry| entry.name).collect()
    }

    /// The visible values that may cross, as text.
    pub(crate) fn crossing(&self) -> Vec<Crossing> {
        self.visible()
            .iter()
            .filter_map(|entry| (entry.encode)(&entry.value))
            .collect()
    }

    /// The nearest entry under each key, newest first.
    fn visible(&self) -> Vec<&Arc<Entry>> {
        let mut visible: Vec<&Arc<Entry>> = Vec::new();
        let mut next = self.0.as_deref();
        while let Some(listed) = next {
            if visible.iter().all(|nearer| nearer.key != listed.entry.key) {
                visible.push(&listed.entry);
            }
            next = match &listed.below {
                Below::Nothing => None,
                Below::List(list) => Some(list),
                Below::Table(table) => {
                    let nearer = visible.len();
                    for entry in table {
                        if visible[..nearer].iter().all(|near| near.key != entry.key) {
                            visible.push(entry);
                        }
                    }
                    None
                }
            };
        }
        visible
    }

    fn gather(&self) -> Box<[Arc<Entry>]> {
        let mut table: Vec<_> = self.visible().into_iter().cloned().collect();
        table.sort_unstable_by_key(|entry| entry.key);
        table.into()
    }
}

/// A value beside its key, whose codec it may need later.
struct Keyed<T: 'static> {
    key: &'static Key<T>,
    value: T,
}

fn encode_keyed<T: 'static>(value: &(dyn Any + Send + Sync)) -> Option<Crossing> {
    let keyed = value.downcast_ref::<Keyed<T>>()?;
    let codec = keyed.key.codec.as_ref()?;
    let text = (codec.encode)(&keyed.value);
    (text.len() <= codec.limit).then_some((keyed.key.name, text))
}
