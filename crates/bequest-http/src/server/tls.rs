//! TLS in front of HTTP, by rustls: the settings, the handshake as a stage of the connection, and what it has shown.
//!
//! The protocol itself is rustls's, names of servers (SNI) and clients' certificates included: whoever wants those brings a
//! [`rustls::ServerConfig`] that says so. What lives here is when a handshake begins, how long it may take, and who hears of
//! its end.
//!
//! # Invariants
//!
//! 1. A connection whose handshake fails has no connection context and no request: neither hook nor handler sees it.
//! 2. A handshake ends by its own limit, by the drain of the server, or by the client, each with its reason.
//! 3. Certificates are replaced whole or not at all, and only for handshakes that begin afterwards.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bequest::{Canceled, Reason};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ProtocolVersion, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::BoxError;
use super::peer::PeerState;
use super::shared::Shared;
use super::socket::Socket;
use super::transport::Transport;

/// What this crate speaks, in the order in which it would rather (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A server's certificates and settings for TLS. A handle: clones share what is [replaced](Tls::replace).
///
/// # Example: a server whose certificate is renewed while it runs
///
/// ```
/// use bequest_http::Server;
/// use bequest_http::server::Tls;
///
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes())?;
/// let server = Server::builder().tls(tls.clone());
///
/// // … later, when the file has changed:
/// # let (new_chain, new_key) = (chain, key);
/// tls.replace_pem(new_chain.as_bytes(), new_key.as_bytes())?;
/// assert!(tls.replace_pem(b"", new_key.as_bytes()).unwrap_err().is_certificate());
/// # Ok::<(), bequest_http::server::TlsError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    /// Read once for each handshake, and written by `replace`.
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

/// Certificates or a key can not be used.
#[derive(Debug)]
pub struct TlsError {
    at_fault: AtFault,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtFault {
    Certificate,
    Key,
    Both,
}

/// What the handshake of a connection has shown. Found in its [`ConnInfo`](super::ConnInfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
    version: Option<ProtocolVersion>,
    peer_certificates: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// TLS with these settings. If they name no protocol for ALPN, `h2` and `http/1.1` are offered.
    pub fn new(config: ServerConfig) -> Tls {
        Tls {
            config: Arc::new(Mutex::new(with_alpn(config))),
        }
    }

    /// TLS 1.2 and 1.3 with this chain of certificates, the server's own first, and its key, both as PEM (RFC 7468).
    /// Clients are not asked for certificates.
    ///
    /// # Errors
    ///
    /// If there is no certificate or no key, or one of them can not be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
        of_pem(chain, key).map(Tls::new)
    }

    /// Uses these settings for all handshakes that begin from now on. Connections that are open stay as they are.
    pub fn replace(&self, config: ServerConfig) {
        let config = with_alpn(config);
        let former = {
            let mut present = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *present, config)
        };
        // Outside the lock, as a resolver of certificates may be anything.
        drop(former);
    }

    /// Uses this chain and key, as [`from_pem`](Tls::from_pem) does, for all handshakes that begin from now on.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Tls::from_pem). What was used before is then used further.
    pub fn replace_pem(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.replace(of_pem(chain, key)?);
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TlsInfo {
    /// The protocol that was agreed on (ALPN, RFC 7301), such as `h2`; `None` if the client named none.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name under which the client reached the server (SNI, RFC 6066).
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The version of TLS.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// The client's certificates as it sent them, its own first; none unless the settings ask for them. rustls has verified
    /// them in the way that the settings say.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }
}

/// Brings a connection through its handshake. Otherwise says how that ended.
pub(super) async fn secure(
    server: &Shared,
    tls: &Tls,
    mut socket: Socket,
) -> Result<(Transport, TlsInfo), Canceled> {
    let scope = server
        .draining
        .with_timeout(server.limits.handshake)
        .named("handshake")
        .reason(Reason::Limit("handshake"));
    let first_byte = server
        .draining
        .timeout(server.limits.first_byte, socket.first_byte());
    let failure = match first_byte.await {
        // A failure of the socket shows in the handshake as well.
        Ok(_) => match scope.run(TlsAcceptor::from(tls.config()).accept(socket)).await {
            Ok(Ok(stream)) => {
                let info = TlsInfo::of(stream.get_ref().1);
                return Ok((Transport::Tls(Box::new(stream)), info));
            }
            Ok(Err(error)) => error,
            Err(end) => return Err(end),
        },
        Err(_) => {
            scope.cancel_for(match server.draining.is_done() {
                true => Reason::Shutdown,
                false => Reason::Limit("first byte"),
            });
            return Err(scope.err().expect("cancelled above"));
        }
    };
    match failure.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => scope.cancel_for(Reason::ClientGone),
        _ => match PeerState::of_error(&failure).reason() {
            Some(Reason::Unreachable) => scope.cancel_for(Reason::Unreachable),
            _ => scope.cancel_with(failure),
        },
    }
    Err(scope.err().expect("cancelled above"))
}

fn of_pem(chain: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::of(AtFault::Certificate, error))?;
    if chain.is_empty() {
        let (at_fault, source) = (AtFault::Certificate, None);
        return Err(TlsError { at_fault, source });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::of(AtFault::Key, error))?;
    // Named, so that another provider in the same program is no ambiguity.
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| TlsError::of(AtFault::Both, error))
}

fn with_alpn(mut config: ServerConfig) -> Arc<ServerConfig> {
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    }
    Arc::new(config)
}

impl TlsInfo {
    fn of(session: &rustls::ServerConnection) -> TlsInfo {
        let certificates = session.peer_certificates().unwrap_or_default();
        TlsInfo {
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            server_name: session.server_name().map(str::to_owned),
            version: session.protocol_version(),
            peer_certificates: certificates
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
        }
    }
}

impl TlsError {
    fn of(at_fault: AtFault, source: impl Into<BoxError>) -> TlsError {
        TlsError {
            at_fault,
            source: Some(source.into()),
        }
    }

    /// Whether the chain of certificates is at fault, perhaps together with the key.
    pub fn is_certificate(&self) -> bool {
        self.at_fault != AtFault::Key
    }

    /// Whether the key is at fault, perhaps together with the certificates.
    pub fn is_key(&self) -> bool {
        self.at_fault != AtFault::Certificate
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.at_fault, &self.source) {
            (AtFault::Certificate, None) => "no certificate is there",
            (AtFault::Certificate, Some(_)) => "a certificate can not be read",
            (AtFault::Key, _) => "no private key can be read",
            (AtFault::Both, _) => "the certificates and the key can not be used",
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_can_not_be_used_is_an_error_that_says_what() {
        let ((chain, key), (_, other)) = (made(), made());
        assert!(Tls::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
        let error = Tls::from_pem(b"no certificate", key.as_bytes()).expect_err("none is there");
        assert!(error.is_certificate() && !error.is_key(), "{error}");
        let error = Tls::from_pem(chain.as_bytes(), chain.as_bytes()).expect_err("no key");
        assert!(error.is_key() && !error.is_certificate(), "{error}");
        let error = Tls::from_pem(chain.as_bytes(), other.as_bytes()).expect_err("they do not match");
        assert!(error.is_key() && error.is_certificate(), "{error}");
    }

    #[test]
    fn protocols_that_are_named_stay() {
        let (chain, key) = made();
        let mut config = of_pem(chain.as_bytes(), key.as_bytes()).expect("a certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        assert_eq!(Tls::new(config).config().alpn_protocols, [b"http/1.1"]);
        let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes()).expect("a certificate");
        assert_eq!(tls.config().alpn_protocols, ALPN);
    }

    #[test]
    fn a_replacement_that_can_not_be_used_changes_nothing() {
        let (chain, key) = made();
        let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes()).expect("a certificate");
        let before = tls.config();
        assert!(tls.replace_pem(chain.as_bytes(), b"").is_err());
        assert!(Arc::ptr_eq(&before, &tls.config()));
        tls.replace_pem(chain.as_bytes(), key.as_bytes())
            .expect("the same");
        assert!(!Arc::ptr_eq(&before, &tls.config()));
    }
}
