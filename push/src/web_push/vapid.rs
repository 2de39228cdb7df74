//! The server proves to push services who it is (RFC 8292).

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use madang_ids::Millis;
use serde::Serialize;

/// How long a token is valid; the limit is a day.
const VALID_SECONDS: u64 = 12 * 3_600;
/// A token is used for this long: push services want the same one for an hour or more.
const USED_SECONDS: u64 = 6 * 3_600;
/// Push services for which tokens are kept.
const ORIGINS: usize = 256;

/// The key of this server, and the tokens that it has signed.
pub struct Vapid {
    key: EncodingKey,
    public: String,
    subject: String,
    /// For each origin the token and when it was signed, in seconds.
    tokens: BTreeMap<String, (String, u64)>,
}

/// Why a key is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VapidError {
    /// Not a key.
    #[error("push.web_push.key_file is not a private key of P-256 in PKCS #8 (PEM)")]
    Key,
    /// Push services refuse tokens without a way to reach the operator.
    #[error("push.web_push.contact must be a mailto: address or an https: URL of a real domain")]
    Subject,
    /// The token was not signed.
    #[error("a token was not signed")]
    Signature,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: u64,
    sub: &'a str,
}

impl Vapid {
    /// Reads a private key in PEM. `subject` is a `mailto:` or `https:` URL of the operator.
    ///
    /// # Errors
    /// [`VapidError`] names the key of the configuration.
    pub fn new(pem: &str, subject: &str) -> Result<Self, VapidError> {
        let der = der(pem).ok_or(VapidError::Key)?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| VapidError::Key)?;
        let key = EncodingKey::from_ec_der(&der);
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let address = subject.strip_prefix("mailto:").and_then(|address| address.split_once('@'));
        let host = address.map(|(_, host)| host).or(subject.strip_prefix("https://"));
        let host = host.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
        // Apple refuses the whole token for a subject such as `mailto:a@localhost`.
        if !host.is_some_and(|host| host.contains('.') && !host.ends_with('.')) {
            return Err(VapidError::Subject);
        }
        Ok(Self { key, public, subject: subject.to_owned(), tokens: BTreeMap::new() })
    }

    /// The public key, which a browser needs to subscribe: an uncompressed point in base64url.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The header `Authorization` for a push service: scheme, host, and the port unless it is 443.
    ///
    /// # Errors
    /// [`VapidError::Signature`].
    pub fn authorization(&mut self, origin: &str, now: Millis) -> Result<String, VapidError> {
        let seconds = now.get() / 1_000;
        let known = self.tokens.get(origin).filter(|(_, signed)| {
            // Also after a clock that was set back.
            (*signed..*signed + USED_SECONDS).contains(&seconds)
        });
        let token = match known {
            Some((token, _)) => token.clone(),
            None => {
                let claims = Claims { aud: origin, exp: seconds + VALID_SECONDS, sub: &self.subject };
                let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
                    .map_err(|_| VapidError::Signature)?;
                self.make_room();
                self.tokens.insert(origin.to_owned(), (token.clone(), seconds));
                token
            }
        };
        Ok(format!("vapid t={token}, k={}", self.public))
    }

    fn make_room(&mut self) {
        if self.tokens.len() >= ORIGINS
            && let Some(oldest) = self.tokens.iter().min_by_key(|(_, (_, signed))| *signed)
        {
            let oldest = oldest.0.clone();
            self.tokens.remove(&oldest);
        }
    }
}

impl std::fmt::Debug for Vapid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vapid").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The content of the first `PRIVATE KEY` of a PEM file.
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    const NOW: Millis = Millis::new(1_800_000_000_000);
    const ORIGIN: &str = "https://push.example.net";

    fn pem() -> String {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(pkcs8.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    fn vapid() -> Vapid {
        Vapid::new(&pem(), "mailto:ops@example.net").unwrap()
    }

    fn token(header: &str) -> &str {
        header.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap().0
    }

    #[test]
    fn a_token_names_the_push_service_the_operator_and_an_end_within_a_day() {
        let mut vapid = vapid();
        let header = vapid.authorization(ORIGIN, NOW).unwrap();
        let point = URL_SAFE_NO_PAD.decode(vapid.public()).unwrap();
        assert_eq!((point.len(), point[0], vapid.public().len()), (65, 4, 87));
        assert!(header.ends_with(&format!(", k={}", vapid.public())));
        let (x, y) = (&point[1..33], &point[33..]);
        let key =
            DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y)).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[ORIGIN]);
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(token(&header), &key, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "mailto:ops@example.net");
        assert_eq!(claims["exp"], 1_800_000_000 + 43_200);
    }

    #[test]
    fn a_token_is_used_again_for_the_same_push_service_only() {
        let mut vapid = vapid();
        let first = vapid.authorization(ORIGIN, NOW).unwrap();
        assert_eq!(vapid.authorization(ORIGIN, NOW.plus(3_600_000)).unwrap(), first);
        assert_ne!(vapid.authorization(ORIGIN, NOW.plus(6 * 3_600_000)).unwrap(), first);
        assert_ne!(vapid.authorization("https://other.example.net", NOW).unwrap(), first);
        let back = Millis::new(NOW.get() - 3_600_000);
        assert_ne!(vapid.authorization(ORIGIN, back).unwrap(), first, "a clock that was set back");
    }

    #[test]
    fn tokens_of_a_bounded_number_of_push_services_are_kept() {
        let mut vapid = vapid();
        for number in 0..ORIGINS as u64 + 9 {
            vapid.authorization(&format!("https://{number}.example.net"), NOW.plus(number * 1_000)).unwrap();
        }
        assert_eq!(vapid.tokens.len(), ORIGINS);
        assert!(!vapid.tokens.contains_key("https://0.example.net"));
    }

    #[test]
    fn a_wrong_key_or_subject_is_named() {
        let refused = |pem: &str, subject| Vapid::new(pem, subject).unwrap_err();
        assert_eq!(refused("", "mailto:ops@example.net"), VapidError::Key);
        assert_eq!(refused(&pem().replace("PRIVATE", "PUBLIC"), "mailto:ops@example.net"), VapidError::Key);
        for subject in
            ["", "ops@example.net", "mailto:ops", "mailto:ops@localhost", "https://localhost/x", "http://a.b"]
        {
            assert_eq!(refused(&pem(), subject), VapidError::Subject, "{subject}");
        }
        assert!(Vapid::new(&pem(), "https://example.net/contact").is_ok());
    }
}
