//! Operators of a server: their secrets, and the tokens for which they are exchanged.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use madang_ids::Millis;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::invitation::DIGITS;
use crate::tokens::{MAX_TOKEN_BYTES, TokenError};

/// The lifetime of a token.
pub const OPERATOR_TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
/// Begins every secret, so that a scanner of logs and repositories finds one.
const PREFIX: &str = "mop_";
/// Number of digits after the prefix: 160 bits, which nobody guesses.
const LENGTH: usize = 32;
const ISSUER: &str = "madang";
/// The media type, so that a token of a user is never accepted as one of an operator, nor the other way round (RFC 8725, 3.11).
const TYPE: &str = "op+jwt";

/// The secret of an operator. Servers store only its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorSecret(String);

impl OperatorSecret {
    /// Draws a new secret.
    #[must_use]
    pub fn random() -> Self {
        let bytes: [u8; LENGTH] = rand::random();
        let digits = bytes.map(|byte| char::from(DIGITS[usize::from(byte % 32)]));
        Self(format!("{PREFIX}{}", String::from_iter(digits)))
    }

    /// The text to give to the operator.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of it. A slow hash is not needed: nobody guesses 160 bits.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorSecret")
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a text is the secret with this hash. Takes the same time for every text of one length.
#[must_use]
pub fn is_operator_secret(text: &str, expected: &[u8; 32]) -> bool {
    text.len() == PREFIX.len() + LENGTH && verify_slices_are_equal(&hash(text), expected).is_ok()
}

/// Mints and verifies tokens of operators.
#[derive(Clone)]
pub struct OperatorTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for OperatorTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorTokens")
    }
}

/// Content of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorClaims {
    /// The operator's name.
    pub name: String,
    /// Names the secret for which it was minted: the token ends with that secret.
    pub credential: String,
    /// The end of its validity.
    pub ends_at: Millis,
}

#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    sub: String,
    cred: String,
    exp: u64,
}

impl OperatorTokens {
    /// Uses `secret`.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        // The library would read the system clock; `verify` compares with the given time.
        validation.validate_exp = false;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let (signing, verifying) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Self { signing, verifying, validation }
    }

    /// Signs a token; returns it with the end of its validity.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] if the library cannot sign. With HMAC it always can.
    pub fn mint(&self, name: &str, hash: &[u8; 32], now: Millis) -> Result<(String, Millis), TokenError> {
        let exp = now.get() / 1_000 + OPERATOR_TOKEN_TTL.as_secs();
        let claims = WireClaims { iss: ISSUER.to_owned(), sub: name.to_owned(), cred: credential(hash), exp };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|_| TokenError::Invalid)?;
        Ok((token, Millis::new(exp * 1_000)))
    }

    /// Checks signature, algorithm, type, issuer and expiry of a token.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for an expired token of this server, [`TokenError::Invalid`] for everything else.
    pub fn verify(&self, token: &str, now: Millis) -> Result<OperatorClaims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let decoded = jsonwebtoken::decode::<WireClaims>(token, &self.verifying, &self.validation);
        let decoded = decoded.map_err(|_| TokenError::Invalid)?;
        if decoded.header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Invalid);
        }
        let WireClaims { sub, cred, exp, .. } = decoded.claims;
        let ends_at = Millis::new(exp.saturating_mul(1_000));
        if now >= ends_at {
            return Err(TokenError::Expired);
        }
        Ok(OperatorClaims { name: sub, credential: cred, ends_at })
    }
}

/// Names a secret without revealing its hash.
#[must_use]
pub fn credential(hash: &[u8; 32]) -> String {
    let digest = Sha256::digest(hash);
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokens;
    use madang_ids::{DeviceId, UserId};

    const NOW: Millis = Millis::new(1_800_000_000_000);

    #[test]
    fn only_the_whole_secret_is_accepted() {
        let (secret, other) = (OperatorSecret::random(), OperatorSecret::random());
        assert_ne!(secret, other);
        assert!(is_operator_secret(secret.reveal(), &secret.hash()));
        for wrong in ["", PREFIX, other.reveal(), &secret.reveal()[1..], &format!("{}0", secret.reveal())] {
            assert!(!is_operator_secret(wrong, &secret.hash()), "{wrong}");
        }
        assert_eq!(format!("{secret:?}"), "OperatorSecret");
    }

    #[test]
    fn a_token_is_of_an_operator_and_ends_after_fifteen_minutes() {
        let (key, hash) = ([7; 32], [9; 32]);
        let tokens = OperatorTokens::new(&key);
        let (token, ends_at) = tokens.mint("ada", &hash, NOW).unwrap();
        assert_eq!(ends_at, NOW.plus(900_000));
        let claims = tokens.verify(&token, NOW).unwrap();
        assert_eq!((claims.name.as_str(), claims.credential), ("ada", credential(&hash)));
        assert_eq!(tokens.verify(&token, ends_at), Err(TokenError::Expired));
        assert_eq!(OperatorTokens::new(&[8; 32]).verify(&token, NOW), Err(TokenError::Invalid));
        // Signed with the same secret, and still no operator.
        let users = Tokens::new(&key, Duration::from_secs(900));
        let (of_user, _) = users.mint(UserId::from_raw(1), DeviceId::from_raw(2), NOW).unwrap();
        assert_eq!(tokens.verify(&of_user, NOW), Err(TokenError::Invalid));
        assert!(users.verify(&token, NOW).is_err());
    }
}
