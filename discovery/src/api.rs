//! What a process asks discovery for: to be among the live processes, and who else is.

#[cfg(feature = "fleet")]
mod remote;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use madang_bus::registry::{
    ProcessCard, ProcessRun, ProcessState, Registry, RegistryError, RegistryView, Renewal,
};

use crate::core::ViewRevision;

#[cfg(feature = "fleet")]
pub(crate) use remote::wire;
#[cfg(feature = "fleet")]
pub use remote::{ANSWER_BYTES, Remote};

/// The live processes of a fleet, as one process asks about them. Every call is bounded in time, and may be repeated.
#[async_trait]
pub trait Discovery: Send + Sync + 'static {
    /// Registers this process. See [`Registry::register`].
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn register(&self, card: &ProcessCard, state: ProcessState) -> Result<(), RegistryError>;

    /// Prolongs the lease of this process. See [`Registry::renew`].
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn renew(&self, run: ProcessRun, state: ProcessState) -> Result<Renewal, RegistryError>;

    /// Ends the lease of this process. See [`Registry::leave`].
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`].
    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError>;

    /// The live processes. May wait for up to a second until they are others than those of `known`.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`].
    async fn view(&self, known: ViewRevision) -> Result<RegistryView, RegistryError>;
}

/// Discovery inside the process: the registry itself.
#[derive(Clone)]
pub struct Local {
    registry: Arc<dyn Registry>,
    lease: Duration,
}

impl Local {
    /// Discovery over a registry, with this lease.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, lease: Duration) -> Self {
        Self { registry, lease }
    }
}

#[async_trait]
impl Discovery for Local {
    async fn register(&self, card: &ProcessCard, state: ProcessState) -> Result<(), RegistryError> {
        self.registry.register(card, state, self.lease).await
    }

    async fn renew(&self, run: ProcessRun, state: ProcessState) -> Result<Renewal, RegistryError> {
        self.registry.renew(run, state, self.lease).await
    }

    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError> {
        self.registry.leave(run).await
    }

    async fn view(&self, _: ViewRevision) -> Result<RegistryView, RegistryError> {
        self.registry.view().await
    }
}
