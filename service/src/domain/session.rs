//! Who is asking: the session of a request, carried by the context.
//!
//! The key is private to this module. Whoever holds the context can read the session; only who checked it puts it in.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bequest::{Context, Key};

/// Stays in this process: another one asks for itself.
static SESSION: Key<Arc<Session>> = Key::new("session");

/// A signed-in user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// Under which it is kept; not what the client holds.
    pub(crate) id: SessionHash,
    pub(crate) user: User,
    pub(crate) login_time: SystemTime,
}

/// What the authentication server says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: String,
    /// Personal, as the age is: for the handlers that need it, not for logs.
    pub(crate) gender: Gender,
    pub(crate) age: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gender {
    Female,
    Male,
    Other,
    Undisclosed,
}

/// The SHA-256 of a session's id. Whoever reads it cannot sign in with it.
///
/// It is shown by its first eight hexadecimal digits, enough to follow a session through a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionHash(pub(crate) [u8; 32]);

/// `ctx` with the session of a request.
pub(crate) fn new_context(ctx: &Context, session: Arc<Session>) -> Context {
    ctx.with_value(&SESSION, session)
}

/// The session of the request that `ctx` comes from, if its client is signed in.
pub(crate) fn from_context(ctx: &Context) -> Option<&Arc<Session>> {
    ctx.value(&SESSION)
}

impl Gender {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Gender::Female => "female",
            Gender::Male => "male",
            Gender::Other => "other",
            Gender::Undisclosed => "undisclosed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Gender> {
        [Gender::Female, Gender::Male, Gender::Other, Gender::Undisclosed]
            .into_iter()
            .find(|gender| gender.as_str() == text)
    }
}

impl SessionHash {
    /// By which its owner tells one of several sessions from the others: the first sixteen hexadecimal digits.
    pub(crate) fn handle(&self) -> String {
        self.hex(8)
    }

    /// All of it, by which caches keep a session.
    pub(crate) fn whole(&self) -> String {
        self.hex(32)
    }

    fn hex(&self, bytes: usize) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |four: u8| char::from(DIGITS[usize::from(four)]);
        let both = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
        self.0[..bytes].iter().flat_map(both).collect()
    }
}

impl fmt::Display for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex(4))
    }
}

impl fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_in_the_context_and_by_its_type_alone() {
        let session = Arc::new(Session {
            id: SessionHash([0xab; 32]),
            user: User {
                id: "ann".into(),
                gender: Gender::Female,
                age: Some(42),
            },
            login_time: SystemTime::UNIX_EPOCH,
        });
        let ctx = new_context(&Context::background(), Arc::clone(&session));
        assert_eq!(from_context(&ctx), Some(&session));
        assert_eq!(from_context(&ctx.without_cancel()), Some(&session));
        assert_eq!(from_context(&Context::background()), None);
    }

    #[test]
    fn a_hash_is_shown_by_its_beginning() {
        let hash = SessionHash([0xab; 32]);
        assert_eq!(hash.to_string(), "abababab");
        assert_eq!(hash.handle(), "abababababababab");
        assert_eq!(format!("{hash:?}"), "SessionHash(abababab)");
    }
}
