//! The key with which the embedded server signs: made once, kept where nobody else can read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// A key pair of Ed25519, and its name.
#[derive(Debug)]
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    kid: String,
}

/// No key file is longer than this.
const LONGEST: u64 = 4096;

impl SigningKey {
    /// The key in the file at `path`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The file cannot be read or made, holds no key, or can be read by others.
    pub(crate) fn open(path: &Path) -> io::Result<SigningKey> {
        match File::open(path) {
            Ok(file) => {
                refuse_if_public(&file)?;
                let mut bytes = Vec::new();
                file.take(LONGEST).read_to_end(&mut bytes)?;
                SigningKey::read(&bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => SigningKey::make(path),
            Err(error) => Err(error),
        }
    }

    /// The public half, as an entry of a key set.
    pub(crate) fn public(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(self.pair.public_key()),
        })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" });
        self.sign_text(&header, &claims.to_string())
    }

    /// What is signed like a token, whether or not it is one: any header, any payload.
    pub(in crate::token) fn sign_text(&self, header: &Value, payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(&header.to_string()), part(payload));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Makes a key, and the file whole or not at all. Of several nodes that begin at once in one folder the first makes it,
    /// and all use that one.
    fn make(path: &Path) -> io::Result<SigningKey> {
        let random = SystemRandom::new();
        let no_random = |_| io::Error::other("the system has no random numbers to give");
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(no_random)?;
        let mut number = [0; 8];
        random.fill(&mut number).map_err(no_random)?;
        let begun = path.with_extension(format!("new-{:016x}", u64::from_ne_bytes(number)));
        let mut file = private_file(&begun)?;
        let written = file.write_all(pkcs8.as_ref()).and_then(|()| file.sync_all());
        // A link is made only if there is nothing yet; where there are no links, the last one to come wins.
        let placed = written.and_then(|()| match fs::hard_link(&begun, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&begun, path),
            placed => placed,
        });
        if let Err(error) = fs::remove_file(&begun) {
            // It was renamed.
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
        }
        match placed {
            Ok(()) => SigningKey::read(pkcs8.as_ref()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => SigningKey::open(path),
            Err(error) => Err(error),
        }
    }

    fn read(pkcs8: &[u8]) -> io::Result<SigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no signing key: {error}"))
        })?;
        let hash = digest(&SHA256, pair.public_key().as_ref());
        let kid = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]);
        Ok(SigningKey { pair, kid })
    }
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn refuse_if_public(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "others can read the signing key: chmod 600, or remove it for a new one",
    ))
}

#[cfg(not(unix))]
fn refuse_if_public(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn nodes_that_begin_at_once_use_one_key() {
        for round in 0..20 {
            let folder = std::env::temp_dir().join(format!("bequest-key-{}-{round}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join("issuer-key.pkcs8");
            let (start, path) = (Barrier::new(8), &path);
            let opened = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            SigningKey::open(path).map(|key| key.kid)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect::<io::Result<Vec<_>>>()
            });
            let files = fs::read_dir(&folder).unwrap().count();
            fs::remove_dir_all(&folder).unwrap();
            let kids = opened.unwrap();
            assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
            assert_eq!(files, 1, "nothing is left beside the key");
        }
    }
}
