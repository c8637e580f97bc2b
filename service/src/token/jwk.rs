//! The keys of an issuer, from a JSON Web Key set.
//!
//! Only keys that fit the issuer's algorithm are taken. A key of another kind in the same set can therefore never be
//! taken for one, such as a public key for the secret of an HMAC.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

/// What an issuer signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

/// A public key of an issuer.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Ed25519(Vec<u8>),
    /// The uncompressed point.
    P256(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// A set is refused if it has more keys than this.
const MOST_KEYS: usize = 64;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Algorithm {
    /// Its name in a token's header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

impl Key {
    /// Whether `signature` is this key's for `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Material::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        verified.is_ok()
    }
}

/// The keys in `body` with which `algorithm` is checked.
///
/// # Errors
///
/// It is no key set, has too many keys, or none that fits.
pub(super) fn read_set(body: &[u8], algorithm: Algorithm) -> Result<Vec<Key>, &'static str> {
    let set: Set = serde_json::from_slice(body).map_err(|_| "it is not a key set")?;
    if set.keys.len() > MOST_KEYS {
        return Err("it has too many keys");
    }
    let keys: Vec<_> = set
        .keys
        .iter()
        .filter_map(|entry| read(entry, algorithm))
        .collect();
    if keys.is_empty() {
        return Err("it has no key for the algorithm");
    }
    Ok(keys)
}

fn read(entry: &Entry, algorithm: Algorithm) -> Option<Key> {
    let is_for = |field: &Option<String>, word: &str| field.as_deref().is_none_or(|field| field == word);
    if !is_for(&entry.alg, algorithm.name()) || !is_for(&entry.used_for, "sig") {
        return None;
    }
    let material = match (algorithm, entry.kty.as_str(), entry.crv.as_deref()) {
        (Algorithm::EdDsa, "OKP", Some("Ed25519")) => Material::Ed25519(bytes(&entry.x, 32..=32)?),
        (Algorithm::Es256, "EC", Some("P-256")) => {
            let (x, y) = (bytes(&entry.x, 32..=32)?, bytes(&entry.y, 32..=32)?);
            Material::P256([&[4], x.as_slice(), y.as_slice()].concat())
        }
        (Algorithm::Rs256, "RSA", _) => Material::Rsa {
            n: bytes(&entry.n, 256..=1024)?,
            e: bytes(&entry.e, 1..=8)?,
        },
        _ => return None,
    };
    Some(Key {
        kid: entry.kid.clone(),
        material,
    })
}

fn bytes(field: &Option<String>, length: std::ops::RangeInclusive<usize>) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(field.as_deref()?).ok()?;
    length.contains(&bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_fit_are_taken() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let fits = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"a"}}"#);
        let others = [
            format!(r#"{{"kty":"oct","k":"{x}","kid":"b"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}","kid":"c"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}","kid":"d"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"e","use":"enc"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"f","alg":"HS256"}}"#),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"g"}"#.to_string(),
        ];
        let set = format!(r#"{{"keys":[{},{fits}]}}"#, others.join(","));
        let keys = read_set(set.as_bytes(), Algorithm::EdDsa).unwrap();
        assert_eq!(
            keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(),
            [Some("a")]
        );
        assert!(read_set(set.as_bytes(), Algorithm::Rs256).is_err());
    }

    /// The examples of the standards: RFC 8037, A.4; RFC 7515, A.3 and A.2. Each signature counts for its own key alone.
    #[test]
    fn the_signatures_of_the_standards_are_verified() {
        let examples = [
            (
                Algorithm::EdDsa,
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
            (
                Algorithm::Es256,
                r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                Algorithm::Rs256,
                r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
                "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
        ];
        let set = format!(
            r#"{{"keys":[{},{},{}]}}"#,
            examples[0].1, examples[1].1, examples[2].1
        );
        for (algorithm, _, signed, signature) in examples {
            let keys = read_set(set.as_bytes(), algorithm).unwrap();
            let [key] = keys.as_slice() else {
                panic!("one of the three is for {algorithm:?}");
            };
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(key.verifies(signed.as_bytes(), &signature), "{algorithm:?}");
            assert!(!key.verifies(&signed.as_bytes()[1..], &signature));
            for (other, _, _, foreign) in examples.iter().filter(|example| example.0 != algorithm) {
                let foreign = URL_SAFE_NO_PAD.decode(foreign).unwrap();
                assert!(!key.verifies(signed.as_bytes(), &foreign), "{other:?}");
            }
        }
    }

    #[test]
    fn a_set_is_bounded_and_a_set() {
        let many = format!(
            r#"{{"keys":[{}]}}"#,
            vec![r#"{"kty":"RSA"}"#; MOST_KEYS + 1].join(",")
        );
        for bad in [
            many.as_str(),
            "",
            "[]",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{}]}"#,
        ] {
            assert!(read_set(bad.as_bytes(), Algorithm::EdDsa).is_err(), "{bad:.40}");
        }
    }
}
