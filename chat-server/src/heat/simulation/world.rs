//! A fleet of [`Heats`] with clocks that stand still between its steps, and the traffic of its channels.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;
use std::time::Duration;

use madang_engine::heat::{HeatReport, Level, Work};
use madang_ids::{ChannelId, Millis, NodeEpoch, NodeId, NodeRun, rendezvous};
use madang_service::{Clock, ManualClock, Metrics};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{HeatSettings, Heats, SECOND};
use crate::metrics::ChatMetrics;

/// The wall clock of a node whose clock is right, when the run begins.
pub(super) const START: Millis = Millis::new(1_700_000_000_000);
/// Seconds of a day. Short, so that an hour sees all of it.
const DAY: f64 = 3_600.0;
/// One frame of 50 between nodes is lost.
const LOST: f64 = 0.02;

/// One node.
pub(super) struct Node {
    pub(super) run: NodeRun,
    pub(super) heats: Heats,
    hand: ManualClock,
    pub(super) is_alive: bool,
    /// The levels that held here, and how often each has changed.
    levels: BTreeMap<ChannelId, Level>,
    changes: BTreeMap<ChannelId, usize>,
    /// The homes that have a report of the last second.
    reported: BTreeSet<usize>,
}

/// A channel: entries a second, bytes of each, the subscribers on each node, and users who join in a second.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) id: ChannelId,
    pub(super) entries: f64,
    pub(super) bytes: u64,
    pub(super) subscribers: Vec<u64>,
    pub(super) joins: f64,
}

impl Room {
    /// With subscribers who are spread over the nodes by these shares, and entries that cost this much a second on all of them together.
    pub(super) fn costing(cost: f64, id: u64, subscribers: u64, shares: &[f64]) -> Self {
        let subscribers: Vec<u64> =
            shares.iter().map(|share| (subscribers as f64 * share).round() as u64).collect();
        let all: u64 = subscribers.iter().sum();
        let entry = Work { entries: 1, deliveries: all, bytes: all * 200, ..Work::default() };
        let entries = cost / entry.cost(&HeatSettings::default().config.costs);
        Self { id: ChannelId::from_raw(id), entries, bytes: 200, subscribers, joins: 0.0 }
    }
}

/// A fleet. Count traffic with [`talk`](Self::talk) and [`count`](Self::count), then call [`step`](Self::step): each node decides, reports
/// to homes and answers reports, in the order of `Homes::run_heat`.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: StdRng,
    pub(super) second: u64,
    pub(super) nodes: Vec<Node>,
    /// The nodes that the others believe to be alive.
    pub(super) known: Vec<u16>,
    /// How late timers are.
    pub(super) lag: Duration,
}

impl World {
    /// The clock of each node is ahead by this many milliseconds.
    pub(super) fn new(seed: u64, settings: &HeatSettings, ahead_ms: &[u64]) -> Self {
        let node = |(id, ahead): (u16, &u64)| {
            let (clock, hand) = Clock::manual(START.plus(*ahead));
            let metrics = ChatMetrics::register(&Metrics::new());
            let heats = Heats::new(settings.clone(), true, clock, metrics);
            heats.set_nodes(ahead_ms.len());
            let run = NodeRun { node: NodeId(id), epoch: NodeEpoch(1) };
            let (levels, changes) = (BTreeMap::new(), BTreeMap::new());
            let reported = BTreeSet::new();
            Node { run, heats, hand, is_alive: true, levels, changes, reported }
        };
        let nodes: Vec<Node> = (0..).zip(ahead_ms).map(node).collect();
        let known = nodes.iter().map(|node| node.run.node.0).collect();
        let random = StdRng::seed_from_u64(seed);
        Self { seed, random, second: 0, nodes, known, lag: Duration::ZERO }
    }

    /// The node that orders the log of a channel.
    pub(super) fn home(&self, channel: ChannelId) -> usize {
        rendezvous::owner(channel.raw(), self.known.iter().copied()).unwrap().into()
    }

    /// The swing of a day, around one.
    pub(super) fn daytime(&self) -> f64 {
        0.4f64.mul_add((self.second as f64 / DAY * TAU).sin(), 1.0)
    }

    /// Counts one second of a channel: entries and joins at its home, deliveries on the nodes of its subscribers.
    pub(super) fn talk(&mut self, room: &Room, factor: f64) {
        let home = self.home(room.id);
        let entries = poisson(room.entries * factor, &mut self.random);
        let joins = poisson(room.joins * factor, &mut self.random);
        if !self.nodes[home].is_alive || entries + joins == 0 {
            return;
        }
        self.count(home, room.id, Work { entries, joins, ..Work::default() });
        for (node, subscribers) in self.nodes.iter().zip(&room.subscribers) {
            node.heats.delivered(room.id, entries as usize, *subscribers, (entries * room.bytes) as usize);
        }
    }

    /// Counts work on one node.
    pub(super) fn count(&self, node: usize, channel: ChannelId, work: Work) {
        self.nodes[node].heats.count(channel, work);
    }

    /// A second is over.
    pub(super) fn step(&mut self) {
        self.second += 1;
        for node in self.nodes.iter().filter(|node| node.is_alive) {
            node.hand.advance(SECOND);
            node.heats.decide(Some(self.lag));
        }
        for from in 0..self.nodes.len() {
            if self.nodes[from].is_alive {
                self.report(from);
                self.answer(from);
            }
        }
        self.nodes.iter_mut().for_each(Node::note_changes);
    }

    fn report(&mut self, from: usize) {
        let last = std::mem::take(&mut self.nodes[from].reported).into_iter();
        let mut of_home: BTreeMap<usize, Vec<HeatReport>> = last.map(|home| (home, Vec::new())).collect();
        for report in self.nodes[from].heats.own_reports() {
            let home = self.home(report.channel);
            if home != from {
                of_home.entry(home).or_default().push(report);
                self.nodes[from].reported.insert(home);
            }
        }
        for (home, reports) in of_home {
            if self.arrives(home) {
                self.nodes[home].heats.handle_report(self.nodes[from].run, reports);
            }
        }
    }

    fn answer(&mut self, from: usize) {
        for (to, levels) in self.nodes[from].heats.answers() {
            let to = usize::from(to.node.0);
            if self.arrives(to) {
                self.nodes[to].heats.handle_levels(levels);
            }
        }
    }

    fn arrives(&mut self, to: usize) -> bool {
        self.random.random::<f64>() >= LOST && self.nodes.get(to).is_some_and(|node| node.is_alive)
    }

    /// How often the level of a channel has changed, on the node where that was most often.
    pub(super) fn changes(&self, channel: ChannelId) -> usize {
        let of_node = |node: &Node| node.changes.get(&channel).copied().unwrap_or_default();
        self.nodes.iter().map(of_node).max().unwrap_or_default()
    }

    /// The level of a channel on each node that is alive.
    pub(super) fn levels(&self, channel: ChannelId) -> Vec<Level> {
        let alive = self.nodes.iter().filter(|node| node.is_alive);
        alive.map(|node| node.heats.level(channel)).collect()
    }
}

impl Node {
    fn note_changes(&mut self) {
        let hot = self.heats.all();
        let now: BTreeMap<ChannelId, Level> =
            hot.iter().map(|(channel, hot)| (*channel, hot.level)).collect();
        for channel in now.keys().chain(self.levels.keys().filter(|channel| !now.contains_key(channel))) {
            if now.get(channel).copied().unwrap_or_default()
                != self.levels.get(channel).copied().unwrap_or_default()
            {
                *self.changes.entry(*channel).or_default() += 1;
            }
        }
        self.levels = now;
    }
}

/// Channels whose costs follow a Zipf law and sum up to `total` a second, on nodes that have equal shares.
pub(super) fn zipf(count: u32, total: f64, nodes: usize) -> Vec<Room> {
    let weight = |rank: u32| f64::from(rank).powf(-1.07);
    let sum: f64 = (1..=count).map(weight).sum();
    let shares = vec![1.0 / nodes as f64; nodes];
    let room = |rank: u32| {
        let subscribers = u64::from(2_000 / rank).max(3);
        let room =
            Room::costing(total * weight(rank) / sum, 1_000_000 + u64::from(rank), subscribers, &shares);
        Room { joins: room.entries / 100.0, ..room }
    };
    (1..=count).map(room).collect()
}

/// How many of independent events happen in a second: exact (Knuth) if they are few, otherwise the normal distribution.
pub(super) fn poisson(mean: f64, random: &mut StdRng) -> u64 {
    if mean > 30.0 {
        let (one, other) = (1.0 - random.random::<f64>(), random.random::<f64>());
        let normal = (-2.0 * one.ln()).sqrt() * (TAU * other).cos();
        return mean.sqrt().mul_add(normal, mean).round().max(0.0) as u64;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), random.random::<f64>(), 0);
    while product > limit {
        product *= random.random::<f64>();
        count += 1;
    }
    count
}
