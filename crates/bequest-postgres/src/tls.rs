//! TLS by rustls: whom to trust.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// The name of the protocol, which servers ask for from version 17 on when TLS comes first (`sslnegotiation=direct`).
const PROTOCOL: &[u8] = b"postgresql";

/// How connections are encrypted, and whom they trust: for [`Options::tls`](crate::Options::tls).
///
/// The server must have a certificate for the name (or address) by which it is reached, signed by somebody who is trusted.
/// That is `sslmode=verify-full`. What others do with `sslmode=require`, encrypting to whoever answers, is not done.
/// Passwords are bound to the certificate where the server can (`channel_binding`).
///
/// # Example
///
/// ```
/// use bequest_postgres::{Options, Tls};
///
/// let options = Options::from_url("postgres://ana@db.example/shop?sslmode=require")?.tls(Tls::system()?);
/// assert!(Tls::trusting(b"no certificate").is_err());
/// # Ok::<(), bequest_postgres::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    connector: MakeRustlsConnect,
}

impl Tls {
    /// Trusts whom this system trusts.
    ///
    /// # Errors
    ///
    /// If it trusts nobody, or does not tell.
    pub fn system() -> Result<Tls, Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        match found.errors.into_iter().next() {
            _ if added > 0 => Tls::with_roots(roots),
            Some(error) => Err(Error::settings(format!("this system's certificates: {error}"))),
            None => Err(Error::settings("this system trusts no certificate")),
        }
    }

    /// Trusts the certificates in `pem`, and nobody else: a private authority's.
    ///
    /// # Errors
    ///
    /// If there is none in it, or one that is none.
    pub fn trusting(pem: &[u8]) -> Result<Tls, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate.map_err(|error| error.to_string());
            added
                .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
                .map_err(|error| Error::settings(format!("a certificate to trust: {error}")))?;
        }
        if roots.is_empty() {
            return Err(Error::settings("there is no certificate to trust"));
        }
        Tls::with_roots(roots)
    }

    /// As `config` says, in every respect: certificates of our own, other verifiers. If it names no protocol for ALPN,
    /// `postgresql` is offered.
    pub fn from_config(mut config: ClientConfig) -> Tls {
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
        }
        Tls {
            connector: MakeRustlsConnect::new(config),
        }
    }

    fn with_roots(roots: RootCertStore) -> Result<Tls, Error> {
        // By name, since what the process has as its default is not ours to choose, or to rely on.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::settings(error.to_string()))?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Tls::from_config(config))
    }

    pub(crate) async fn handshake(
        &self,
        socket: TcpStream,
        name: &str,
    ) -> io::Result<Box<dyn TlsStream + Send + Unpin>> {
        let mut connector = self.connector.clone();
        let connect = match MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, name) {
            Ok(connect) => connect,
            Err(never) => match never {},
        };
        Ok(Box::new(connect.connect(socket).await?))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
