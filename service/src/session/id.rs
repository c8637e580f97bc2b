//! The id of a session: what the client holds, and nobody else.
//!
//! 256 bits from the system's random numbers, 43 characters of base64url, no meaning inside. What is kept of it, in the
//! database and in the cache, is its SHA-256: the id has full entropy, so a fast hash is the right one, and looking the
//! hash up takes the same time whatever was guessed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;

use crate::domain::session::SessionHash;

/// A session's id, a secret. Its `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct SessionId([u8; LENGTH]);

const LENGTH: usize = 32;
/// The length of the id as text.
const TEXT: usize = 43;

/// The system has no random numbers to give.
#[derive(Debug)]
pub(crate) struct NoRandomNumbers;

impl SessionId {
    /// A new id.
    pub(crate) fn generate(random: &dyn SecureRandom) -> Result<SessionId, NoRandomNumbers> {
        let mut bytes = [0; LENGTH];
        random.fill(&mut bytes).map_err(|_| NoRandomNumbers)?;
        Ok(SessionId(bytes))
    }

    /// The id that `text` spells, if it spells one. Each id has one spelling.
    pub(crate) fn parse(text: &str) -> Option<SessionId> {
        if text.len() != TEXT {
            return None;
        }
        // The decoder asks for room for whole groups of four characters.
        let mut bytes = [0; LENGTH + 1];
        let decoded = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        bytes[..decoded].try_into().ok().map(SessionId)
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> SessionHash {
        let hash = digest(&SHA256, &self.0);
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(hash.as_ref());
        SessionHash(bytes)
    }

    /// The id as text, to be handed to the client and to nobody else.
    pub(crate) fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId(hash {})", self.hash())
    }
}

impl fmt::Display for NoRandomNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system has no random numbers to give")
    }
}

impl std::error::Error for NoRandomNumbers {}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_and_read_back() {
        let random = SystemRandom::new();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = SessionId::generate(&random).unwrap();
            let text = id.expose();
            assert_eq!(text.len(), TEXT);
            assert_eq!(SessionId::parse(&text).unwrap().hash(), id.hash());
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn one_spelling_is_one_id() {
        let zeros = "A".repeat(TEXT);
        assert!(SessionId::parse(&zeros).is_some());
        // Its last two bits hang over: with them set it would be a second spelling of the same bytes.
        let other = format!("{}B", "A".repeat(TEXT - 1));
        for bad in [
            "",
            "A",
            &other,
            &format!("{zeros}="),
            &"+".repeat(TEXT),
            &"é".repeat(21),
        ] {
            assert!(SessionId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn is_never_shown() {
        let id = SessionId::generate(&SystemRandom::new()).unwrap();
        assert!(!format!("{id:?}").contains(&id.expose()));
    }

    #[test]
    fn the_hash_is_sha_256() {
        let id = SessionId([0; LENGTH]);
        // sha256sum of 32 zero bytes.
        assert_eq!(id.hash().handle(), "66687aadf862bd77");
    }
}
