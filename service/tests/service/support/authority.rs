//! A private authority that nobody trusts who was not told to, made on the spot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate of its making, and its key.
pub(crate) struct Identity {
    chain: CertificateDer<'static>,
    key: KeyPair,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // A name of its own: of two with the same, one would be taken for the other, and its signature for a broken one.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("authority {} of a test", LAST.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// What whoever is to trust it is given.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this host.
    pub(crate) fn certify(&self, host: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a host");
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            chain: signed.der().clone(),
            certificate: signed.pem(),
            key,
        }
    }
}

impl Identity {
    /// The key, as PEM.
    pub(crate) fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// What a server says and speaks with it.
    pub(crate) fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.clone()], key)
            .expect("they belong together")
    }
}
