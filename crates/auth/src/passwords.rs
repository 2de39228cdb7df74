//! Passwords: argon2id on the blocking pool, with limits on concurrent and on waiting computations.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// The longest password, in bytes of UTF-8. Longer ones are refused before any computation.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// Waiting computations in each lane for each permit. At 20 ms per hash the last one waits two thirds of a second, or
/// twice that if both lanes are full.
const WAITING_PER_PERMIT: usize = 32;

/// Salt of the hash that is computed for unknown handles.
const NOBODYS_SALT: &[u8; 16] = b"nobody's account";

/// Cost of a password hash. The defaults are OWASP's second choice for argon2id (about 20 ms on a core of 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory of one hash in KiB; default 19,456 (19 MiB), at least 8 for each lane. Concurrent logins use this times
    /// the number of cores.
    pub memory_kib: u32,
    /// Passes over the memory; default 2, at least 1. The time of a hash is proportional to it.
    pub passes: u32,
    /// Lanes of argon2; default 1. They are computed one after another.
    pub lanes: u32,
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

/// Reasons for which a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// More concurrent logins than this node computes and queues. Try again soon.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// The password is longer than [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// argon2 does not accept these costs.
    #[error("the password costs are not valid: {0}")]
    Config(argon2::Error),
    /// The stored text is not an argon2 hash, or there is not enough memory.
    #[error("the password hash failed: {0}")]
    Failed(argon2::password_hash::Error),
    /// The blocking pool is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// Lanes of waiting computations. Each has its own places, so that a flood of guesses does not block users who have
/// recently signed in successfully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The account has recently signed in from that address.
    Known,
    /// All others.
    Guest,
}

/// The possible spellings of a password, each once: first the present normalisation, then those under which an older
/// server may have stored it.
///
/// The present normalisation is the OpaqueString profile of RFC 8265: every space becomes U+0020, and the text is
/// composed (NFC). The profile also refuses code points that its tables do not contain. This is not done here: a
/// password that contains an emoji newer than the tables would otherwise stop working with an update of the server.
#[must_use]
pub fn spellings(password: &str) -> Vec<String> {
    let is_space = |char: char| char != '\n' && char.is_whitespace() && !char.is_control();
    let spaces: String = password.chars().map(|char| if is_space(char) { ' ' } else { char }).collect();
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&spaces).into_owned();
    let mut all = vec![composed, password.to_owned()];
    let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(password).into_owned();
    let raw_composed = ComposingNormalizerBorrowed::new_nfc().normalize(password).into_owned();
    for old in [raw_composed, decomposed] {
        if !all.contains(&old) {
            all.push(old);
        }
    }
    all.dedup();
    all
}

/// Hashes and verifies passwords. Cheap to clone; all clones share the limits.
///
/// Every method is cancel safe: a computation that has begun runs to its end on the blocking pool and keeps its permit
/// until then, so that dropped requests cannot accumulate computations.
#[derive(Debug, Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    /// Places of [`Lane::Guest`].
    places: Arc<Semaphore>,
    /// Places of [`Lane::Known`].
    known_places: Arc<Semaphore>,
}

impl Passwords {
    /// Computes at most `permits` hashes (at least one) at the same time. In each lane 32 times as many may wait.
    ///
    /// # Errors
    /// [`PasswordError::Config`] for costs that argon2 does not accept.
    pub fn new(config: PasswordConfig, permits: usize) -> Result<Self, PasswordError> {
        let params = Params::new(config.memory_kib, config.passes, config.lanes, None);
        let params = params.map_err(PasswordError::Config)?;
        let permits = permits.max(1);
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            permits: Arc::new(Semaphore::new(permits)),
            places: Arc::new(Semaphore::new(permits.saturating_mul(1 + WAITING_PER_PERMIT))),
            known_places: Arc::new(Semaphore::new(permits.saturating_mul(1 + WAITING_PER_PERMIT))),
        })
    }

    /// Like [`Self::new`], with one permit per core.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn with_all_cores(config: PasswordConfig) -> Result<Self, PasswordError> {
        Self::new(config, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Hashes a new password with a random salt. Returns the PHC text.
    ///
    /// # Errors
    /// `Overloaded`, `TooLong`, `Stopping`; `Failed` if there is not enough memory or randomness.
    pub async fn hash(&self, password: String, lane: Lane) -> Result<String, PasswordError> {
        self.compute(password, lane, |argon2, password| {
            argon2.hash_password(password).map(|hash| hash.to_string()).map_err(PasswordError::Failed)
        })
        .await
    }

    /// Whether `password` matches `phc`, at the cost that `phc` names.
    ///
    /// # Errors
    /// `Overloaded`, `TooLong`, `Stopping`; `Failed` if `phc` is not an argon2 hash.
    pub async fn verify(&self, password: String, phc: String, lane: Lane) -> Result<bool, PasswordError> {
        self.compute(password, lane, move |argon2, password| {
            let hash = PasswordHash::new(&phc).map_err(|error| PasswordError::Failed(error.into()))?;
            match argon2.verify_password(password, &hash) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::Failed(error)),
            }
        })
        .await
    }

    /// Takes as long as [`Self::verify`] and returns `false`: for handles that do not exist, so that the duration of an
    /// answer does not reveal which handles exist.
    ///
    /// # Errors
    /// See [`Self::verify`].
    pub async fn verify_nothing(&self, password: String, lane: Lane) -> Result<bool, PasswordError> {
        self.compute(password, lane, |argon2, password| {
            let hash =
                PasswordHasher::<PasswordHash>::hash_password_with_salt(argon2, password, NOBODYS_SALT);
            hash.map(|_| false).map_err(PasswordError::Failed)
        })
        .await
    }

    async fn compute<T, F>(&self, password: String, lane: Lane, work: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce(&Argon2<'static>, &[u8]) -> Result<T, PasswordError> + Send + 'static,
    {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::TooLong);
        }
        let places = match lane {
            Lane::Known => &self.known_places,
            Lane::Guest => &self.places,
        };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| PasswordError::Overloaded)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| PasswordError::Stopping)?;
        let argon2 = self.argon2.clone();
        let job = tokio::task::spawn_blocking(move || {
            let answer = work(&argon2, password.as_bytes());
            drop((permit, place));
            answer
        });
        job.await.map_err(|_| PasswordError::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(permits: usize) -> Passwords {
        Passwords::new(PasswordConfig { memory_kib: 64, passes: 1, lanes: 1 }, permits).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let passwords = cheap(1);
        let phc = passwords.hash("마당 and yard".into(), Lane::Guest).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{phc}");
        assert!(passwords.verify("마당 and yard".into(), phc.clone(), Lane::Guest).await.unwrap());
        assert!(!passwords.verify("마당 and yarn".into(), phc, Lane::Guest).await.unwrap());
        assert!(!passwords.verify_nothing("마당 and yard".into(), Lane::Guest).await.unwrap());
    }

    #[test]
    fn spellings_of_one_password_are_normalised() {
        assert_eq!(spellings("correct horse"), ["correct horse"]);
        assert_eq!(spellings("pa\u{DF}wo\u{308}rt")[0], "pa\u{DF}w\u{F6}rt");
        assert_eq!(spellings("a\u{3000}b\u{A0}c"), ["a b c", "a\u{3000}b\u{A0}c"]);
        let (composed, decomposed) = (spellings("w\u{F6}rt"), spellings("wo\u{308}rt"));
        assert_eq!(composed[0], decomposed[0]);
        for kept in ["w\u{F6}rt", "wo\u{308}rt"].map(str::to_owned) {
            assert!(composed.contains(&kept) && decomposed.contains(&kept), "{kept}");
        }
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let passwords = cheap(1);
        assert_ne!(
            passwords.hash("same".into(), Lane::Guest).await.unwrap(),
            passwords.hash("same".into(), Lane::Guest).await.unwrap()
        );
    }

    #[tokio::test]
    async fn a_hash_with_other_costs_is_still_verified() {
        let phc = cheap(1).hash("old".into(), Lane::Guest).await.unwrap();
        let passwords = Passwords::new(PasswordConfig { memory_kib: 128, passes: 2, lanes: 1 }, 1).unwrap();
        assert!(passwords.verify("old".into(), phc, Lane::Guest).await.unwrap());
    }

    #[tokio::test]
    async fn a_text_that_is_not_a_hash_is_an_error() {
        let answer = cheap(1).verify("x".into(), "plain".into(), Lane::Guest).await;
        assert!(matches!(answer, Err(PasswordError::Failed(_))));
    }

    #[tokio::test]
    async fn a_long_password_is_refused_everywhere() {
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        assert!(matches!(cheap(1).hash(long.clone(), Lane::Guest).await, Err(PasswordError::TooLong)));
        assert!(matches!(cheap(1).verify_nothing(long, Lane::Guest).await, Err(PasswordError::TooLong)));
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_node_is_overloaded() {
        let passwords = cheap(1);
        let held = passwords.places.try_acquire_many(33).unwrap();
        assert!(matches!(passwords.hash("x".into(), Lane::Guest).await, Err(PasswordError::Overloaded)));
        // Known users have places of their own.
        assert!(passwords.hash("x".into(), Lane::Known).await.is_ok());
        drop(held);
        assert!(passwords.hash("x".into(), Lane::Guest).await.is_ok());
    }

    #[tokio::test]
    async fn permits_are_returned() {
        let passwords = cheap(2);
        for _ in 0..5 {
            passwords.verify_nothing("x".into(), Lane::Guest).await.unwrap();
        }
        assert_eq!((passwords.permits.available_permits(), passwords.places.available_permits()), (2, 66));
    }

    #[test]
    fn impossible_costs_are_refused() {
        let config = PasswordConfig { memory_kib: 1, passes: 0, lanes: 0 };
        assert!(matches!(Passwords::new(config, 1), Err(PasswordError::Config(_))));
    }
}
