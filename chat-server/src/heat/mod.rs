//! Hot channels on this node: counts what channels cost, decides once a second how hot they are, and says how they are paced.
//!
//! The rules are in `engine::heat`. [`hot`] keeps what a hot channel needs, [`records`] what the board shows of channels, [`settings`] what
//! operators have set. Reading a level costs two loads from memory, because almost no channel has one.

mod hot;
mod lag;
mod recent;
mod records;
mod settings;
mod shared;
mod shown;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_engine::heat::{Bars, Capacity, Channels, HeatReport, Level, LevelChange, Sketch, Work};
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Millis, NodeRun};
use madang_proto::Pacing;
use madang_service::{Clock, Drain};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::ChatMetrics;
use hot::comes_or_goes;
use lag::Lag;
use recent::Recent;
use records::{Records, Second};
use shared::Shared;

pub use hot::{HotChannel, Paced, Saving};
pub use settings::HeatSettings;
pub use shown::NodeHeat;
pub(crate) use shown::rank;

/// Counters of a node: every channel with more than 1/512 of its cost is seen. About 80 KiB.
const COUNTERS: usize = 512;
/// The memory of the channels of note: at most one for each counter, with an hour of history and five minutes of seconds.
pub(crate) const HEAT_BYTES: u64 = COUNTERS as u64 * 32 * 1024;
/// The time between two decisions.
const SECOND: Duration = Duration::from_secs(1);
/// How soon a channel is found that costs as much as a blazing one: a second of such a channel would be felt by all others.
const LOOK: Duration = Duration::from_millis(100);

/// The channels that are above the level normal, and those for which an operator has set something.
pub type HotChannels = HashMap<ChannelId, HotChannel>;

/// The channels of this node.
pub struct Heats {
    /// `false`: nothing is counted, and nothing is hot.
    is_on: bool,
    clock: Clock,
    settings: ArcSwap<HeatSettings>,
    sketch: Mutex<Sketch<ChannelId>>,
    hot: ArcSwap<HotChannels>,
    /// Woken when `hot` has changed.
    changed: Notify,
    state: Mutex<State>,
    /// The ages of entries of direct channels and groups when they were delivered.
    bystanders: Mutex<Recent>,
    waits: Mutex<Lag>,
    decided: AtomicU64,
    /// Nodes of the fleet.
    nodes: AtomicUsize,
    metrics: ChatMetrics,
}

struct State {
    channels: Channels,
    shared: Shared,
    capacity: Capacity,
    records: Records,
    /// Of the last second.
    cost: f64,
    lag: Duration,
}

impl Heats {
    /// Nothing is hot.
    #[must_use]
    pub fn new(settings: HeatSettings, is_on: bool, clock: Clock, metrics: ChatMetrics) -> Self {
        let config = settings.config;
        Self {
            is_on,
            clock,
            settings: ArcSwap::from_pointee(settings),
            sketch: Mutex::new(Sketch::new(COUNTERS, config.costs)),
            hot: ArcSwap::default(),
            changed: Notify::new(),
            state: Mutex::new(State {
                channels: Channels::default(),
                shared: Shared::default(),
                capacity: Capacity::new(config.capacity),
                records: Records::default(),
                cost: 0.0,
                lag: Duration::ZERO,
            }),
            bystanders: Mutex::default(),
            waits: Mutex::default(),
            decided: AtomicU64::new(0),
            nodes: AtomicUsize::new(1),
            metrics,
        }
    }

    /// Of a test that is about something else.
    #[cfg(test)]
    pub(crate) fn of_a_test(clock: &Clock) -> Arc<Self> {
        let metrics = ChatMetrics::register(&madang_service::Metrics::new());
        Arc::new(Self::new(HeatSettings::default(), true, clock.clone(), metrics))
    }

    /// Rows were appended to a log.
    pub fn appended(&self, log: LogId, rows: &[Row]) {
        let LogId::Channel(channel) = log else { return };
        let joins = rows.iter().filter(|row| comes_or_goes(&row.entry.content)).count() as u64;
        self.count(channel, Work { entries: rows.len() as u64 - joins, joins, ..Work::default() });
        if let Some(hot) = self.hot(channel) {
            hot.note_rows(rows, self.clock.elapsed());
        }
    }

    /// Rows were sent to receivers of this node.
    pub fn delivered(&self, channel: ChannelId, rows: usize, receivers: u64, bytes: usize) {
        if receivers > 0 {
            let (deliveries, bytes) = (rows as u64 * receivers, bytes as u64 * receivers);
            self.count(channel, Work { deliveries, bytes, ..Work::default() });
            if let Some(hot) = self.hot(channel) {
                hot.note_frames(receivers);
            }
        }
    }

    /// Counts of a channel that is hot, or for which an operator has set something.
    #[must_use]
    pub fn paced(&self, channel: ChannelId) -> Option<Paced> {
        self.hot.load().get(&channel).map(HotChannel::paced)
    }

    /// Rows of a direct channel or a group, of which this is the last one, were sent to receivers of this node.
    pub fn delivered_beside(&self, channel: ChannelId, last: &Row) {
        let age = self.clock.now_ms().get().saturating_sub(last.entry.at.get());
        let now = self.clock.elapsed();
        self.bystanders.lock().record(age, now);
        if let Some(hot) = self.hot(channel) {
            hot.note_age(age, now);
        }
    }

    /// History was read from the store.
    pub fn read(&self, channel: ChannelId) {
        self.count(channel, Work { reads: 1, ..Work::default() });
    }

    /// Some work has waited this long for its turn.
    pub fn note_wait(&self, wait: Duration) {
        self.waits.lock().note(wait);
    }

    fn count(&self, channel: ChannelId, work: Work) {
        if self.is_on {
            self.sketch.lock().add(channel, work);
        }
    }

    /// A channel that is above the level normal, or for which an operator has set something.
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

    /// The name of the node that an operator does not want as the home of a channel.
    #[must_use]
    pub fn away_from(&self, channel: ChannelId) -> Option<Arc<str>> {
        self.hot.load().get(&channel)?.away_from.clone()
    }

    /// For how long entries of a channel wait for others.
    #[must_use]
    pub fn window(&self, channel: ChannelId) -> Duration {
        self.hot.load().get(&channel).map(HotChannel::window).unwrap_or_default()
    }

    /// Waits until some channel is paced in another way. Cancel safe; for one caller.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How often it was decided.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Acquire)
    }

    /// The number of nodes that report to homes.
    pub fn set_nodes(&self, nodes: usize) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }

    /// Another node reports to homes on this one.
    pub fn handle_report(&self, from: NodeRun, reports: Vec<HeatReport>) {
        self.state.lock().shared.handle_report(from, reports, self.clock.elapsed());
    }

    /// Homes on another node have decided. It holds at once.
    pub fn handle_levels(&self, levels: Vec<(ChannelId, Level)>) {
        let mut state = self.state.lock();
        state.shared.handle_levels(levels, self.clock.elapsed());
        self.publish(&state);
    }

    /// What this node has to report of the last second.
    #[must_use]
    pub fn own_reports(&self) -> Vec<HeatReport> {
        self.state.lock().shared.own()
    }

    /// What the homes of this node answer to those that have reported.
    #[must_use]
    pub fn answers(&self) -> Vec<(NodeRun, Vec<(ChannelId, Level)>)> {
        self.state.lock().shared.answers()
    }

    /// Other settings hold from now on, at once.
    pub fn configure(&self, settings: HeatSettings) {
        let mut state = self.state.lock();
        let before = self.settings.swap(Arc::new(settings));
        let settings = self.settings.load();
        state.capacity.configure(settings.config.capacity);
        if before.config.costs != settings.config.costs {
            *self.sketch.lock() = Sketch::new(COUNTERS, settings.config.costs);
        }
        self.publish(&state);
    }

    /// Decides once a second, until the drain begins.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        let clock = self.clock.clone();
        let mut next = clock.elapsed() + SECOND;
        loop {
            tokio::select! {
                () = clock.sleep_until(next.min(clock.elapsed() + LOOK)) => {}
                () = drain.draining() => return,
            }
            let is_over = clock.elapsed() >= next;
            if !is_over && !self.is_blazing_up() {
                continue;
            }
            next = clock.elapsed() + SECOND;
            for LevelChange { channel, from, to, rate, cause } in
                self.decide(is_over.then(|| self.take_waits()))
            {
                self.metrics.heat_changes.inc();
                tracing::info!(channel.id = %channel, from = from.as_str(), to = to.as_str(), cause = cause.as_str(), rate, "a channel has another level of heat");
            }
        }
    }

    /// Whether a channel has cost as much as one that is blazing, although the second is not over: then it is decided now.
    fn is_blazing_up(&self) -> bool {
        let blazing = self.state.lock().capacity.bars().of(Level::Blazing);
        let above = self.sketch.lock().above(blazing);
        above.iter().any(|counted| self.level(counted.key) < Level::Blazing && !self.is_set(counted.key))
    }

    fn is_set(&self, channel: ChannelId) -> bool {
        self.hot.load().get(&channel).is_some_and(|hot| hot.is_set)
    }

    fn take_waits(&self) -> Duration {
        self.waits.lock().take()
    }

    /// `lag` is how long work has waited in the second that is over; `None` if it is not.
    fn decide(&self, lag: Option<Duration>) -> Vec<LevelChange> {
        let mut state = self.state.lock();
        let costs = self.settings.load().config.costs;
        let bars = state.capacity.bars();
        let (reports, total) = self.take_counted(&bars);
        if let Some(lag) = lag {
            state.capacity.observe(total, lag.as_secs_f64() * 1_000.0);
            (state.cost, state.lag) = (total, lag);
        }
        let changes = state.channels.observe(&reports, &bars, &costs);
        state.shared.decide(&reports, (&bars, &costs), self.clock.elapsed());
        // Each second, not only after a change: an override may have ended.
        self.publish(&state);
        let hot = self.hot.load();
        let level = |channel| hot.get(&channel).map_or((Level::Normal, false), |hot| (hot.level, hot.is_set));
        let second = Second { at: self.clock.now_ms(), reports: &reports, bars: &bars, costs: &costs };
        state.records.observe(&second, level);
        // What an operator has set is no finding: the home must not go on with it after its end.
        let measured = measured(&state);
        let measured = |channel| measured.get(&channel).copied().unwrap_or_default();
        state.shared.note_own(&reports, &costs, measured);
        self.decided.fetch_add(1, Ordering::AcqRel);
        changes
    }

    fn take_counted(&self, bars: &Bars) -> (BTreeMap<ChannelId, Work>, f64) {
        let mut sketch = self.sketch.lock();
        // What matters is above the lowest bar, and what keeps a level is above three fifths of it; in a fleet all nodes together.
        #[expect(clippy::cast_precision_loss, reason = "a fleet has fewer than 2^52 nodes")]
        let nodes = self.nodes.load(Ordering::Relaxed).max(1) as f64;
        let (counted, total) = (sketch.above(bars.0[0] / 4.0 / nodes), sketch.total());
        sketch.clear();
        (counted.into_iter().map(|counted| (counted.key, counted.work)).collect(), total)
    }

    /// Makes the levels and what operators have set known to the whole node.
    fn publish(&self, state: &State) {
        let (settings, before, now) = (self.settings.load(), self.hot.load(), self.clock.now_ms());
        let levels = measured(state);
        let set = settings.overrides.iter().filter(|(_, set)| set.ends_at > now);
        let all: BTreeSet<ChannelId> =
            levels.keys().copied().chain(set.map(|(channel, _)| *channel)).collect();
        if all.is_empty() && before.is_empty() {
            return;
        }
        let hot = all.into_iter().map(|channel| {
            let level = levels.get(&channel).copied().unwrap_or_default();
            (channel, self.effective(channel, level, &settings, now, before.get(&channel)))
        });
        let hot: HotChannels = hot.collect();
        for level in [Level::Warm, Level::Hot, Level::Blazing] {
            let count = hot.values().filter(|found| found.level == level).count();
            self.metrics.hot_channels(level.as_str()).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.hot.store(Arc::new(hot));
        self.changed.notify_one();
    }

    /// A channel with the level that was measured, and with what an operator has set.
    fn effective(
        &self,
        channel: ChannelId,
        measured: Level,
        settings: &HeatSettings,
        now: Millis,
        before: Option<&HotChannel>,
    ) -> HotChannel {
        let set = settings.overrides.get(&channel).filter(|set| set.ends_at > now);
        let level = set.and_then(|set| set.settings.level).unwrap_or(measured);
        let pacing = settings.config.pacing.of(level);
        let mut hot = HotChannel::new(level, pacing, set.map(|set| &set.settings), before);
        hot.away_from = set.and_then(|set| set.away_from.as_deref()).map(Arc::from);
        hot
    }
}

/// The hottest level of each channel that this node or a home has decided.
fn measured(state: &State) -> BTreeMap<ChannelId, Level> {
    let mut levels: BTreeMap<ChannelId, Level> = state.channels.hot().collect();
    for (channel, level) in state.shared.levels() {
        let known = levels.entry(channel).or_default();
        *known = level.max(*known);
    }
    levels
}
