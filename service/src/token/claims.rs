//! What a token says, and whether it is meant for us and now.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::domain::session::{Gender, User};

/// How far the clocks of the issuer and of this machine may be apart.
const LEEWAY: Duration = Duration::from_secs(5);
/// The longest name of a user, in bytes.
const LONGEST_NAME: usize = 255;

/// The claims that are looked at; those without `Option` are required. A field that occurs twice is refused.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: f64,
    gender: Option<String>,
    age: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    pub(super) fn read(payload: &[u8]) -> Result<Claims, &'static str> {
        serde_json::from_slice(payload).map_err(|_| "a claim is missing, or of the wrong type")
    }

    /// The user, if the token is `issuer`'s, for `audience`, and good at `now`.
    pub(super) fn check(self, issuer: &str, audience: &str, now: SystemTime) -> Result<User, &'static str> {
        if self.iss != issuer {
            return Err("it is another issuer's");
        }
        if !self.aud.names(audience) {
            return Err("it is for somebody else");
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (now, leeway) = (now.as_secs_f64(), LEEWAY.as_secs_f64());
        if now >= self.exp + leeway {
            return Err("it has expired");
        }
        if now < self.nbf - leeway {
            return Err("it is not good yet");
        }
        self.user()
    }

    fn user(self) -> Result<User, &'static str> {
        let is_name =
            |name: &str| (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(char::is_control);
        if !is_name(&self.sub) {
            return Err("the user's name is empty, too long, or has control characters");
        }
        let gender = match self.gender.as_deref() {
            None => Gender::Undisclosed,
            Some(word) => Gender::parse(word).unwrap_or(Gender::Other),
        };
        Ok(User {
            id: self.sub,
            gender,
            age: self.age,
        })
    }
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}
