//! A certificate authority that lives as long as the sandbox, and the certificate of its faces.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// The names in the certificate. A client that resolves names itself may use the last ones.
const NAMES: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "push.example.test",
    "apns.example.test",
    "fcm.example.test",
    "hook.example.test",
];
/// The only protocol of the faces (RFC 9113, section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";

/// What clients trust, and what the faces present.
pub(crate) struct Identity {
    pub(crate) ca_pem: String,
    pub(crate) acceptor: TlsAcceptor,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The configuration of TLS.
    #[error("TLS could not be set up")]
    Rustls(#[from] rustls::Error),
}

impl Identity {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let authority = authority()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, "Madang push sandbox");
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { ca_pem: authority.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Madang push sandbox, for tests only");
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}
