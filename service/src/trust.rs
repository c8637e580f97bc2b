//! TLS on the way out: whom this service trusts, whomever it speaks to.
//!
//! There is one configuration for the authentication server, the search back end, the database and the cache. They are
//! trusted if one of Mozilla's authorities has signed their certificate, as compiled in, or one of those in the file of
//! `--trust`. Where TLS is spoken is said by each URL.
//!
//! # Invariants
//!
//! 1. A certificate is always verified, and so is that it is for the host of the URL. No setting switches that off.
//! 2. The file is read once, at the start, and refuses to start if there is anything in it that cannot be trusted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bequest_http::client;
use bequest_postgres::{Options as DatabaseOptions, Tls as DatabaseTls};
use bequest_redis::Options as CacheOptions;
use clap::Args;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::store::settings::SecretUrl;

/// Whom to trust.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrustSettings {
    /// Certificates (PEM) of authorities to trust besides Mozilla's: for https:// in --issuer and --search, for a
    /// database with sslmode=require, for a cache at rediss://
    #[arg(long, env = "BEQUEST_TRUST", value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
}

/// Whom this service trusts. A handle: cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Mozilla's authorities, and those in `file`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has no certificate in it, or one that cannot be used.
    pub(crate) fn open(file: Option<&Path>) -> Result<Trust, String> {
        let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        if let Some(file) = file {
            add(&mut roots, file).map_err(|why| format!("--trust {}: {why}", file.display()))?;
        }
        // Named, so that another provider in this program is no ambiguity.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust(Arc::new(config)))
    }

    /// For servers that are asked over HTTP.
    pub(crate) fn http(&self) -> client::Tls {
        client::Tls::new(self.config())
    }

    /// For the database at `url`. With `sslrootcert` the URL says by itself whom to trust; without `sslmode` it is spoken to
    /// in clear.
    ///
    /// # Errors
    ///
    /// The URL says what the driver does not know, or names a file that cannot be used.
    pub(crate) fn database(&self, url: &SecretUrl) -> Result<DatabaseOptions, bequest_postgres::Error> {
        let options = DatabaseOptions::from_url(url.expose())?;
        let is_ours = url.says("sslmode") && !url.says("sslrootcert");
        Ok(match is_ours {
            true => options.tls(DatabaseTls::from_config(self.config())),
            false => options,
        })
    }

    /// For the cache at `url`.
    pub(crate) fn cache(&self, url: &SecretUrl) -> CacheOptions {
        CacheOptions::new(url.expose()).tls_config(self.config())
    }

    fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.0)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// Adds every certificate in `file`.
fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut number = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        number += 1;
        let wrong = |error: &dyn fmt::Display| format!("certificate {number} cannot be used: {error}");
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    match number {
        0 => Err("there is no certificate in it".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::Scratch;

    fn refused(content: Option<&str>) -> String {
        let scratch = Scratch::new().unwrap();
        let file = scratch.path().join("authorities.pem");
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let why = Trust::open(Some(&file)).unwrap_err();
        assert!(why.contains(&format!("--trust {}: ", file.display())), "{why}");
        why
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_refused_and_says_why() {
        assert!(refused(None).contains("No such file"));
        assert!(refused(Some("")).contains("no certificate"));
        assert!(refused(Some("not PEM")).contains("no certificate"));
        // A key in place of the certificate.
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert!(refused(Some(&made.signing_key.serialize_pem())).contains("no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refused(Some(broken)).contains("certificate 1 cannot be used"));
        let second = made.cert.pem() + broken;
        assert!(refused(Some(&second)).contains("certificate 2 cannot be used"));
    }

    #[test]
    fn a_url_says_by_itself_whether_and_whom() {
        let trust = Trust::open(None).unwrap();
        let words = |words: &str| {
            let url = format!("postgres://ann:s3cret@db.test/shop{words}")
                .parse()
                .unwrap();
            trust
                .database(&url)
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        for known in ["", "?sslmode=disable", "?sslmode=require", "?sslmode=verify-full"] {
            assert_eq!(words(known), Ok(()), "{known}");
        }
        for (unknown, says) in [
            ("?sslmode=allow", "sslmode"),
            ("?sslmode=require&sslcert=ann.crt", "sslcert"),
            ("?sslmode=require&sslkey=ann.key", "sslkey"),
            ("?sslmode=require&sslrootcert=/no/such/file", "/no/such/file"),
        ] {
            let why = words(unknown).unwrap_err();
            assert!(why.contains(says) && !why.contains("s3cret"), "{why}");
        }
    }
}
