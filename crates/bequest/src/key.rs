//! The keys of typed values that travel with a context. The values themselves are in `values/`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU8;

use crate::values::Kind;

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
#[repr(C)]
pub struct Key<T> {
    /// The first field, so that it is found whatever the `T`.
    kind: &'static Kind,
    name: &'static str,
    /// A key is known by its address. That it could change keeps the compiler from making one of a constant wherever it
    /// is used, and from making one of two.
    _unique: AtomicU8,
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
            kind: Kind::of::<T>(),
            name,
            _unique: AtomicU8::new(0),
            sensitive: false,
            codec: None,
            holds: PhantomData,
        }
    }

    /// Marks the values as sensitive: not even the key's name is printed, and they never cross.
    #[must_use]
    pub const fn sensitive(mut self) -> Key<T> {
        self.sensitive = true;
        self
    }

    /// Lets the values cross to other processes.
    #[must_use]
    pub const fn crossing(mut self, codec: Codec<T>) -> Key<T> {
        self.codec = Some(codec);
        self
    }

    /// The name given to [`new`](Key::new).
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The longest text, in bytes, that is taken for a value from another process: the limit of its
    /// [`Codec`](Codec::limit). `None`: values do not cross.
    ///
    /// ```
    /// use bequest::{Codec, Key};
    ///
    /// static LOCAL: Key<u32> = Key::new("local");
    /// static TENANT: Key<String> = Key::new("tenant").crossing(Codec {
    ///     encode: String::clone,
    ///     decode: |text| Some(text.to_owned()),
    ///     limit: 10,
    /// });
    /// assert_eq!((LOCAL.crossing_limit(), TENANT.crossing_limit()), (None, Some(10)));
    /// ```
    pub fn crossing_limit(&self) -> Option<usize> {
        let codec = self.codec.as_ref().filter(|_| !self.sensitive);
        codec.map(|codec| codec.limit)
    }

    pub(crate) fn decode(&self, text: &str) -> Option<T> {
        let codec = self
            .codec
            .as_ref()
            .filter(|codec| !self.sensitive && text.len() <= codec.limit)?;
        (codec.decode)(text)
    }

    /// The name, if it may be printed.
    pub(crate) fn printed_name(&self) -> Option<&'static str> {
        (!self.sensitive).then_some(self.name)
    }

    /// The value as text, if it may cross and is not too long.
    pub(crate) fn encode(&self, value: &T) -> Option<Crossing> {
        let codec = self.codec.as_ref().filter(|_| !self.sensitive)?;
        let text = (codec.encode)(value);
        (text.len() <= codec.limit).then_some((self.name, text))
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.sensitive { "(sensitive)" } else { self.name };
        f.debug_struct("Key").field("name", &name).finish_non_exhaustive()
    }
}

/// A value as it crosses: the key's name and the text.
pub(crate) type Crossing = (&'static str, String);
