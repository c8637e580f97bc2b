//! The client's end of a connection, in clear or with TLS, held by whoever writes to it and whoever leaves with it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What HTTP goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    /// Asking for this protocol, by ALPN.
    Tls(&'static [u8]),
}

/// A stream that several hold; it is closed when the last one lets go.
#[derive(Clone)]
pub(crate) struct Stream(Arc<Mutex<Inner>>);

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<KeepsOpen>>),
}

/// A socket that a farewell of TLS leaves open.
struct KeepsOpen(TcpStream);

/// The server's certificate and key.
struct Certificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

/// Made once.
fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a certificate");
        Certificate {
            pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            der: made.cert.into(),
            key: made.signing_key.into(),
        }
    })
}

/// The same as files, for programs that want such.
pub(crate) fn certificate_files() -> io::Result<(PathBuf, PathBuf)> {
    let name = format!("disconnect-matrix-{}", std::process::id());
    let (pem, key) = (
        std::env::temp_dir().join(name.clone() + ".pem"),
        std::env::temp_dir().join(name + ".key"),
    );
    std::fs::write(&pem, &certificate().pem)?;
    std::fs::write(&key, &certificate().key_pem)?;
    Ok((pem, key))
}

/// What the server presents.
pub(crate) fn server_config(alpn: &[&[u8]]) -> rustls::ServerConfig {
    let certificate = certificate();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der.clone()], certificate.key.clone_key())
        .expect("a certificate with its key");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn client_config(alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate().der.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

impl Stream {
    pub(crate) async fn connect(addr: SocketAddr, over: Over) -> io::Result<Stream> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let inner = match over {
            Over::Plain => Inner::Plain(tcp),
            Over::Tls(alpn) => {
                let name = ServerName::try_from("test").map_err(io::Error::other)?;
                let connector = TlsConnector::from(Arc::new(client_config(alpn)));
                Inner::Tls(Box::new(connector.connect(name, KeepsOpen(tcp)).await?))
            }
        };
        Ok(Stream(Arc::new(Mutex::new(inner))))
    }

    /// From now on a close is a reset.
    pub(crate) fn close_is_reset(&self) -> io::Result<()> {
        self.inner().tcp().set_zero_linger()
    }

    /// Closes the sending side of the socket: a FIN, and no farewell of TLS before it.
    pub(crate) fn fin(&self) -> io::Result<()> {
        SockRef::from(self.inner().tcp()).shutdown(std::net::Shutdown::Write)
    }

    /// Sends as much as the socket takes before the server reads on.
    pub(crate) fn offer(&self, body: &[u8]) -> io::Result<()> {
        let mut cx = TaskContext::from_waker(Waker::noop());
        let mut inner = self.inner();
        let mut sent = 0;
        while sent < body.len() {
            match inner.poll_write(&mut cx, &body[sent..]) {
                Poll::Ready(more) => sent += more?,
                Poll::Pending => break,
            }
        }
        match inner.poll_flush(&mut cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(*self.inner(), Inner::Tls(_))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tcp(&self) -> &TcpStream {
        match self {
            Inner::Plain(tcp) => tcp,
            Inner::Tls(stream) => &stream.get_ref().0.0,
        }
    }

    fn poll_write(&mut self, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Inner::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self {
            Inner::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self.inner() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    /// With TLS, says the farewell and leaves the socket open.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match &mut *self.inner() {
            Inner::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for KeepsOpen {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for KeepsOpen {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
