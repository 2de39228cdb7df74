//! Which certificates a client accepts over TLS: those that lead to a root certificate of the system, or to one that
//! the program adds.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::ClientError;

/// The only protocol that this client offers by ALPN. A WebSocket over HTTP/2 is another handshake (RFC 8441).
const ALPN: &[u8] = b"http/1.1";

/// The system's root certificates, read at the first connection that needs them: a hundred and more files.
static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// The root certificates that a client trusts. Cheap to clone. The default trusts the system's root certificates.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The system's root certificates and those of a file.
    added: Option<Arc<ClientConfig>>,
}

impl Trust {
    /// Trusts the system's root certificates, and those of a PEM file in addition: for servers whose certificates an
    /// authority of their own has signed. A self-signed certificate of a server is such a root certificate itself.
    ///
    /// # Errors
    /// [`ClientError::Trust`] if the file cannot be read or contains no certificate.
    pub fn with_root_file(path: &Path) -> Result<Self, ClientError> {
        let failed = |what: String| ClientError::Trust(format!("{}: {what}", path.display()));
        let mut roots = system_roots();
        let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        let mut count = 0;
        for certificate in found {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(failed("contains no certificate".to_owned()));
        }
        Ok(Self { added: Some(config(roots)?) })
    }

    /// The configuration of a TLS connection.
    ///
    /// # Errors
    /// [`ClientError::Trust`] if the system has no root certificates.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, ClientError> {
        if let Some(config) = self.added.as_ref().or_else(|| SYSTEM.get()) {
            return Ok(Arc::clone(config));
        }
        let roots = system_roots();
        if roots.is_empty() {
            return Err(ClientError::Trust("the system has no root certificates".to_owned()));
        }
        let read = config(roots)?;
        Ok(Arc::clone(SYSTEM.get_or_init(|| read)))
    }
}

/// The system's root certificates. Those that cannot be read are left out: a server whose certificate needs one of them
/// is refused with its name.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, ClientError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Trust(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        for content in ["", "no certificate at all"] {
            std::fs::write(&path, content).unwrap();
            let refusal = Trust::with_root_file(&path).unwrap_err().to_string();
            assert!(
                refusal.contains("roots.pem") && refusal.contains("contains no certificate"),
                "{refusal}"
            );
        }
        assert!(Trust::with_root_file(&folder.path().join("absent.pem")).is_err());
    }
}
