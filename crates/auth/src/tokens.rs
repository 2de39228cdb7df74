//! Access tokens: short-lived, signed with HS256, verified without the store. Also the rotation of refresh tokens,
//! which uses the same secret.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use madang_ids::{DeviceId, Millis, UserId};
use serde::{Deserialize, Serialize};

use crate::refresh::RefreshToken;

/// The longest text that is parsed as a token, in bytes. Our tokens have about 230.
pub const MAX_TOKEN_BYTES: usize = 4 * 1024;

/// The issuer. A token of another issuer under the same secret is refused.
const ISSUER: &str = "madang";

/// Media type of an access token (RFC 9068), so that a token of another kind is never accepted as one (RFC 8725, 3.11).
const TYPE: &str = "at+jwt";

/// Content of a verified access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The user who signed in.
    pub user_id: UserId,
    /// The user's installed client.
    pub device_id: DeviceId,
    /// The token is valid before this time. Whole seconds.
    pub expires_at: Millis,
    /// Time at which it was minted. Whole seconds.
    pub issued_at: Millis,
}

/// Reasons for which a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token that this server signed. The caller does not learn what is wrong with it.
    #[error("the token is not valid")]
    Invalid,
    /// It has expired. The refresh token gives a new one.
    #[error("the token has expired")]
    Expired,
}

/// Mints and verifies access tokens, and rotates refresh tokens. One per process; shared by reference.
#[derive(Clone)]
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    access_ttl: Duration,
    rotation: hmac::Key,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("access_ttl", &self.access_ttl).finish_non_exhaustive()
    }
}

/// The claims as RFC 7519 names them. Times are in seconds.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    sub: UserId,
    device_id: DeviceId,
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// Uses `secret`. Each access token is valid for `access_ttl` (rounded up to a whole second).
    #[must_use]
    pub fn new(secret: &[u8; 32], access_ttl: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        // The library would read the system clock; `verify` compares with the given time.
        validation.validate_exp = false;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            validation,
            access_ttl,
            rotation: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Signs a token for a device; returns it with its expiry (whole seconds, never before the ttl has passed).
    ///
    /// # Errors
    /// [`TokenError::Invalid`] if the library cannot sign. With HMAC it always can.
    pub fn mint(&self, user: UserId, device: DeviceId, now: Millis) -> Result<(String, Millis), TokenError> {
        let ttl_ms = u64::try_from(self.access_ttl.as_millis()).unwrap_or(u64::MAX);
        let exp = now.plus(ttl_ms).get().div_ceil(1000);
        let claims =
            WireClaims { iss: ISSUER.to_owned(), sub: user, device_id: device, iat: now.get() / 1000, exp };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|_| TokenError::Invalid)?;
        Ok((token, from_seconds(exp)))
    }

    /// The refresh token that replaces `old`. It is the same on every call.
    #[must_use]
    pub fn next_refresh(&self, old: &RefreshToken) -> RefreshToken {
        old.next(&self.rotation)
    }

    /// Checks signature, algorithm, type, issuer and expiry of a token, in this order. There is no leeway: a node whose
    /// clock deviates by more than 500 ms is refused elsewhere.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for an expired token of this server, [`TokenError::Invalid`] for everything else,
    /// including texts longer than [`MAX_TOKEN_BYTES`], which are not parsed.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let data = jsonwebtoken::decode::<WireClaims>(token, &self.verifying, &self.validation)
            .map_err(|_| TokenError::Invalid)?;
        if data.header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Invalid);
        }
        let expires_at = from_seconds(data.claims.exp);
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        Ok(Claims {
            user_id: data.claims.sub,
            device_id: data.claims.device_id,
            expires_at,
            issued_at: from_seconds(data.claims.iat),
        })
    }
}

const fn from_seconds(seconds: u64) -> Millis {
    Millis::new(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const SECRET: [u8; 32] = [7; 32];
    const NOON: Millis = Millis::new(1_800_000_000_250);

    fn tokens() -> Tokens {
        Tokens::new(&SECRET, Duration::from_secs(900))
    }

    fn token() -> String {
        tokens().mint(UserId::from_raw(11), DeviceId::from_raw(22), NOON).unwrap().0
    }

    fn signed(header: &Header, claims: &Value, secret: &[u8]) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn good_header() -> Header {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header
    }

    fn good_claims() -> Value {
        json!({"iss": "madang", "sub": "11", "device_id": "22", "iat": 1_800_000_000, "exp": 1_800_000_900})
    }

    fn refused(token: &str) {
        assert_eq!(tokens().verify(token, NOON), Err(TokenError::Invalid), "{token}");
    }

    #[test]
    fn a_minted_token_names_user_and_device() {
        let (token, expires_at) = tokens().mint(UserId::from_raw(11), DeviceId::from_raw(22), NOON).unwrap();
        let claims = tokens().verify(&token, NOON).unwrap();
        assert_eq!((claims.user_id, claims.device_id), (UserId::from_raw(11), DeviceId::from_raw(22)));
        assert_eq!(claims.expires_at, expires_at);
        assert_eq!(expires_at, Millis::new(1_800_000_901_000));
        assert_eq!(claims.issued_at, Millis::new(1_800_000_000_000));
        assert!(token.len() < 300);
    }

    #[test]
    fn the_valid_header_and_claims_of_these_tests_are_accepted() {
        assert!(tokens().verify(&signed(&good_header(), &good_claims(), &SECRET), NOON).is_ok());
    }

    #[test]
    fn a_token_expires_on_the_millisecond() {
        let (token, expires_at) = tokens().mint(UserId::from_raw(1), DeviceId::from_raw(2), NOON).unwrap();
        assert!(tokens().verify(&token, expires_at.minus(1)).is_ok());
        assert_eq!(tokens().verify(&token, expires_at), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_under_another_secret_is_refused() {
        refused(
            &Tokens::new(&[8; 32], Duration::from_secs(900))
                .mint(UserId::from_raw(11), DeviceId::from_raw(22), NOON)
                .unwrap()
                .0,
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let token = token();
        // The last character of a part may contain unused bits, so earlier bytes are flipped.
        for at in (0..token.len() - 2).filter(|at| token.as_bytes()[*at] != b'.') {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            if changed != token {
                refused(&changed);
            }
        }
    }

    #[test]
    fn a_forged_payload_is_refused() {
        let token = token();
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims = good_claims();
        claims["sub"] = json!("1");
        let forged = URL_SAFE_NO_PAD.encode(claims.to_string());
        refused(&format!("{}.{forged}.{}", parts[0], parts[2]));
        refused(&format!("{}.{forged}.", parts[0]));
        refused(&format!("{}.{forged}", parts[0]));
    }

    #[test]
    fn the_algorithm_none_is_refused() {
        for alg in ["none", "None", "NONE", ""] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": TYPE}).to_string());
            let claims = URL_SAFE_NO_PAD.encode(good_claims().to_string());
            refused(&format!("{header}.{claims}."));
            refused(&format!("{header}.{claims}.{}", token().rsplit('.').next().unwrap()));
        }
    }

    #[test]
    fn another_algorithm_under_our_secret_is_refused() {
        for alg in [Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(alg);
            header.typ = Some(TYPE.to_owned());
            refused(&signed(&header, &good_claims(), &SECRET));
        }
    }

    #[test]
    fn another_type_or_issuer_is_refused() {
        refused(&signed(&Header::new(Algorithm::HS256), &good_claims(), &SECRET));
        let mut untyped = good_header();
        untyped.typ = None;
        refused(&signed(&untyped, &good_claims(), &SECRET));
        let mut claims = good_claims();
        claims["iss"] = json!("somebody");
        refused(&signed(&good_header(), &claims, &SECRET));
    }

    #[test]
    fn a_missing_claim_is_refused() {
        for claim in ["iss", "sub", "device_id", "iat", "exp"] {
            let mut claims = good_claims();
            claims.as_object_mut().unwrap().remove(claim);
            refused(&signed(&good_header(), &claims, &SECRET));
        }
    }

    #[test]
    fn an_oversized_token_is_refused_although_correctly_signed() {
        let mut claims = good_claims();
        claims["padding"] = json!("x".repeat(MAX_TOKEN_BYTES));
        refused(&signed(&good_header(), &claims, &SECRET));
        refused(&"x".repeat(1 << 20));
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", ".", "..", "...", "a.b.c", "\u{0}", "마당.마당.마당"] {
            refused(text);
        }
    }
}
