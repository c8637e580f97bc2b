//! Checking the tokens of one issuer.

use std::fmt;

use bequest::{Canceled, Context};

use super::claims::Claims;
use super::jws::Unverified;
use super::keys::{KeySet, NoKey};
use crate::domain::session::User;

/// Checks the tokens of one issuer for one audience.
#[derive(Debug)]
pub(crate) struct Verifier {
    issuer: String,
    audience: String,
    keys: KeySet,
}

/// A token is not taken, or cannot be checked.
#[derive(Debug)]
pub(crate) struct TokenError(Why);

#[derive(Debug)]
enum Why {
    Refused(&'static str),
    NoKey(NoKey),
}

impl Verifier {
    /// Checks tokens in which `iss` is `issuer` and `aud` names `audience`, with `keys`.
    pub(crate) fn new(issuer: String, audience: String, keys: KeySet) -> Verifier {
        Verifier {
            issuer,
            audience,
            keys,
        }
    }

    /// The user of whom `token` speaks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The token is not taken ([`TokenError::is_refused`]); the issuer's keys cannot be had; the end of `ctx`.
    pub(crate) async fn verify(&self, ctx: &Context, token: &str) -> Result<User, TokenError> {
        let refused = |why| TokenError(Why::Refused(why));
        let unverified = Unverified::read(token, self.keys.algorithm()).map_err(refused)?;
        let key = self.keys.find(ctx, unverified.kid.as_deref()).await;
        let key = key.map_err(|error| TokenError(Why::NoKey(error)))?;
        let payload = unverified.verify(&key).map_err(refused)?;
        let claims = Claims::read(&payload).map_err(refused)?;
        claims
            .check(&self.issuer, &self.audience, ctx.wall())
            .map_err(refused)
    }
}

impl TokenError {
    /// It is the token's fault.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.0, Why::Refused(_) | Why::NoKey(NoKey::Unknown))
    }

    /// The end of the context, if that is why.
    pub(crate) fn canceled(&self) -> Option<&Canceled> {
        match &self.0 {
            Why::NoKey(NoKey::Ended(end)) => Some(end),
            Why::NoKey(_) | Why::Refused(_) => None,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Refused(why) => write!(f, "the token is not taken: {why}"),
            Why::NoKey(NoKey::Unknown) => write!(f, "the token is not taken: {}", NoKey::Unknown),
            Why::NoKey(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TokenError {}
