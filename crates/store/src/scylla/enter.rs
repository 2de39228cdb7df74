//! How a process of a fleet that serves no clients gets the store and its number, and keeps the number.

use std::sync::Arc;
use std::time::Duration;

use madang_ids::Millis;
use tokio::time::{Instant, sleep};

use super::{ConnectError, LeaseError, Scylla, WorkerLease, connect};
use crate::config::StoreConfig;

/// How long one series of tries to reach the cluster lasts. There is another one behind it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two tries to get a number.
const RETRY: Duration = Duration::from_secs(1);
/// The pause between two renewals of the number.
const RENEWAL: Duration = Duration::from_secs(10);

/// Why a process cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The number.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl EnterError {
    /// Whether starting the process again cannot help.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_lasting())
    }
}

/// Reaches the cluster and leases a number, and tries again until both are there. `now` as for [`Scylla::lease_worker`]. Cancel safe: a
/// lease that nobody holds ends by itself.
///
/// # Errors
/// What an operator has to change.
pub async fn enter(
    config: &StoreConfig,
    accept_weak: bool,
    name: &str,
    now: &(dyn Fn() -> Millis + Send + Sync),
) -> Result<(Arc<Scylla>, WorkerLease), EnterError> {
    let store = loop {
        match connect(config, accept_weak, PATIENCE).await {
            Ok(store) => break store,
            Err(error) if error.is_lasting() => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the store is unavailable: retrying"),
        }
    };
    loop {
        match store.lease_worker(name, now).await {
            Ok(lease) => return Ok((store, lease)),
            Err(LeaseError::Store(error)) => tracing::warn!(%error, "leasing a number failed: retrying"),
            Err(error) => return Err(error.into()),
        }
        sleep(RETRY).await;
    }
}

impl Scylla {
    /// Renews the number of a process until another one has it, and returns the reason. After each renewal it calls `renewed` with the
    /// time for which the process has the number from then on. While the store does not answer, the lease runs on.
    pub async fn hold_worker(&self, mut lease: WorkerLease, renewed: impl Fn(Duration)) -> LeaseError {
        loop {
            sleep(RENEWAL).await;
            let begun = Instant::now();
            match self.renew_worker(&lease).await {
                Ok(found) => {
                    lease = found;
                    renewed(lease.valid_for.saturating_sub(begun.elapsed()));
                }
                Err(LeaseError::Store(error)) => {
                    tracing::warn!(%error, "renewing the number of this process failed");
                }
                Err(error) => return error,
            }
        }
    }
}
