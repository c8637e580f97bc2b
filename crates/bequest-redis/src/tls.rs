//! TLS by rustls and ring: whom we trust, and the greeting.
//!
//! Not here: sockets, and whether TLS is spoken at all (the URL says so, by `rediss`).
//!
//! # Invariants
//!
//! 1. The server's certificate is always verified, and so is that it is for the host of the URL (of a cluster: for the host by
//!    which the cluster names the node). Nothing switches that off but a configuration that brings a verifier of its own.
//! 2. No key is ever printed.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, RedisResult};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What was chosen, as it was given.
#[derive(Clone, Default)]
pub(crate) struct TlsChoice {
    /// Everything; the others are then not looked at.
    pub(crate) config: Option<Arc<ClientConfig>>,
    /// PEM; `None`: the system's.
    pub(crate) roots: Option<Vec<u8>>,
    /// The chain and the key, PEM.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

pub(crate) type TlsSocket = tokio_rustls::client::TlsStream<TcpStream>;

/// How TLS is spoken; clones share it, and with it the sessions that can be resumed.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    pub(crate) fn new(choice: &TlsChoice) -> RedisResult<Tls> {
        if let Some(config) = &choice.config {
            return Ok(Tls(TlsConnector::from(Arc::clone(config))));
        }
        let roots = match &choice.roots {
            Some(pem) => chosen(pem)?,
            None => of_the_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS cannot be set up", error))?
            .with_root_certificates(roots);
        let config = match &choice.client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| wrong("the client's key is no PEM key", error))?;
                config
                    .with_client_auth_cert(certificates(chain)?, key)
                    .map_err(|error| wrong("the client's certificate and key do not fit", error))?
            }
        };
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn greet(&self, host: &str, socket: TcpStream) -> RedisResult<TlsSocket> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| wrong("a certificate cannot be for such a host", error))?;
        Ok(self.0.connect(name, socket).await?)
    }
}

/// Whether the two could not agree in TLS, such as on a certificate: trying again changes nothing.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    let Some(source) = error.source() else {
        return false;
    };
    // The driver shares the error of the socket, and hands out the share.
    let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
    let io = match shared {
        Some(shared) => shared.downcast_ref::<io::Error>(),
        None => source.downcast_ref::<io::Error>(),
    };
    io.and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

fn chosen(pem: &[u8]) -> RedisResult<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| wrong("a root certificate is not one", error))?;
    }
    Ok(roots)
}

fn of_the_system() -> RedisResult<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // A broken one among many is no reason to trust none; no server that needs it will be trusted.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(crate::endpoint::unfit("the system has no root certificates"));
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> RedisResult<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| wrong("the certificates are no PEM", error))?;
    if all.is_empty() {
        return Err(crate::endpoint::unfit("there is no certificate in the PEM"));
    }
    Ok(all)
}

fn wrong(what: &'static str, error: impl fmt::Display) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, what, error.to_string()))
}
