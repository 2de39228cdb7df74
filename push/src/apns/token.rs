//! The token with which this server authenticates at APNs: "Establishing a token-based connection to APNs", Apple.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use madang_auth::replace_secret_file;
use madang_ids::Millis;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A token is valid for an hour, and refused afterwards.
const USED_SECONDS: u64 = 50 * 60;
/// Apple refuses tokens that change more often.
const LEAST_SECONDS: u64 = 20 * 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
}

/// The key of a team, and the token that it has signed: one for all connections of the process, and for the next process, because Apple
/// refuses a server that was started three times in an hour otherwise.
pub(super) struct ProviderToken {
    file: PathBuf,
    key: EncodingKey,
    key_id: String,
    team_id: String,
    current: Mutex<Option<Signed>>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signed {
    /// The key, so that the token of another one is not used.
    key_id: String,
    token: String,
    /// When it was signed, in seconds.
    at: u64,
}

impl Signed {
    fn is_usable(&self, key_id: &str, seconds: u64) -> bool {
        self.key_id == key_id && (self.at..self.at + USED_SECONDS).contains(&seconds)
    }
}

impl ProviderToken {
    /// `file` keeps the token for the next process.
    pub(super) fn new(pem: &[u8], key_id: &str, team_id: &str, file: &Path) -> Option<Self> {
        let key = EncodingKey::from_ec_pem(pem).ok()?;
        let kept = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let token = Self {
            file: file.to_owned(),
            key,
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            current: Mutex::new(kept),
        };
        // A key of another curve is found by signing only.
        token.sign(0).map(|_| token)
    }

    /// The token to use now.
    pub(super) fn get(&self, now: Millis) -> Option<String> {
        let seconds = now.get() / 1_000;
        let mut current = self.current.lock();
        if let Some(signed) = current.as_ref().filter(|signed| signed.is_usable(&self.key_id, seconds)) {
            return Some(signed.token.clone());
        }
        let token = self.sign(seconds)?;
        let signed = Signed { key_id: self.key_id.clone(), token: token.clone(), at: seconds };
        let text = serde_json::to_vec(&signed).ok()?;
        if let Err(error) = replace_secret_file(&self.file, &text) {
            tracing::warn!(%error, "the token for APNs cannot be kept for the next start");
        }
        *current = Some(signed);
        Some(token)
    }

    /// Apple calls the token expired. A younger one is made at the next call, unless this one was just made: then the clock is wrong.
    /// Whether another one is made.
    pub(super) fn expire(&self, now: Millis) -> bool {
        let mut current = self.current.lock();
        let is_old = current.as_ref().is_none_or(|signed| now.get() / 1_000 >= signed.at + LEAST_SECONDS);
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
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("apns.token");
        let token = ProviderToken::new(KEY.as_bytes(), "ABC123DEFG", "DEF123GHIJ", &file).unwrap();
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
    fn the_next_process_uses_the_same_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("apns.token");
        let open = |key_id| ProviderToken::new(KEY.as_bytes(), key_id, "DEF123GHIJ", &file).unwrap();
        let first = open("ABC123DEFG").get(at(1_800_000_000));
        assert_eq!(open("ABC123DEFG").get(at(1_800_000_600)), first);
        assert_ne!(open("OTHER23DEF").get(at(1_800_000_600)), first);
    }

    #[test]
    fn an_old_token_that_apple_calls_expired_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("apns.token");
        let token = ProviderToken::new(KEY.as_bytes(), "ABC123DEFG", "DEF123GHIJ", &file).unwrap();
        let first = token.get(at(1_800_000_000)).unwrap();
        assert!(token.expire(at(1_800_000_000 + 1_300)));
        assert_ne!(token.get(at(1_800_000_000 + 1_300)), Some(first));
        assert!(ProviderToken::new(b"nothing", "A", "B", &file).is_none());
    }
}
