//! Hot channels on this node: counts what channels cost, decides once a second how hot they are, and says how they are paced.
//!
//! The rules are in `engine::heat`. Reading a level costs two loads from memory, because almost no channel has one.

mod lag;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_engine::heat::{Capacity, CapacityConfig, Channels, Costs, Level, LevelChange, Sketch, Work};
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId};
use madang_proto::Content;
use madang_service::{Clock, Drain};
use parking_lot::Mutex;

use crate::metrics::ChatMetrics;
use lag::Lag;

/// Counters of a node: every channel with more than 1/512 of its cost is seen. About 80 KiB.
const COUNTERS: usize = 512;
/// The time between two decisions.
const SECOND: Duration = Duration::from_secs(1);

/// How channels are paced, by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Milliseconds for which entries of open channels wait for others, so that they leave together: warm, hot, blazing.
    pub windows_ms: [u64; 3],
}

impl Default for Pacing {
    fn default() -> Self {
        Self { windows_ms: [100, 500, 1_000] }
    }
}

/// What may change while the server runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HeatConfig {
    /// What things cost.
    pub costs: Costs,
    /// From which cost on channels are hot.
    pub capacity: CapacityConfig,
    /// What follows.
    pub pacing: Pacing,
}

/// The channels of this node.
pub struct Heats {
    config: HeatConfig,
    sketch: Mutex<Sketch<ChannelId>>,
    /// The levels of channels that have one above normal.
    levels: ArcSwap<HashMap<ChannelId, Level>>,
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
    pub fn new(config: HeatConfig, metrics: ChatMetrics) -> Self {
        Self {
            config,
            sketch: Mutex::new(Sketch::new(COUNTERS, config.costs)),
            levels: ArcSwap::default(),
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
        let comes_or_goes = |row: &&Row| {
            matches!(
                row.entry.content,
                Content::Joined { .. } | Content::Left { .. } | Content::Banned { .. }
            )
        };
        let joins = rows.iter().filter(comes_or_goes).count() as u64;
        self.count(channel, Work { entries: rows.len() as u64 - joins, joins, ..Work::default() });
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
        self.sketch.lock().add(channel, work);
    }

    /// How hot a channel is.
    #[must_use]
    pub fn level(&self, channel: ChannelId) -> Level {
        self.levels.load().get(&channel).copied().unwrap_or_default()
    }

    /// For how long entries of an open channel wait for others.
    #[must_use]
    pub fn window(&self, channel: ChannelId) -> Duration {
        match self.level(channel) {
            Level::Normal => Duration::ZERO,
            level => Duration::from_millis(self.config.pacing.windows_ms[level as usize - 1]),
        }
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
            let hot: HashMap<ChannelId, Level> = state.channels.hot().collect();
            for level in [Level::Warm, Level::Hot, Level::Blazing] {
                let count = hot.values().filter(|found| **found == level).count();
                self.metrics.hot_channels(level.as_str()).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            self.levels.store(Arc::new(hot));
        }
        self.decided.fetch_add(1, Ordering::AcqRel);
        changes
    }
}
