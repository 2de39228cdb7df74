//! Keys that the sandbox makes at its start: a signing key of APNs and a service account of FCM. Nothing is stored in the tree.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A private key in PKCS #8 (PEM), and its public half.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) private_pem: String,
    /// An uncompressed point of P-256, or an `RSAPublicKey` in DER.
    pub(crate) public: Vec<u8>,
}

impl Key {
    /// A key of P-256.
    pub(crate) fn p256() -> Result<Self, Unspecified> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let private_pem = pem(pair.to_pkcs8v1()?.as_ref());
        Ok(Self { private_pem, public: pair.public_key().as_ref().to_vec() })
    }

    /// A key of RSA with 2,048 bits. All sandboxes of a process share it, because it takes up to a second to make.
    pub(crate) fn rsa() -> Result<Self, Unspecified> {
        static KEY: OnceLock<Result<Key, Unspecified>> = OnceLock::new();
        KEY.get_or_init(|| {
            let pair = rsa::KeyPair::generate(KeySize::Rsa2048)?;
            let der: Pkcs8V1Der<'static> = pair.as_der()?;
            Ok(Self { private_pem: pem(der.as_ref()), public: pair.public_key().as_ref().to_vec() })
        })
        .clone()
    }
}

/// RFC 7468, section 10.
fn pem(pkcs8: &[u8]) -> String {
    let body = STANDARD.encode(pkcs8);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}
