//! Passwords: argon2id on the blocking pool, with bounds on how many are computed and how many wait.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// The longest password, in bytes of UTF-8. Longer ones are refused before any work.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// How many may wait for each one that is computed: at 20 ms a hash the last of them waits two thirds of a second.
const WAITING_PER_PERMIT: usize = 32;

/// Salt of the hash that is computed for nobody.
const NOBODYS_SALT: &[u8; 16] = b"nobody's account";

/// Cost of a password. The defaults are OWASP's second choice for argon2id (about 20 ms on a core of 2024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory of one hash in KiB; default 19,456 (19 MiB), at least 8 for each lane. Times cores is what logins take.
    pub memory_kib: u32,
    /// Passes over the memory; default 2, at least 1. Time grows with it.
    pub passes: u32,
    /// Lanes; default 1. They are computed one after the other.
    pub lanes: u32,
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// More logins at once than this node computes and lets wait; try again soon.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// Above [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// The costs are outside of what argon2 knows.
    #[error("the password costs are not valid: {0}")]
    Config(argon2::Error),
    /// The stored text is no argon2 hash, or memory for the work is missing.
    #[error("the password hash failed: {0}")]
    Failed(argon2::password_hash::Error),
    /// The blocking pool is going down.
    #[error("the process is stopping")]
    Stopping,
}

/// Hashes and verifies passwords. Cheap to clone; all clones share the bounds.
///
/// Every method is cancel safe: work that has begun runs to its end on the blocking pool and keeps its permit until
/// then, so that dropped requests cannot pile work up.
#[derive(Debug, Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Passwords {
    /// At most `permits` (at least one) are computed at once, and 32 times as many wait.
    ///
    /// # Errors
    /// [`PasswordError::Config`] for costs that argon2 refuses.
    pub fn new(config: PasswordConfig, permits: usize) -> Result<Self, PasswordError> {
        let params = Params::new(config.memory_kib, config.passes, config.lanes, None);
        let params = params.map_err(PasswordError::Config)?;
        let permits = permits.max(1);
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            permits: Arc::new(Semaphore::new(permits)),
            places: Arc::new(Semaphore::new(permits.saturating_mul(1 + WAITING_PER_PERMIT))),
        })
    }

    /// As many permits as there are cores.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_all_cores(config: PasswordConfig) -> Result<Self, PasswordError> {
        Self::new(config, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The PHC text of a new password, with a random salt.
    ///
    /// # Errors
    /// `Overloaded`, `TooLong`, `Stopping`; `Failed` without memory or randomness.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.compute(password, |argon2, password| {
            argon2.hash_password(password).map(|hash| hash.to_string()).map_err(PasswordError::Failed)
        })
        .await
    }

    /// Whether `password` is the one behind `phc`, at the cost that `phc` names.
    ///
    /// # Errors
    /// `Overloaded`, `TooLong`, `Stopping`; `Failed` for a text that is no argon2 hash.
    pub async fn verify(&self, password: String, phc: String) -> Result<bool, PasswordError> {
        self.compute(password, move |argon2, password| {
            let hash = PasswordHash::new(&phc).map_err(|error| PasswordError::Failed(error.into()))?;
            match argon2.verify_password(password, &hash) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::Failed(error)),
            }
        })
        .await
    }

    /// Works as long as [`Self::verify`] and says no: for handles that do not exist, so that the time of an answer
    /// does not tell which handles do.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub async fn verify_nothing(&self, password: String) -> Result<bool, PasswordError> {
        self.compute(password, |argon2, password| {
            let hash =
                PasswordHasher::<PasswordHash>::hash_password_with_salt(argon2, password, NOBODYS_SALT);
            hash.map(|_| false).map_err(PasswordError::Failed)
        })
        .await
    }

    async fn compute<T, F>(&self, password: String, work: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce(&Argon2<'static>, &[u8]) -> Result<T, PasswordError> + Send + 'static,
    {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::TooLong);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::Overloaded)?;
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
    async fn only_the_right_password_is_right() {
        let passwords = cheap(1);
        let phc = passwords.hash("마당 and yard".into()).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{phc}");
        assert!(passwords.verify("마당 and yard".into(), phc.clone()).await.unwrap());
        assert!(!passwords.verify("마당 and yarn".into(), phc).await.unwrap());
        assert!(!passwords.verify_nothing("마당 and yard".into()).await.unwrap());
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let passwords = cheap(1);
        assert_ne!(
            passwords.hash("same".into()).await.unwrap(),
            passwords.hash("same".into()).await.unwrap()
        );
    }

    #[tokio::test]
    async fn a_hash_of_other_costs_is_still_verified() {
        let phc = cheap(1).hash("old".into()).await.unwrap();
        let passwords = Passwords::new(PasswordConfig { memory_kib: 128, passes: 2, lanes: 1 }, 1).unwrap();
        assert!(passwords.verify("old".into(), phc).await.unwrap());
    }

    #[tokio::test]
    async fn a_text_that_is_no_hash_is_an_error() {
        let answer = cheap(1).verify("x".into(), "plain".into()).await;
        assert!(matches!(answer, Err(PasswordError::Failed(_))));
    }

    #[tokio::test]
    async fn a_long_password_is_refused_everywhere() {
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        assert!(matches!(cheap(1).hash(long.clone()).await, Err(PasswordError::TooLong)));
        assert!(matches!(cheap(1).verify_nothing(long).await, Err(PasswordError::TooLong)));
    }

    #[tokio::test]
    async fn beyond_the_waiting_places_the_node_is_overloaded() {
        let passwords = cheap(1);
        let held = passwords.places.try_acquire_many(33).unwrap();
        assert!(matches!(passwords.hash("x".into()).await, Err(PasswordError::Overloaded)));
        drop(held);
        assert!(passwords.hash("x".into()).await.is_ok());
    }

    #[tokio::test]
    async fn permits_come_back() {
        let passwords = cheap(2);
        for _ in 0..5 {
            passwords.verify_nothing("x".into()).await.unwrap();
        }
        assert_eq!((passwords.permits.available_permits(), passwords.places.available_permits()), (2, 66));
    }

    #[test]
    fn impossible_costs_are_refused() {
        let config = PasswordConfig { memory_kib: 1, passes: 0, lanes: 0 };
        assert!(matches!(Passwords::new(config, 1), Err(PasswordError::Config(_))));
    }
}
