//! Hot channels of a fleet: each node reports what its channels cost to their homes, once a second; the home sums, decides, and sends the
//! level back.
//!
//! Every node decides for itself as well, by its own counts. The hottest of all levels holds, so a node that hears nothing from a home
//! still protects itself. A level that a home has sent holds for [`HOLDS`]: longer than a fleet needs to find that a node has died. The
//! next home begins with the level that the reports name.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use madang_engine::heat::{Bars, Channels, Costs, HeatReport, Level, Work};
use madang_ids::{ChannelId, NodeRun};

/// Channels of one report. The costliest are in it.
pub(crate) const REPORTED: usize = 64;
/// How long a report counts if no newer one comes.
const REPORT_HOLDS: Duration = Duration::from_secs(3);
/// How long the level of a home holds if nothing newer comes.
pub(super) const HOLDS: Duration = Duration::from_secs(20);
/// Channels whose levels other nodes have sent, at most.
pub(super) const SENT: usize = 4_096;
/// Channels that homes on this node watch, at most. A channel beyond it keeps the level that each node decides for itself.
pub(super) const SUMMED: usize = 4_096;
/// A node does not do more than this in a second; a report beyond it counts as this much.
const MOST: u64 = 1_000_000_000;

/// What this node knows from others.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The last reports of other nodes to homes on this one.
    reports: HashMap<NodeRun, (Duration, Vec<HeatReport>)>,
    /// The channels of homes on this node, summed over all nodes.
    summed: Channels,
    /// Levels that homes on other nodes have decided, and until when they hold.
    sent: HashMap<ChannelId, (Level, Duration)>,
    /// What this node has to report.
    own: Vec<HeatReport>,
}

impl Shared {
    /// Another node reports to homes on this one.
    pub(super) fn handle_report(&mut self, from: NodeRun, mut reports: Vec<HeatReport>, now: Duration) {
        reports.truncate(REPORTED);
        reports.iter_mut().for_each(|report| report.work = clamp(report.work));
        self.reports.insert(from, (now, reports));
    }

    /// Homes on another node have decided.
    pub(super) fn handle_levels(&mut self, levels: Vec<(ChannelId, Level)>, now: Duration) {
        for (channel, level) in levels.into_iter().take(REPORTED) {
            if level == Level::Normal {
                self.sent.remove(&channel);
            } else if self.sent.len() < SENT || self.sent.contains_key(&channel) {
                self.sent.insert(channel, (level, now + HOLDS));
            }
        }
    }

    /// Sums what was reported within the last seconds, and decides.
    pub(super) fn decide(
        &mut self,
        own: &BTreeMap<ChannelId, Work>,
        (bars, costs): (&Bars, &Costs),
        now: Duration,
    ) {
        self.reports.retain(|_, (at, _)| now.saturating_sub(*at) <= REPORT_HOLDS);
        self.sent.retain(|_, (_, until)| *until > now);
        let mut sums: BTreeMap<ChannelId, Work> = BTreeMap::new();
        let has_work = |report: &&HeatReport| report.work != Work::default();
        for report in self.reports.values().flat_map(|(_, reports)| reports).filter(has_work) {
            if self.summed.watched() >= SUMMED && self.summed.level(report.channel).is_none() {
                continue;
            }
            let sum = sums
                .entry(report.channel)
                .or_insert_with(|| own.get(&report.channel).copied().unwrap_or_default());
            *sum = sum.and(report.work);
            // A home that has died may have decided before this one.
            self.summed.adopt(report.channel, report.level);
        }
        self.summed.observe(&sums, bars, costs);
    }

    /// The levels that follow from what others have said.
    pub(super) fn levels(&self) -> impl Iterator<Item = (ChannelId, Level)> + '_ {
        let sent = self.sent.iter().map(|(channel, (level, _))| (*channel, *level));
        self.summed.hot().chain(sent)
    }

    /// Notes what this node has to report: the costliest channels, with the levels that were measured.
    ///
    /// Also channels of which nothing is worth a report, as long as the level of a home holds for them: the home answers. Otherwise a
    /// channel that pauses for [`HOLDS`], or costs little on this node, would lose its level here and get it back.
    pub(super) fn note_own(
        &mut self,
        own: &BTreeMap<ChannelId, Work>,
        costs: &Costs,
        level: impl Fn(ChannelId) -> Level,
    ) {
        let report = |(channel, work): (&ChannelId, &Work)| HeatReport {
            channel: *channel,
            work: *work,
            level: level(*channel),
        };
        let none = Work::default();
        let asked = self.sent.keys().filter(|channel| !own.contains_key(channel));
        self.own = own.iter().chain(asked.map(|channel| (channel, &none))).map(report).collect();
        self.own.sort_by(|one, other| other.work.cost(costs).total_cmp(&one.work.cost(costs)));
        self.own.truncate(REPORTED);
    }

    pub(super) fn own(&self) -> Vec<HeatReport> {
        self.own.clone()
    }

    /// Channels that homes watch, levels that were sent, and reports that count.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        let reported = self.reports.values().map(|(_, reports)| reports.len()).sum();
        [self.summed.watched(), self.sent.len(), reported]
    }

    /// What the homes of this node answer to each node that has reported: the levels of its channels that are hot, or that the node
    /// believes to be. Nothing about a channel of which the home has not decided yet: the level of the last home goes on.
    pub(super) fn answers(&self) -> Vec<(NodeRun, Vec<(ChannelId, Level)>)> {
        let answer = |(node, (_, reports)): (&NodeRun, &(Duration, Vec<HeatReport>))| {
            let levels = reports.iter().filter_map(|report| {
                let level = self.summed.level(report.channel)?;
                (level > Level::Normal || report.level > Level::Normal).then_some((report.channel, level))
            });
            (*node, levels.collect::<Vec<_>>())
        };
        self.reports.iter().map(answer).filter(|(_, levels)| !levels.is_empty()).collect()
    }
}

/// Reports from outside are not trusted to be sane.
fn clamp(work: Work) -> Work {
    let Work { entries, deliveries, bytes, joins, reads } = work;
    Work {
        entries: entries.min(MOST),
        deliveries: deliveries.min(MOST),
        bytes: bytes.min(MOST * 1_000),
        joins: joins.min(MOST),
        reads: reads.min(MOST),
    }
}

#[cfg(test)]
mod tests {
    use madang_ids::{NodeEpoch, NodeId};

    use super::*;

    const BARS: Bars = Bars([100.0, 400.0, 1_000.0]);
    const TEA: ChannelId = ChannelId::from_raw(7);

    fn node(id: u16) -> NodeRun {
        NodeRun { node: NodeId(id), epoch: NodeEpoch(1) }
    }

    fn report(entries: u64, level: Level) -> Vec<HeatReport> {
        vec![HeatReport { channel: TEA, work: Work { entries, ..Work::default() }, level }]
    }

    fn seconds(
        shared: &mut Shared,
        range: std::ops::Range<u64>,
        mut each: impl FnMut(&mut Shared, Duration),
    ) {
        for second in range {
            let now = Duration::from_secs(second);
            each(shared, now);
            shared.decide(&BTreeMap::new(), (&BARS, &Costs::default()), now);
        }
    }

    #[test]
    fn the_home_sums_what_no_node_alone_would_call_hot() {
        let mut home = Shared::default();
        seconds(&mut home, 0..3, |home, now| {
            (1..=6).for_each(|id| home.handle_report(node(id), report(80, Level::Normal), now));
        });
        assert_eq!(home.levels().collect::<Vec<_>>(), [(TEA, Level::Hot)]);
        assert_eq!(home.answers().len(), 6);
        assert_eq!(home.answers()[0].1, [(TEA, Level::Hot)]);
        // The nodes are gone, and their reports with them.
        seconds(&mut home, 3..130, |_, _| {});
        assert_eq!(home.levels().count(), 0);
        assert!(home.answers().is_empty());
    }

    #[test]
    fn the_next_home_begins_with_the_level_that_the_reports_name() {
        let mut home = Shared::default();
        seconds(&mut home, 0..1, |home, now| home.handle_report(node(1), report(700, Level::Blazing), now));
        assert_eq!(home.levels().collect::<Vec<_>>(), [(TEA, Level::Blazing)]);
        // And it cools down by its own judgement, whatever the nodes still believe.
        seconds(&mut home, 1..200, |home, now| home.handle_report(node(1), report(10, Level::Blazing), now));
        assert_eq!(home.levels().count(), 0);
        assert_eq!(home.answers(), [(node(1), vec![(TEA, Level::Normal)])], "the node must learn it");
    }

    #[test]
    fn a_level_that_a_home_has_sent_outlives_the_home_for_a_while() {
        let mut shared = Shared::default();
        shared.handle_levels(vec![(TEA, Level::Blazing)], Duration::ZERO);
        seconds(&mut shared, 0..20, |shared, _| assert_eq!(shared.levels().count(), 1));
        seconds(&mut shared, 20..21, |_, _| {});
        assert_eq!(shared.levels().count(), 0);
    }

    #[test]
    fn nonsense_is_bounded() {
        let mut home = Shared::default();
        let mut many: Vec<HeatReport> = Vec::new();
        for id in 0..10_000 {
            let work = Work {
                entries: u64::MAX,
                deliveries: u64::MAX,
                bytes: u64::MAX,
                joins: u64::MAX,
                reads: u64::MAX,
            };
            many.push(HeatReport { channel: ChannelId::from_raw(id), work, level: Level::Blazing });
        }
        seconds(&mut home, 0..2, |home, now| home.handle_report(node(1), many.clone(), now));
        assert_eq!(home.levels().count(), REPORTED);
        home.handle_levels(
            (0..10_000).map(|id| (ChannelId::from_raw(id), Level::Hot)).collect(),
            Duration::ZERO,
        );
        assert_eq!(home.sent.len(), REPORTED);
    }
}
