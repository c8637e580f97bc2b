//! TLS on the way out, by rustls: whom a client trusts, and the connector that speaks it.
//!
//! The handshake is a part of the dial: it is under the same limit, a request that is given up leaves it behind in the same
//! way, and what comes of it is kept. Which protocol is spoken is agreed on in it (ALPN, RFC 7301): `h2` if the peer has it.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::BoxError;
use super::dial::Connector;

/// Whom a client trusts, and the rest of its settings for TLS. A handle: cloning it is cheap.
///
/// ```
/// use bequest_http::client::{Client, Tls};
///
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
/// # let authority = made.cert.pem();
/// // The authority of a company's own services, as PEM.
/// let client = Client::builder().build_tls(Tls::roots_from_pem(authority.as_bytes())?);
/// # drop(client);
/// assert!(Tls::roots_from_pem(b"not PEM").is_err());
/// # Ok::<(), bequest_http::client::TlsError>(())
/// ```
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

/// The authorities that a client is to trust cannot be used.
#[derive(Debug)]
pub struct TlsError(Option<BoxError>);

impl Tls {
    /// TLS with these settings, for example with a client's certificate. If they name no protocol for ALPN, `h2` and
    /// `http/1.1` are offered.
    pub fn new(config: ClientConfig) -> Tls {
        Tls(Arc::new(config))
    }

    /// Trusts these authorities, as PEM (RFC 7468), and nobody else. TLS 1.2 and 1.3.
    ///
    /// # Errors
    ///
    /// If there is no certificate, or one of them cannot be read or used.
    pub fn roots_from_pem(authorities: &[u8]) -> Result<Tls, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            roots
                .add(authority.map_err(TlsError::of)?)
                .map_err(TlsError::of)?;
        }
        match roots.is_empty() {
            true => Err(TlsError(None)),
            false => Tls::trusting(roots),
        }
    }

    /// Trusts the authorities that Mozilla does, as they were when this program was built (feature `webpki-roots`).
    ///
    /// # Errors
    ///
    /// If the cryptography offers no version of TLS, which ring does.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki_roots() -> Result<Tls, TlsError> {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Tls::trusting(roots)
    }

    /// Trusts the authorities that the system does, as they are now (feature `native-roots`). It reads files, and is for a
    /// program's beginning.
    ///
    /// # Errors
    ///
    /// If the system has none, or none that can be read and used. Single ones that cannot be used are left out.
    #[cfg(feature = "native-roots")]
    pub fn native_roots() -> Result<Tls, TlsError> {
        let mut found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        match roots.is_empty() {
            true => Err(TlsError(found.errors.pop().map(Into::into))),
            false => Tls::trusting(roots),
        }
    }

    fn trusting(roots: RootCertStore) -> Result<Tls, TlsError> {
        // Named, so that another provider in the same program is no ambiguity.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::of)?;
        Ok(Tls::new(
            builder.with_root_certificates(roots).with_no_client_auth(),
        ))
    }

    /// The settings for a client that speaks HTTP/2 alone, or either protocol.
    fn config(self, is_http2: bool) -> Arc<ClientConfig> {
        let mut config = self.0;
        if config.alpn_protocols.is_empty() {
            let offered: &[&[u8]] = match is_http2 {
                true => &[b"h2"],
                false => &[b"h2", b"http/1.1"],
            };
            Arc::make_mut(&mut config).alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        }
        config
    }
}

/// A connector that speaks TLS to `https` and leaves `http` as it is, around one that connects to both.
#[derive(Clone)]
pub struct Https<C = HttpConnector> {
    connector: C,
    tls: TlsConnector,
}

/// A connection made by [`Https`].
pub struct HttpsStream<T>(Inner<T>);

enum Inner<T> {
    Plain(T),
    Tls(Box<TokioIo<TlsStream<TokioIo<T>>>>),
}

impl<C> Https<C> {
    pub(super) fn new(connector: C, tls: Tls, is_http2: bool) -> Https<C> {
        let tls = TlsConnector::from(tls.config(is_http2));
        Https { connector, tls }
    }
}

impl<C: Connector> Service<Uri> for Https<C> {
    type Response = HttpsStream<C::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        // The clone that connects is the one that is waited for.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut connector, tls) = (self.connector.clone(), self.tls.clone());
        Box::pin(async move {
            let is_secure = match uri.scheme_str() {
                Some("https") => true,
                Some("http") => false,
                _ => return Err("neither http nor https".into()),
            };
            let name = server_name(&uri)?;
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
            let plain = connector.call(uri).await.map_err(Into::into)?;
            if !is_secure {
                return Ok(HttpsStream(Inner::Plain(plain)));
            }
            let secure = tls.connect(name, TokioIo::new(plain)).await?;
            Ok(HttpsStream(Inner::Tls(Box::new(TokioIo::new(secure)))))
        })
    }
}

/// Whom the peer's certificate has to name.
fn server_name(uri: &Uri) -> Result<ServerName<'static>, BoxError> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(ServerName::try_from(host.to_owned())?)
}

impl<T: Read + Write + Unpin> Read for HttpsStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Inner::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl<T: Read + Write + Unpin> Write for HttpsStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Inner::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Plain(io) => Pin::new(io).poll_flush(cx),
            Inner::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Inner::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Plain(io) => io.is_write_vectored(),
            Inner::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Inner::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }
}

impl<T: Connection> Connection for HttpsStream<T> {
    fn connected(&self) -> Connected {
        match &self.0 {
            Inner::Plain(io) => io.connected(),
            Inner::Tls(io) => {
                let (plain, session) = io.inner().get_ref();
                let connected = plain.inner().connected();
                match session.alpn_protocol() {
                    Some(b"h2") => connected.negotiated_h2(),
                    _ => connected,
                }
            }
        }
    }
}

impl TlsError {
    fn of(source: impl Into<BoxError>) -> TlsError {
        TlsError(Some(source.into()))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "an authority cannot be used",
            None => "no authority is there",
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|source| source as _)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<C: fmt::Debug> fmt::Debug for Https<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https")
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for HttpsStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Inner::Plain(_) => "HttpsStream(http)",
            Inner::Tls(_) => "HttpsStream(https)",
        })
    }
}
