//! Which reads go first: those that an ack waits for.
//!
//! After a restart thousands of devices read their inboxes. A home that loads its log, and the dispatcher that looks up an
//! audience, would stand in the same line, and with them every ack of the node. They run inside [`urgently`], and a store
//! that has several readers keeps some for them.

use std::future::Future;

tokio::task_local! {
    static IS_URGENT: bool;
}

/// Runs `work` with reads that go ahead of those of others. What `work` spawns is not urgent by that.
pub async fn urgently<F: Future>(work: F) -> F::Output {
    IS_URGENT.scope(true, work).await
}

/// Runs `work` with reads that stand in the common line, also inside [`urgently`]: what is long, and what one channel alone
/// waits for.
pub async fn patiently<F: Future>(work: F) -> F::Output {
    IS_URGENT.scope(false, work).await
}

/// Whether the caller runs inside [`urgently`].
pub(crate) fn is_urgent() -> bool {
    IS_URGENT.try_with(|is_urgent| *is_urgent).unwrap_or(false)
}
