//! Hot channels on this node: counts what channels cost, decides once a second how hot they are, and says how they are paced.
//!
//! The rules are in `engine::heat`. Reading a level costs two loads from memory, because almost no channel has one.

mod hot;
mod lag;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_engine::heat::{Capacity, Channels, HeatConfig, Level, LevelChange, Sketch, Work};
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId};
use madang_proto::Pacing;
use madang_service::{Clock, Drain};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::ChatMetrics;
use hot::comes_or_goes;
use lag::Lag;

pub use hot::HotChannel;

/// Counters of a node: every channel with more than 1/512 of its cost is seen. About 80 KiB.
const COUNTERS: usize = 512;
/// The time between two decisions.
const SECOND: Duration = Duration::from_secs(1);

/// The channels that are above the level normal.
pub type HotChannels = HashMap<ChannelId, HotChannel>;

/// The channels of this node.
pub struct Heats {
    config: HeatConfig,
    /// `false`: nothing is counted, and nothing is hot.
    is_on: bool,
    sketch: Mutex<Sketch<ChannelId>>,
    hot: ArcSwap<HotChannels>,
    /// Woken when `hot` has changed.
    changed: Notify,
    state: Mutex<State>,
    decided: AtomicU64,
    metrics: ChatMetrics,
}

struct State {
    channels: Channels,
    capacity: Capacity,
}

impl Heats {
    /// Nothing is hot.
    #[must_use]
    pub fn new(config: HeatConfig, is_on: bool, metrics: ChatMetrics) -> Self {
        Self {
            config,
            is_on,
            sketch: Mutex::new(Sketch::new(COUNTERS, config.costs)),
            hot: ArcSwap::default(),
            changed: Notify::new(),
            state: Mutex::new(State {
                channels: Channels::default(),
                capacity: Capacity::new(config.capacity),
            }),
            decided: AtomicU64::new(0),
            metrics,
        }
    }

    /// Rows were appended to a log.
    pub fn appended(&self, log: LogId, rows: &[Row]) {
        let LogId::Channel(channel) = log else { return };
        let joins = rows.iter().filter(|row| comes_or_goes(&row.entry.content)).count() as u64;
        self.count(channel, Work { entries: rows.len() as u64 - joins, joins, ..Work::default() });
        if let Some(hot) = self.hot(channel) {
            hot.note_changes(rows);
        }
    }

    /// Rows were sent to receivers of this node.
    pub fn delivered(&self, channel: ChannelId, rows: usize, receivers: u64, bytes: usize) {
        if receivers > 0 {
            let (deliveries, bytes) = (rows as u64 * receivers, bytes as u64 * receivers);
            self.count(channel, Work { deliveries, bytes, ..Work::default() });
        }
    }

    /// History was read from the store.
    pub fn read(&self, channel: ChannelId) {
        self.count(channel, Work { reads: 1, ..Work::default() });
    }

    fn count(&self, channel: ChannelId, work: Work) {
        if self.is_on {
            self.sketch.lock().add(channel, work);
        }
    }

    /// A channel that is above the level normal.
    #[must_use]
    pub fn hot(&self, channel: ChannelId) -> Option<HotChannel> {
        self.hot.load().get(&channel).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Arc<HotChannels> {
        self.hot.load_full()
    }

    /// How hot a channel is.
    #[must_use]
    pub fn level(&self, channel: ChannelId) -> Level {
        self.hot.load().get(&channel).map(|hot| hot.level).unwrap_or_default()
    }

    /// What clients are notified of, for a channel.
    #[must_use]
    pub fn notice(&self, channel: ChannelId) -> Pacing {
        self.hot.load().get(&channel).map(HotChannel::notice).unwrap_or_default()
    }

    /// For how long entries of a channel wait for others.
    #[must_use]
    pub fn window(&self, channel: ChannelId) -> Duration {
        self.hot.load().get(&channel).map(HotChannel::window).unwrap_or_default()
    }

    /// Waits until some channel has another level. Cancel safe; for one caller.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How often it was decided.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Acquire)
    }

    /// Decides once a second, until the drain begins.
    pub async fn run(self: Arc<Self>, clock: Clock, drain: Drain) {
        let mut lag = Lag::default();
        let mut next = clock.elapsed() + SECOND;
        loop {
            tokio::select! {
                () = lag.measure() => continue,
                () = clock.sleep_until(next) => {}
                () = drain.draining() => return,
            }
            next = clock.elapsed() + SECOND;
            let changes = self.decide(lag.take());
            for LevelChange { channel, from, to, rate, cause } in changes {
                self.metrics.heat_changes.inc();
                tracing::info!(channel.id = %channel, from = from.as_str(), to = to.as_str(), cause = cause.as_str(), rate, "a channel has another level of heat");
            }
        }
    }

    fn decide(&self, lag: Duration) -> Vec<LevelChange> {
        let mut state = self.state.lock();
        let bars = state.capacity.bars();
        let (counted, total) = {
            let mut sketch = self.sketch.lock();
            // What matters is above the lowest bar, and what keeps a level is above three fifths of it.
            let taken = (sketch.above(bars.0[0] / 4.0), sketch.total());
            sketch.clear();
            taken
        };
        state.capacity.observe(total, lag.as_secs_f64() * 1_000.0);
        let reports: BTreeMap<ChannelId, Work> =
            counted.into_iter().map(|counted| (counted.key, counted.work)).collect();
        let changes = state.channels.observe(&reports, &bars, &self.config.costs);
        if !changes.is_empty() {
            self.publish(state.channels.hot());
        }
        self.decided.fetch_add(1, Ordering::AcqRel);
        changes
    }

    fn publish(&self, levels: impl Iterator<Item = (ChannelId, Level)>) {
        let before = self.hot.load();
        let hot: HotChannels = levels
            .map(|(channel, level)| {
                let pacing = self.config.pacing.of(level);
                let known = before.get(&channel);
                (
                    channel,
                    known.map_or_else(|| HotChannel::new(level, pacing), |known| known.at(level, pacing)),
                )
            })
            .collect();
        for level in [Level::Warm, Level::Hot, Level::Blazing] {
            let count = hot.values().filter(|found| found.level == level).count();
            self.metrics.hot_channels(level.as_str()).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.hot.store(Arc::new(hot));
        self.changed.notify_one();
    }
}
