//! Certificates that a test creates, and a client that trusts exactly one of them.

use std::path::Path;
use std::sync::Arc;

use madang_chat_server::config::TlsConfig;
use rcgen::{CertifiedKey, KeyPair, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in the certificates.
const NAME: &str = "127.0.0.1";

/// A self-signed certificate of this machine, with its key.
pub struct Certificate {
    der: CertificateDer<'static>,
    /// The certificate.
    pub cert_pem: String,
    /// The key, as PKCS#8.
    pub key_pem: String,
    /// The key, as PKCS#8.
    pub key_der: Vec<u8>,
}

impl Certificate {
    /// Creates one with a key on the curve P-256.
    #[must_use]
    pub fn new() -> Self {
        Self::of(rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap())
    }

    /// Creates one with an RSA key.
    #[must_use]
    pub fn with_rsa() -> Self {
        let algorithm: &'static SignatureAlgorithm = &PKCS_RSA_SHA256;
        let signing_key = KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        Self::of(CertifiedKey { cert, signing_key })
    }

    fn of(CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair>) -> Self {
        Self {
            cert_pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
            key_der: signing_key.serialize_der(),
            der: cert.der().clone(),
        }
    }

    /// Writes both files into a folder; returns the server's configuration for them.
    #[must_use]
    pub fn write(&self, folder: &Path) -> TlsConfig {
        let config =
            TlsConfig { cert: folder.join("cert.pem"), key: folder.join("key.pem"), ..TlsConfig::default() };
        std::fs::write(&config.cert, &self.cert_pem).unwrap();
        std::fs::write(&config.key, &self.key_pem).unwrap();
        // Avoids the warning about a key that every user of the machine can read.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&config.key, private).unwrap();
        config
    }

    /// A client's TLS handshake over a stream, offering these protocols by ALPN. It trusts this certificate only.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<S>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}
