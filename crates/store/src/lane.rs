//! Priority for reads that an ack waits for.
//!
//! After a restart thousands of devices read their inboxes. A home that loads its log, and the dispatcher that looks up an
//! audience, would wait in the same queue, and with them every ack of the node. They run inside [`urgently`], and a store with
//! several readers reserves some for them.

use std::future::Future;

tokio::task_local! {
    static IS_URGENT: bool;
}

/// Runs `work` with urgent reads. Tasks that `work` spawns are not urgent.
pub async fn urgently<F: Future>(work: F) -> F::Output {
    IS_URGENT.scope(true, work).await
}

/// Runs `work` with common reads, also inside [`urgently`]: for long reads, and for those that only one channel waits for.
pub async fn patiently<F: Future>(work: F) -> F::Output {
    IS_URGENT.scope(false, work).await
}

/// Whether the caller runs inside [`urgently`].
pub(crate) fn is_urgent() -> bool {
    IS_URGENT.try_with(|is_urgent| *is_urgent).unwrap_or(false)
}
