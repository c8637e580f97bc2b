//! Tokens: what an authentication server says of a user, signed.
//!
//! What lives here: reading and checking a token strictly, the issuer's key set, and an authentication server of our own
//! for trying things out. What does not: getting a token from a real server, which is the client's affair.
//!
//! # Invariants
//!
//! 1. The algorithm is the issuer's, fixed by the settings. A token can agree with it or be refused; it chooses nothing.
//! 2. Nothing of the payload is read before the signature has been checked.
//! 3. A claim that is missing is refused, and one of the wrong type is as good as missing.
//! 4. The key set is fetched under a context of its own. What clients send makes it be fetched once a minute at most.

mod claims;
pub(crate) mod client;
pub(crate) mod issuer;
mod jwk;
mod jws;
mod keys;
pub(crate) mod settings;
mod verifier;

pub(crate) use jwk::Algorithm;
pub(crate) use keys::KeySet;
pub(crate) use verifier::{TokenError, Verifier};

#[cfg(test)]
mod tests;
