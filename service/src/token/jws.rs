//! A token as it is sent: three parts of base64url with dots between them, and a signature over the first two.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::jwk::{Algorithm, Key};

/// A token whose form and algorithm are as they should be, and whose signature has not been looked at.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    /// Which of the issuer's keys it says it was signed with.
    pub(super) kid: Option<String>,
    signed: &'t [u8],
    payload: &'t str,
    signature: Vec<u8>,
}

/// No token is longer than this.
const LONGEST: usize = 8 * 1024;
const LONGEST_KID: usize = 128;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that must be understood. None are.
    crit: Option<serde_json::Value>,
}

impl Unverified<'_> {
    /// Reads the form of a token of an issuer that signs with `algorithm`.
    pub(super) fn read(token: &str, algorithm: Algorithm) -> Result<Unverified<'_>, &'static str> {
        if token.len() > LONGEST {
            return Err("the token is too long");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token does not have three parts");
        };
        let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
        let header = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| "the header is not base64url")?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| "the header is not that of a signed token")?;
        check(&header, algorithm)?;
        let signature = URL_SAFE_NO_PAD.decode(signature);
        Ok(Unverified {
            kid: header.kid,
            signed,
            payload,
            signature: signature.map_err(|_| "the signature is not base64url")?,
        })
    }

    /// What the token says, if `key` signed it.
    pub(super) fn verify(&self, key: &Key) -> Result<Vec<u8>, &'static str> {
        if !key.verifies(self.signed, &self.signature) {
            return Err("the signature is not the issuer's");
        }
        URL_SAFE_NO_PAD
            .decode(self.payload)
            .map_err(|_| "the payload is not base64url")
    }
}

fn check(header: &Header, algorithm: Algorithm) -> Result<(), &'static str> {
    if header.alg != algorithm.name() {
        return Err("the algorithm is not the issuer's");
    }
    if header.crit.is_some() {
        return Err("the header asks for an extension");
    }
    let is_token =
        |typ: &str| ["jwt", "at+jwt", "application/at+jwt"].contains(&typ.to_ascii_lowercase().as_str());
    if !header.typ.as_deref().is_none_or(is_token) {
        return Err("it is signed, but no token");
    }
    if header.kid.as_deref().is_some_and(|kid| kid.len() > LONGEST_KID) {
        return Err("the key's name is too long");
    }
    Ok(())
}
