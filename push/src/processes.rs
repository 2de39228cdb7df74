//! Push processes of a fleet, as operators see them.

use async_trait::async_trait;
use madang_proto::rest::PushProcess;
use madang_store::StoreResult;

/// The push processes of a fleet.
#[async_trait]
pub trait PushProcesses: Send + Sync {
    /// Those that have reported within half a minute, by name, each as it was then.
    ///
    /// # Errors
    /// What they report cannot be read.
    async fn all(&self) -> StoreResult<Vec<PushProcess>>;
}
