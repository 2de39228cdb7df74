//! A channel that is hot, and what its node keeps for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_engine::bucket::{Bucket, Rate};
use madang_engine::heat::{Costs, Level, LevelPacing, Sketch, Work};
use madang_engine::log::Row;
use madang_engine::spread::spread_ms;
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{JoinRow, OverrideSettings, Quantiles, SenderRow, Spared};
use madang_proto::{Content, ErrorBody, Pacing};
use parking_lot::Mutex;

use super::recent::Recent;

/// The wait of a user who may not join now, by level: warm, hot, blazing.
const JOIN_AGAIN_MS: [u64; 3] = [2_000, 5_000, 10_000];

/// Counters of the senders of one channel, and how many of them the board shows.
const SENDERS: usize = 32;
const SENDERS_SHOWN: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// A channel above the level normal, or one for which an operator has set something.
#[derive(Debug, Clone)]
pub struct HotChannel {
    /// How hot it is.
    pub level: Level,
    /// What follows.
    pub pacing: LevelPacing,
    /// Users who may join in a second on this node. `None`: any number.
    pub joins: Option<u32>,
    /// Whether an operator has set something.
    pub is_set: bool,
    /// The name of a node that an operator does not want as its home.
    pub away_from: Option<Arc<str>>,
    kept: Arc<Kept>,
}

/// What outlives a change of the level.
#[derive(Debug, Default)]
struct Kept {
    /// `None` until the first user joins.
    joins: Mutex<Option<Bucket>>,
    admitted: AtomicU64,
    /// What refused users were asked to wait.
    join_waits: Mutex<Recent>,
    spared: SparedCounts,
    /// Frames to receivers.
    frames: AtomicU64,
    freshness: Mutex<Recent>,
    /// `None` until somebody has sent a message. Begins again each minute.
    senders: Mutex<Option<(Duration, Sketch<UserId>)>>,
    /// Changes of older messages that were appended here.
    changes: AtomicU64,
}

/// What pacing has spared.
#[derive(Debug, Default)]
struct SparedCounts {
    events: AtomicU64,
    frames: AtomicU64,
    left_out: AtomicU64,
    /// Also the number of users who were refused.
    joins: AtomicU64,
    reads: AtomicU64,
    sends: AtomicU64,
}

/// Counts of a channel since it is hot, or set by an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paced {
    /// Frames to receivers of this node.
    pub frames: u64,
    /// Users who were refused for now.
    pub joins_refused: u64,
}

/// Something that pacing has spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// Typing or a receipt.
    Event,
    /// A frame to one connection.
    Frame,
    /// An entry that a slow reader did not get.
    LeftOut,
    /// A read of the store.
    Read,
    /// A message that the slow mode of the level has refused.
    Send,
}

impl HotChannel {
    /// A channel that is hot, or that an operator has set. `before` is the same channel as it was.
    pub(super) fn new(
        level: Level,
        pacing: LevelPacing,
        set: Option<&OverrideSettings>,
        before: Option<&Self>,
    ) -> Self {
        let kept = before.map(|before| Arc::clone(&before.kept)).unwrap_or_default();
        let joins = Some(pacing.joins_per_second).filter(|rate| *rate > 0);
        let mut hot = Self { level, pacing, joins, is_set: set.is_some(), away_from: None, kept };
        if let Some(set) = set {
            hot.pacing.batch_ms = set.batch_ms.unwrap_or(pacing.batch_ms);
            hot.pacing.slow_mode_seconds = set.slow_mode_seconds.unwrap_or(pacing.slow_mode_seconds);
            hot.joins = set.joins_per_second.or(joins);
        }
        hot
    }

    /// Notes what pacing has spared.
    pub fn spare(&self, what: Saving, count: u64) {
        let spared = &self.kept.spared;
        let counter = match what {
            Saving::Event => &spared.events,
            Saving::Frame => &spared.frames,
            Saving::LeftOut => &spared.left_out,
            Saving::Read => &spared.reads,
            Saving::Send => &spared.sends,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn note_frames(&self, count: u64) {
        self.kept.frames.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn paced(&self) -> Paced {
        Paced {
            frames: self.kept.frames.load(Ordering::Relaxed),
            joins_refused: self.kept.spared.joins.load(Ordering::Relaxed),
        }
    }

    /// Entries were delivered that were appended this long ago.
    pub fn note_age(&self, ms: u64, now: Duration) {
        self.kept.freshness.lock().record(ms, now);
    }

    pub(super) fn freshness(&self, now: Duration) -> Quantiles {
        self.kept.freshness.lock().quantiles(now)
    }

    pub(super) fn spared(&self) -> Spared {
        let spared = &self.kept.spared;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Spared {
            events: of(&spared.events),
            frames: of(&spared.frames),
            left_out: of(&spared.left_out),
            joins: of(&spared.joins),
            reads: of(&spared.reads),
            sends: of(&spared.sends),
        }
    }

    pub(super) fn joins(&self, now: Duration) -> JoinRow {
        JoinRow {
            admitted: self.kept.admitted.load(Ordering::Relaxed),
            refused: self.kept.spared.joins.load(Ordering::Relaxed),
            wait_ms: self.kept.join_waits.lock().quantiles(now),
        }
    }

    /// The users who sent most since the minute began.
    #[expect(clippy::cast_precision_loss, reason = "messages of a minute are far below 2^52")]
    pub(super) fn senders(&self) -> Vec<SenderRow> {
        let senders = self.kept.senders.lock();
        let Some((_, sketch)) = &*senders else { return Vec::new() };
        let total = sketch.total().max(1.0);
        let top = sketch.above(0.0).into_iter().take(SENDERS_SHOWN);
        top.map(|it| SenderRow { user_id: it.key, share: it.work.entries as f64 / total }).collect()
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
        let Some(per_second) = self.joins.filter(|per_second| !self.admits(*per_second, now)) else {
            self.kept.admitted.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let message = format!("too many users are joining this channel; {per_second} can in a second");
        let refused = self.kept.spared.joins.fetch_add(1, Ordering::Relaxed);
        let wait_ms = join_again_ms(self.level, refused);
        self.kept.join_waits.lock().record(wait_ms, now);
        Err(ErrorBody::limited(message, wait_ms))
    }

    fn admits(&self, per_second: u32, now: Duration) -> bool {
        let rate = Rate { per_second, burst: per_second };
        let mut joins = self.kept.joins.lock();
        per_second > 0 && joins.get_or_insert_with(|| Bucket::full(rate, now)).take(rate, 1, now).is_ok()
    }

    /// How many changes of older messages were appended on this node. A page of history that was read before the last one must not
    /// be served any more.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.kept.changes.load(Ordering::Acquire)
    }

    pub(super) fn note_rows(&self, rows: &[Row], now: Duration) {
        let mut senders = self.kept.senders.lock();
        let (begun, sketch) = senders.get_or_insert_with(|| (now, Sketch::new(SENDERS, Costs::default())));
        if now.saturating_sub(*begun) >= MINUTE {
            *begun = now;
            sketch.clear();
        }
        for message in rows.iter().filter_map(|row| row.entry.content.message()) {
            sketch.add(message.sender_id, Work { entries: 1, ..Work::default() });
        }
        drop(senders);
        let changes = rows.iter().filter(|row| row.entry.content.change().is_some()).count();
        if changes > 0 {
            self.kept.changes.fetch_add(changes as u64, Ordering::AcqRel);
        }
    }
}

fn join_again_ms(level: Level, refused: u64) -> u64 {
    spread_ms(JOIN_AGAIN_MS[(level as usize).saturating_sub(1).min(2)], refused)
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
        let hot = HotChannel::new(Level::Hot, pacing.hot, None, None);
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
        let blazing = HotChannel::new(Level::Blazing, pacing.blazing, None, Some(&hot));
        assert!(joined(&blazing, 1_000).iter().all(Result::is_err));
        let later = joined(&blazing, 3_000).iter().filter(|taken| taken.is_ok()).count();
        assert!((1..=50).contains(&later), "{later}");
        let closed = OverrideSettings { joins_per_second: Some(0), ..OverrideSettings::default() };
        let closed = HotChannel::new(Level::Blazing, pacing.blazing, Some(&closed), Some(&blazing));
        assert!(joined(&closed, 60_000).iter().all(Result::is_err));
        let JoinRow { admitted, refused, wait_ms } = closed.joins(Duration::from_secs(60));
        assert_eq!((admitted, refused), (100 + later as u64, 8_000 - 100 - later as u64));
        assert!((7_500.0..=15_000.0).contains(&wait_ms.p50), "{wait_ms:?}");
    }
}
