//! A channel that is hot, and what its node keeps for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_engine::bucket::{Bucket, Rate};
use madang_engine::heat::{Level, LevelPacing};
use madang_engine::log::Row;
use madang_ids::ChannelId;
use madang_proto::{Content, ErrorBody, Pacing};
use parking_lot::Mutex;

/// The wait of a user who may not join now, by level: warm, hot, blazing.
const JOIN_AGAIN_MS: [u64; 3] = [2_000, 5_000, 10_000];
/// Users who were refused together must not come back together: the wait differs by a quarter in both directions, in steps of the
/// golden ratio, which never come close to each other.
const JITTER: f64 = 0.25;
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A channel above the level normal.
#[derive(Debug, Clone)]
pub struct HotChannel {
    /// How hot it is.
    pub level: Level,
    /// What follows.
    pub pacing: LevelPacing,
    kept: Arc<Kept>,
}

/// What outlives a change of the level.
#[derive(Debug, Default)]
struct Kept {
    /// `None` until the first user joins.
    joins: Mutex<Option<Bucket>>,
    /// Users who were refused.
    refused: AtomicU64,
    /// Changes of older messages that were appended here.
    changes: AtomicU64,
}

impl HotChannel {
    /// A channel at its first level.
    pub(super) fn new(level: Level, pacing: LevelPacing) -> Self {
        Self { level, pacing, kept: Arc::default() }
    }

    /// The same channel at another level.
    pub(super) fn at(&self, level: Level, pacing: LevelPacing) -> Self {
        Self { level, pacing, kept: Arc::clone(&self.kept) }
    }

    /// What clients are notified of.
    #[must_use]
    pub const fn notice(&self) -> Pacing {
        self.pacing.notice(self.level)
    }

    /// For how long entries wait for others.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_millis(self.pacing.batch_ms as u64)
    }

    /// Whether passive subscribers get the head in this second. Channels are spread over the seconds.
    #[must_use]
    pub const fn sends_heads(&self, channel: ChannelId, second: u64) -> bool {
        let every = self.pacing.heads_seconds as u64;
        every < 2 || (second + channel.raw()).is_multiple_of(every)
    }

    /// How many entries of one delivery a connection gets that reads too slowly. `None`: all of them.
    #[must_use]
    pub fn slow_reader_entries(&self) -> Option<usize> {
        let (per_second, batch_ms) = (self.pacing.slow_reader_entries, self.pacing.batch_ms.max(1));
        let of_batch = u64::from(per_second) * u64::from(batch_ms) / 1_000;
        (per_second > 0).then(|| usize::try_from(of_batch.max(1)).unwrap_or(usize::MAX))
    }

    /// Lets a user join, or says when to try again.
    ///
    /// # Errors
    /// `limited`: as many users as the level admits have joined in this second.
    pub fn take_join(&self, now: Duration) -> Result<(), ErrorBody> {
        let rate = Rate { per_second: self.pacing.joins_per_second, burst: self.pacing.joins_per_second };
        let mut joins = self.kept.joins.lock();
        let bucket = joins.get_or_insert_with(|| Bucket::full(rate, now));
        bucket.take(rate, 1, now).map_err(|_| {
            let message =
                format!("too many users are joining this channel; {} can in a second", rate.per_second);
            let refused = self.kept.refused.fetch_add(1, Ordering::Relaxed);
            ErrorBody::limited(message, join_again_ms(self.level, refused))
        })
    }

    /// How many changes of older messages were appended on this node. A page of history that was read before the last one must not
    /// be served any more.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.kept.changes.load(Ordering::Acquire)
    }

    pub(super) fn note_changes(&self, rows: &[Row]) {
        let changes = rows.iter().filter(|row| row.entry.content.change().is_some()).count();
        if changes > 0 {
            self.kept.changes.fetch_add(changes as u64, Ordering::AcqRel);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive figure")]
#[expect(clippy::cast_precision_loss, reason = "milliseconds and counts far below 2^52")]
fn join_again_ms(level: Level, refused: u64) -> u64 {
    let wait = JOIN_AGAIN_MS[(level as usize).saturating_sub(1).min(2)];
    let share = (refused as f64 * GOLDEN).fract();
    (wait as f64 * JITTER.mul_add(2.0 * share - 1.0, 1.0)) as u64
}

/// The kinds of rows that cost as users who come or go.
pub(super) const fn comes_or_goes(content: &Content) -> bool {
    matches!(content, Content::Joined { .. } | Content::Left { .. } | Content::Banned { .. })
}

#[cfg(test)]
mod tests {
    use madang_engine::heat::PacingConfig;

    use super::*;

    #[test]
    fn users_join_at_the_rate_of_the_level_and_the_others_come_back_at_different_times() {
        let pacing = PacingConfig::default();
        let hot = HotChannel::new(Level::Hot, pacing.hot);
        let joined = |hot: &HotChannel, at_ms| {
            let now = Duration::from_millis(at_ms);
            (0..2_000).map(|_| hot.take_join(now)).collect::<Vec<_>>()
        };
        let first = joined(&hot, 1_000);
        assert_eq!(first.iter().filter(|taken| taken.is_ok()).count(), 100);
        let waits: Vec<u64> = first.iter().filter_map(|taken| taken.as_ref().err()?.retry_after_ms).collect();
        assert!(waits.iter().all(|wait| (3_750..=6_250).contains(wait)));
        let distinct: std::collections::HashSet<u64> = waits.iter().copied().collect();
        assert!(distinct.len() > 500, "{}", distinct.len());
        // The bucket is kept when the level changes.
        let blazing = hot.at(Level::Blazing, pacing.blazing);
        assert!(joined(&blazing, 1_000).iter().all(Result::is_err));
        let later = joined(&blazing, 3_000).iter().filter(|taken| taken.is_ok()).count();
        assert!((1..=50).contains(&later), "{later}");
    }
}
