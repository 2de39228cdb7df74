//! The token with which this server authenticates at APNs: "Establishing a token-based connection to APNs", Apple.

use std::io;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use madang_ids::Millis;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::shelf::Shelf;

/// A token is valid for an hour, and refused afterwards.
const USED_SECONDS: u64 = 50 * 60;
/// Apple refuses tokens that change more often.
const LEAST_SECONDS: u64 = 20 * 60;
/// The clock of another worker may be ahead by this much.
const AHEAD_SECONDS: u64 = 60;
/// Attempts to agree with other workers on a token.
const TRIES: usize = 4;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: u64,
}

/// The key of a team, and the token that it has signed: one for all connections of all workers, and for the processes after them,
/// because Apple refuses a server that makes three tokens in an hour.
pub(super) struct ProviderToken {
    shelf: Arc<dyn Shelf>,
    key: EncodingKey,
    key_id: String,
    team_id: String,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    signed: Option<Signed>,
    /// A token that Apple has called expired.
    expired: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signed {
    /// The key, so that the token of another one is not used.
    key_id: String,
    token: String,
    /// When it was signed, in seconds.
    at: u64,
}

impl ProviderToken {
    /// `shelf` keeps the token for the next process and for other workers.
    pub(super) fn new(pem: &[u8], key_id: &str, team_id: &str, shelf: Arc<dyn Shelf>) -> Option<Self> {
        let token = Self {
            shelf,
            key: EncodingKey::from_ec_pem(pem).ok()?,
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            current: Mutex::default(),
        };
        // A key of another curve is found by signing only.
        token.sign(0).map(|_| token)
    }

    /// The token to use now.
    pub(super) async fn get(&self, now: Millis) -> Option<String> {
        let seconds = now.get() / 1_000;
        let mut current = self.current.lock().await;
        if let Some(signed) =
            current.signed.as_ref().filter(|signed| self.is_usable(signed, &current, seconds))
        {
            return Some(signed.token.clone());
        }
        let signed = match self.shared(&current, seconds).await {
            Ok(signed) => signed?,
            Err(error) => {
                tracing::warn!(%error, "the token for APNs cannot be kept for other workers and the next start");
                self.signed(seconds)?
            }
        };
        let token = signed.token.clone();
        current.signed = Some(signed);
        Some(token)
    }

    /// Apple calls the token expired. A younger one is made at the next call, unless this one was just made: then the clock is wrong.
    /// Whether another one is made.
    pub(super) async fn expire(&self, now: Millis) -> bool {
        let mut current = self.current.lock().await;
        let is_old = |signed: &Signed| now.get() / 1_000 >= signed.at + LEAST_SECONDS;
        if !current.signed.as_ref().is_none_or(is_old) {
            return false;
        }
        if let Some(signed) = current.signed.take() {
            current.expired = Some(signed.token);
        }
        true
    }

    /// The token that all workers use; this one makes it if there is none.
    async fn shared(&self, current: &Current, seconds: u64) -> io::Result<Option<Signed>> {
        for _ in 0..TRIES {
            let found = self.shelf.load().await?;
            let kept: Option<Signed> = found.as_deref().and_then(|text| serde_json::from_str(text).ok());
            if let Some(kept) = kept.filter(|kept| self.is_usable(kept, current, seconds)) {
                return Ok(Some(kept));
            }
            let Some(signed) = self.signed(seconds) else { return Ok(None) };
            let text = serde_json::to_string(&signed)?;
            if self.shelf.replace(found.as_deref(), &text).await? {
                return Ok(Some(signed));
            }
        }
        Err(io::Error::other("it changes all the time"))
    }

    fn is_usable(&self, signed: &Signed, current: &Current, seconds: u64) -> bool {
        let times = signed.at.saturating_sub(AHEAD_SECONDS)..signed.at + USED_SECONDS;
        signed.key_id == self.key_id
            && times.contains(&seconds)
            && current.expired.as_ref() != Some(&signed.token)
    }

    fn signed(&self, seconds: u64) -> Option<Signed> {
        Some(Signed { key_id: self.key_id.clone(), token: self.sign(seconds)?, at: seconds })
    }

    fn sign(&self, seconds: u64) -> Option<String> {
        let header = Header { typ: None, kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &Claims { iss: &self.team_id, iat: seconds }, &self.key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::FileShelf;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const KEY: &str = include_str!("../../tests/keys/p256.pem");

    fn at(seconds: u64) -> Millis {
        Millis::new(seconds * 1_000)
    }

    fn open(shelf: &Arc<FileShelf>, key_id: &str) -> ProviderToken {
        let shelf: Arc<dyn Shelf> = shelf.clone();
        ProviderToken::new(KEY.as_bytes(), key_id, "DEF123GHIJ", shelf).unwrap()
    }

    fn shelf() -> (tempfile::TempDir, Arc<FileShelf>) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = FileShelf::new(&folder.path().join("apns.token"));
        (folder, Arc::new(shelf))
    }

    #[tokio::test]
    async fn one_token_is_used_for_fifty_minutes() {
        let (_folder, shelf) = shelf();
        let token = open(&shelf, "ABC123DEFG");
        let first = token.get(at(1_800_000_000)).await.unwrap();
        assert_eq!(token.get(at(1_800_000_000 + 2_999)).await, Some(first.clone()));
        assert!(!token.expire(at(1_800_000_000 + 600)).await);
        assert_eq!(
            token.get(at(1_800_000_000 + 600)).await,
            Some(first.clone()),
            "it is too young to be expired"
        );
        assert_ne!(token.get(at(1_800_000_000 + 3_000)).await, Some(first.clone()));
        let parts: Vec<serde_json::Value> = first
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], serde_json::json!({"alg": "ES256", "kid": "ABC123DEFG"}));
        assert_eq!(parts[1], serde_json::json!({"iss": "DEF123GHIJ", "iat": 1_800_000_000_u64}));
    }

    #[tokio::test]
    async fn other_workers_and_the_next_process_use_the_same_token() {
        let (_folder, shelf) = shelf();
        let (one, other) = (open(&shelf, "ABC123DEFG"), open(&shelf, "ABC123DEFG"));
        let first = one.get(at(1_800_000_000)).await;
        assert_eq!(other.get(at(1_800_000_600)).await, first);
        assert_eq!(open(&shelf, "ABC123DEFG").get(at(1_800_000_000 - 30)).await, first, "its clock is late");
        // If one replaces it, the others follow.
        let second = other.get(at(1_800_003_000)).await;
        assert_ne!(second, first);
        assert_eq!(one.get(at(1_800_003_001)).await, second);
        assert_ne!(open(&shelf, "OTHER23DEF").get(at(1_800_003_000)).await, second);
    }

    #[tokio::test]
    async fn an_old_token_that_apple_calls_expired_is_replaced_for_all() {
        let (_folder, shelf) = shelf();
        let (one, other) = (open(&shelf, "ABC123DEFG"), open(&shelf, "ABC123DEFG"));
        let first = one.get(at(1_800_000_000)).await.unwrap();
        assert_eq!(other.get(at(1_800_000_000)).await, Some(first.clone()));
        let late = at(1_800_000_000 + 1_300);
        assert!(one.expire(late).await && other.expire(late).await);
        let second = one.get(late).await.unwrap();
        assert_ne!(second, first);
        assert_eq!(other.get(late).await, Some(second));
        assert!(ProviderToken::new(b"nothing", "A", "B", shelf).is_none());
    }
}
