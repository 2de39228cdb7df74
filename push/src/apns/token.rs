//! The token with which this server authenticates at APNs: "Establishing a token-based connection to APNs", Apple.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use madang_ids::Millis;
use parking_lot::Mutex;
use serde::Serialize;

/// A token is valid for an hour, and refused afterwards.
const USED_SECONDS: u64 = 50 * 60;
/// Apple refuses tokens that change more often.
const LEAST_SECONDS: u64 = 20 * 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
}

/// The key of a team, and the token that it has signed: one for all connections of the process.
pub(super) struct ProviderToken {
    key: EncodingKey,
    key_id: String,
    team_id: String,
    /// The token and when it was signed, in seconds.
    current: Mutex<Option<(String, u64)>>,
}

impl ProviderToken {
    pub(super) fn new(pem: &[u8], key_id: &str, team_id: &str) -> Option<Self> {
        let key = EncodingKey::from_ec_pem(pem).ok()?;
        let token =
            Self { key, key_id: key_id.to_owned(), team_id: team_id.to_owned(), current: Mutex::default() };
        // A key of another curve is found by signing only.
        token.sign(0).map(|_| token)
    }

    /// The token to use now.
    pub(super) fn get(&self, now: Millis) -> Option<String> {
        let seconds = now.get() / 1_000;
        let mut current = self.current.lock();
        let known =
            current.as_ref().filter(|(_, signed)| (*signed..*signed + USED_SECONDS).contains(&seconds));
        if let Some((token, _)) = known {
            return Some(token.clone());
        }
        let token = self.sign(seconds)?;
        *current = Some((token.clone(), seconds));
        Some(token)
    }

    /// Apple calls the token expired. A younger one is made at the next call, unless this one was just made: then the clock is wrong.
    /// Whether another one is made.
    pub(super) fn expire(&self, now: Millis) -> bool {
        let mut current = self.current.lock();
        let is_old = current.as_ref().is_none_or(|(_, signed)| now.get() / 1_000 >= signed + LEAST_SECONDS);
        if is_old {
            *current = None;
        }
        is_old
    }

    fn sign(&self, seconds: u64) -> Option<String> {
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &Claims { iss: &self.team_id, iat: seconds }, &self.key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const KEY: &str = include_str!("../../tests/keys/p256.pem");

    fn at(seconds: u64) -> Millis {
        Millis::new(seconds * 1_000)
    }

    #[test]
    fn one_token_is_used_for_fifty_minutes() {
        let token = ProviderToken::new(KEY.as_bytes(), "ABC123DEFG", "DEF123GHIJ").unwrap();
        let first = token.get(at(1_800_000_000)).unwrap();
        assert_eq!(token.get(at(1_800_000_000 + 2_999)), Some(first.clone()));
        assert!(!token.expire(at(1_800_000_000 + 600)));
        assert_eq!(token.get(at(1_800_000_000 + 600)), Some(first.clone()), "it is too young to be expired");
        assert_ne!(token.get(at(1_800_000_000 + 3_000)), Some(first.clone()));
        let parts: Vec<serde_json::Value> = first
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], serde_json::json!({"alg": "ES256", "kid": "ABC123DEFG"}));
        assert_eq!(parts[1], serde_json::json!({"iss": "DEF123GHIJ", "iat": 1_800_000_000_u64}));
    }

    #[test]
    fn an_old_token_that_apple_calls_expired_is_replaced() {
        let token = ProviderToken::new(KEY.as_bytes(), "ABC123DEFG", "DEF123GHIJ").unwrap();
        let first = token.get(at(1_800_000_000)).unwrap();
        assert!(token.expire(at(1_800_000_000 + 1_300)));
        assert_ne!(token.get(at(1_800_000_000 + 1_300)), Some(first));
        assert!(ProviderToken::new(b"nothing", "A", "B").is_none());
    }
}
