//! What should travel in a context, how a key is made, and what happens at the border of the process.
//!
//! # When not to
//!
//! A value in a context is a parameter that no signature shows. So the question is not "may I put it in" but "would
//! the function still be understood without it". Three tests, all of which it should pass:
//!
//! 1. It belongs to the *request*: it is made when the request begins and is meaningless after its end.
//! 2. It *crosses* layers that have no business with it, and would clutter their signatures.
//! 3. It *informs* and does not control: a function that has to have it to work takes it as a parameter.
//!
//! | in the context | as a parameter or a field |
//! |---|---|
//! | trace and request numbers | a database, a client, a clock |
//! | who is asking: user, tenant, address | what is asked for: an id, a query, a page |
//! | what the log line is to have | settings, limits, switches |
//! | | anything optional, "to save a parameter" |
//!
//! Time limits and cancellation are not values: they are the context itself.
//!
//! # Keys
//!
//! A key is a `static` with the type of its values. Private to its module, it makes the value unforgeable; functions in
//! the terms of the domain are what others see.
//!
//! ```
//! mod tenant {
//!     use bequest::{Context, Key};
//!
//!     static TENANT: Key<u32> = Key::new("tenant");
//!
//!     /// `ctx` for the work of this tenant.
//!     pub fn new_context(ctx: &Context, tenant: u32) -> Context {
//!         ctx.with_value(&TENANT, tenant)
//!     }
//!
//!     /// The tenant for whom this work is done, if it is anybody's.
//!     pub fn from_context(ctx: &Context) -> Option<u32> {
//!         ctx.value(&TENANT).copied()
//!     }
//! }
//!
//! use bequest::Context;
//!
//! let request = tenant::new_context(&Context::background(), 7).with_cancel();
//! assert_eq!(tenant::from_context(&request), Some(7));
//! assert_eq!(tenant::from_context(&request.without_cancel()), Some(7), "background work keeps it");
//! assert_eq!(tenant::from_context(&Context::background()), None);
//! ```
//!
//! - A key equals only itself. Two keys of one type and one name are two keys.
//! - A value is `Send + Sync + 'static` and is read by reference; what is expensive to clone goes in as an `Arc`.
//! - A value that changes (a counter, a cache of the request) is a value with a lock or an atomic in it. That is seldom
//!   a good idea, and then a small one.
//! - A later value under the same key hides an earlier one, below and nowhere else. To hide it with nothing, let the type
//!   be an `Option`.
//! - `with_value` registers nothing, takes no lock, and leaves the cancellation as it is. A look-up does not get slower
//!   with depth, nor does it cost more to miss.
//!
//! On a scope, `with_value` keeps the owner:
//!
//! ```
//! use bequest::{Context, Key};
//! use std::time::Duration;
//!
//! static TRACE: Key<u64> = Key::new("trace");
//!
//! let scope = Context::background().with_timeout(Duration::from_secs(1)).with_value(&TRACE, 42);
//! assert!(!scope.is_done());
//! assert_eq!(scope.value(&TRACE), Some(&42));
//! ```
//!
//! # What is printed
//!
//! `Debug` of a context prints the names of the keys and never a value. The name of a *sensitive* key is not printed
//! either: that a request carries a token may be more than a log should say.
//!
//! ```
//! use bequest::{Context, Key};
//!
//! static USER: Key<&'static str> = Key::new("user");
//! static TOKEN: Key<String> = Key::new("token").sensitive();
//!
//! let ctx = Context::background().with_value(&USER, "ann").with_value(&TOKEN, "s3cret".to_string());
//! let printed = format!("{ctx:?}");
//! assert!(printed.contains("user") && !printed.contains("ann"));
//! assert!(!printed.contains("token") && !printed.contains("s3cret"));
//! ```
//!
//! # Crossing to another process
//!
//! By default nothing does. A key that is to cross says how its value becomes text, how a text becomes a value, and how
//! long the text may be, and is bounded in both directions. Sensitive keys never cross, whatever they say.
//!
//! ```
//! use bequest::{Codec, Context, Key};
//! use std::net::IpAddr;
//!
//! static USER_IP: Key<IpAddr> = Key::new("userip").crossing(Codec {
//!     encode: |ip| ip.to_string(),
//!     decode: |text| text.parse().ok(),
//!     limit: 45,
//! });
//!
//! let here = Context::background().with_value(&USER_IP, IpAddr::from([192, 0, 2, 1]));
//! let sent = here.crossing();
//! assert_eq!(sent, [("userip", "192.0.2.1".to_string())]);
//!
//! let there = Context::background().with_crossed(&USER_IP, &sent[0].1).unwrap();
//! assert_eq!(there.value(&USER_IP), here.value(&USER_IP));
//! assert!(Context::background().with_crossed(&USER_IP, "not an address").is_none());
//! ```
//!
//! What comes in was said by somebody. `decode` is the place to be strict, and whether a peer is believed at all is for
//! the edge to decide, not for the key.
