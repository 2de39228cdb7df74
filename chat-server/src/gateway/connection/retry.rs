//! The back-off of a connection while the store is unavailable. The connection is not closed: its client would connect again and
//! need more reads than before.

use std::time::Duration;

use madang_proto::ErrorCode;
use madang_service::{Clock, spread};

use crate::refusal::OperationError;

/// The wait before the second try. Each further wait is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait: a store that is available again serves everybody within 8 s, and not all in the same second.
const LONGEST: Duration = Duration::from_secs(8);

/// A catch-up that the store has interrupted. It continues from the cursor, or within its page.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Interrupted {
    /// The number of failures in a row.
    failures: u32,
    /// By the steady clock. The sweep wakes the connection then, so no connection needs a timer.
    pub(in crate::gateway) retry_at: Duration,
}

impl Interrupted {
    /// Counts one more failure of the store. `seed` differs between connections.
    pub(in crate::gateway) fn new(before: Option<Self>, now: Duration, seed: u64) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        Self { failures, retry_at: now + wait(failures, seed) }
    }
}

/// Whether the same request may succeed a moment later.
pub(in crate::gateway) fn is_for_later(error: &OperationError) -> bool {
    error.code() == ErrorCode::Unavailable
}

/// Limits how long an answer may wait for the store.
pub(in crate::gateway) struct Patience {
    clock: Clock,
    /// By the steady clock.
    until: Duration,
    failures: u32,
    seed: u64,
}

impl Patience {
    pub(in crate::gateway) fn new(clock: &Clock, patience: Duration, seed: u64) -> Self {
        Self { clock: clock.clone(), until: clock.elapsed() + patience, failures: 0, seed }
    }

    /// Waits before the next try. `false` if another try cannot help, or would come too late.
    pub(in crate::gateway) async fn waits_after(&mut self, error: &OperationError) -> bool {
        self.failures += 1;
        let wait = wait(self.failures, self.seed);
        if !is_for_later(error) || self.clock.elapsed() + wait > self.until {
            return false;
        }
        tracing::warn!(%error, "opening a connection failed; retrying");
        self.clock.sleep(wait).await;
        true
    }
}

/// Between half and all of the wait after `failures`. The variable half is spread by `seed`, so that connections that failed
/// together do not retry together.
fn wait(failures: u32, seed: u64) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    whole / 2 + spread(whole / 2, seed ^ u64::from(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_between_connections() {
        for failures in 1..100 {
            let whole = FIRST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST);
            let waits: Vec<Duration> = (0..1_000).map(|seed| wait(failures, seed)).collect();
            assert!(waits.iter().all(|&wait| (whole / 2..=whole).contains(&wait)));
            let early = waits.iter().filter(|&&wait| wait < whole * 3 / 4).count();
            assert!((400..600).contains(&early), "{early} of 1,000 in the first half");
        }
    }

    #[test]
    fn each_failure_in_a_row_makes_the_next_wait_longer() {
        let now = Duration::from_secs(100);
        let mut interrupted = Interrupted::new(None, now, 1);
        assert!(interrupted.retry_at <= now + FIRST);
        for _ in 0..10 {
            interrupted = Interrupted::new(Some(interrupted), now, 1);
        }
        assert!(interrupted.retry_at >= now + LONGEST / 2);
    }
}
