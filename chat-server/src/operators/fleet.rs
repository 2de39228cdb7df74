//! One board out of those of several nodes.

use std::collections::BTreeMap;

use madang_ids::ChannelId;
use madang_proto::PushProvider;
use madang_proto::rest::{
    Board, GuaranteeRow, HeatPoint, HotDetail, HotRow, JoinRow, Quantiles, Spared, WorkRow,
};

use crate::heat::rank;

/// What a node has at most in its board. What comes from outside is cut.
const SPARK: usize = 30;
const HOUR: usize = 360;
const CHANGES: usize = 20;
const SENDERS: usize = 10;
const GUARANTEES: usize = 16;
/// No node does more in a second. A sum of many stays a number that JSON has.
const COST: f64 = 1e15;
/// Milliseconds of one point of the history. Two nodes that decide the same do it within this time.
const POINT_MS: u64 = 10_000;

/// Cuts a board of another node to what a node may show.
fn bound(board: &mut Board) {
    board.nodes.truncate(1);
    board.nodes.iter_mut().for_each(|node| node.push.truncate(PushProvider::ALL.len()));
    board.guarantees.truncate(GUARANTEES);
    rank(&mut board.channels);
    board.channels.iter_mut().for_each(bound_row);
}

/// The same for a channel in detail.
fn bounded(mut detail: HotDetail) -> HotDetail {
    bound_row(&mut detail.row);
    detail.hour.truncate(HOUR);
    detail.hour.iter_mut().for_each(|point| point.cost = point.cost.min(COST));
    detail.changes.truncate(CHANGES);
    detail.senders.truncate(SENDERS);
    detail
}

fn bound_row(row: &mut HotRow) {
    row.spark.truncate(SPARK);
    row.cost = row.cost.min(COST);
}

/// The board of the fleet, as `own` with what `others` know.
pub(super) fn merge(mut own: Board, others: Vec<Board>) -> Board {
    let mut rows: BTreeMap<ChannelId, HotRow> = BTreeMap::new();
    let mut add = |row: HotRow| match rows.get_mut(&row.channel_id) {
        Some(known) => add_row(known, row),
        None => drop(rows.insert(row.channel_id, row)),
    };
    std::mem::take(&mut own.channels).into_iter().for_each(&mut add);
    for mut other in others {
        bound(&mut other);
        let Board { nodes, channels, guarantees, .. } = other;
        own.nodes.extend(nodes);
        channels.into_iter().for_each(&mut add);
        guarantees.into_iter().for_each(|row| add_guarantee(&mut own.guarantees, row));
    }
    own.nodes.sort_by(|one, other| one.name.cmp(&other.name));
    own.channels = rows.into_values().collect();
    rank(&mut own.channels);
    own
}

/// A channel as all nodes see it.
pub(super) fn merge_details(own: HotDetail, others: Vec<HotDetail>) -> HotDetail {
    others.into_iter().map(bounded).fold(own, |mut sum, other| {
        add_row(&mut sum.row, other.row);
        sum.joins = add_joins(sum.joins, other.joins);
        sum.hour = add_hours(&sum.hour, &other.hour);
        for change in other.changes {
            let same = sum.changes.iter().any(|known| {
                (known.from, known.to) == (change.from, change.to)
                    && known.at.get().abs_diff(change.at.get()) < POINT_MS
            });
            if !same {
                sum.changes.push(change);
            }
        }
        sum.changes.sort_by_key(|change| std::cmp::Reverse(change.at));
        sum.changes.truncate(CHANGES);
        // Messages are counted where they are appended: on the home of the channel.
        if other.senders.len() > sum.senders.len() {
            sum.senders = other.senders;
        }
        sum
    })
}

fn add_row(sum: &mut HotRow, row: HotRow) {
    if row.cost > sum.cost {
        sum.cause = row.cause;
    }
    sum.cost += row.cost;
    sum.work = add_work(sum.work, row.work);
    sum.spared = add_spared(sum.spared, row.spared);
    sum.subscribers += row.subscribers;
    sum.home = sum.home.take().or(row.home);
    if row.level > sum.level {
        (sum.level, sum.since, sum.pacing) = (row.level, row.since, row.pacing);
    } else if row.level == sum.level {
        sum.since = sum.since.min(row.since);
    }
    sum.freshness_ms = worse(sum.freshness_ms, row.freshness_ms);
    sum.spark = add_sparks(&sum.spark, &row.spark);
    sum.kind = sum.kind.or(row.kind);
    sum.name = sum.name.take().or(row.name);
    sum.set = sum.set.take().or(row.set);
}

fn add_guarantee(sums: &mut Vec<GuaranteeRow>, row: GuaranteeRow) {
    match sums.iter_mut().find(|known| known.id == row.id) {
        Some(known) => {
            known.breaches = known.breaches.saturating_add(row.breaches);
            known.last = known.last.max(row.last);
        }
        // A newer version watches more.
        None => sums.push(row),
    }
}

fn worse(one: Quantiles, other: Quantiles) -> Quantiles {
    Quantiles { p50: one.p50.max(other.p50), p99: one.p99.max(other.p99) }
}

fn add_joins(one: JoinRow, other: JoinRow) -> JoinRow {
    JoinRow {
        admitted: one.admitted.saturating_add(other.admitted),
        refused: one.refused.saturating_add(other.refused),
        wait_ms: worse(one.wait_ms, other.wait_ms),
    }
}

fn add_work(one: WorkRow, other: WorkRow) -> WorkRow {
    WorkRow {
        entries: one.entries.saturating_add(other.entries),
        deliveries: one.deliveries.saturating_add(other.deliveries),
        bytes: one.bytes.saturating_add(other.bytes),
        joins: one.joins.saturating_add(other.joins),
        reads: one.reads.saturating_add(other.reads),
    }
}

fn add_spared(one: Spared, other: Spared) -> Spared {
    Spared {
        events: one.events.saturating_add(other.events),
        frames: one.frames.saturating_add(other.frames),
        left_out: one.left_out.saturating_add(other.left_out),
        joins: one.joins.saturating_add(other.joins),
        reads: one.reads.saturating_add(other.reads),
        sends: one.sends.saturating_add(other.sends),
    }
}

/// Both end at present.
fn add_sparks(one: &[u64], other: &[u64]) -> Vec<u64> {
    let length = one.len().max(other.len());
    let at = |spark: &[u64], back: usize| spark.len().checked_sub(back).map_or(0, |index| spark[index]);
    (1..=length).rev().map(|back| at(one, back).saturating_add(at(other, back))).collect()
}

/// Sums the points of the same ten seconds.
fn add_hours(one: &[HeatPoint], other: &[HeatPoint]) -> Vec<HeatPoint> {
    let mut points: BTreeMap<u64, HeatPoint> = BTreeMap::new();
    for point in one.iter().chain(other) {
        let sum = points.entry(point.at.get() / POINT_MS);
        let sum = sum.and_modify(|sum| {
            sum.cost += point.cost;
            sum.bar = sum.bar.max(point.bar);
            sum.level = sum.level.max(point.level);
        });
        sum.or_insert(*point);
    }
    let left_out = points.len().saturating_sub(HOUR);
    points.into_values().skip(left_out).collect()
}

#[cfg(test)]
mod tests {
    use madang_ids::Millis;
    use madang_proto::rest::{BoardNode, HeatCause, HeatChangeRow, SenderRow};
    use madang_proto::{HeatLevel, Pacing};

    use super::*;

    fn row(id: u64, level: HeatLevel, cost: f64) -> HotRow {
        let channel_id = ChannelId::from_raw(id);
        let work = WorkRow { deliveries: 10, ..WorkRow::default() };
        HotRow {
            channel_id,
            kind: None,
            name: None,
            home: None,
            level,
            since: Millis::ZERO,
            cause: HeatCause::default(),
            cost,
            work,
            subscribers: 7,
            pacing: Pacing::default(),
            freshness_ms: Quantiles { p50: cost, p99: 5.0 },
            spared: Spared::default(),
            spark: vec![1, 2],
            set: None,
        }
    }

    fn board(name: &str, channels: Vec<HotRow>) -> Board {
        let node = BoardNode { name: name.to_owned(), ..BoardNode::default() };
        let guarantee = GuaranteeRow { id: "G8".to_owned(), breaches: 2, last: Some(Millis::new(5)) };
        Board { nodes: vec![node], channels, guarantees: vec![guarantee], ..Board::default() }
    }

    #[test]
    fn a_channel_of_several_nodes_is_one_row() {
        let own = board("b", vec![row(1, HeatLevel::Warm, 10.0), row(2, HeatLevel::Normal, 1.0)]);
        let mut named = row(1, HeatLevel::Hot, 30.0);
        (named.name, named.spark) = (Some("Concert".to_owned()), vec![10]);
        let merged = merge(own, vec![board("a", vec![named, row(3, HeatLevel::Blazing, 9.0)])]);
        let names: Vec<&str> = merged.nodes.iter().map(|node| &*node.name).collect();
        assert_eq!(names, ["a", "b"]);
        let ids: Vec<u64> = merged.channels.iter().map(|row| row.channel_id.raw()).collect();
        assert_eq!(ids, [3, 1, 2], "the hottest first");
        let concert = &merged.channels[1];
        assert_eq!((concert.level, concert.cost, concert.subscribers), (HeatLevel::Hot, 40.0, 14));
        assert_eq!((concert.work.deliveries, &*concert.spark), (20, &[1, 12][..]));
        assert_eq!((concert.freshness_ms.p50, concert.name.as_deref()), (30.0, Some("Concert")));
        assert_eq!((merged.guarantees.len(), merged.guarantees[0].breaches), (1, 4));
    }

    #[test]
    fn the_history_of_a_channel_is_summed_and_a_decision_of_several_nodes_is_one() {
        let detail = |cost, at: u64, senders| {
            let (at, level) = (Millis::new(at), HeatLevel::Hot);
            let change = HeatChangeRow { at, from: HeatLevel::Normal, to: level, ..HeatChangeRow::default() };
            let sender = SenderRow { user_id: madang_ids::UserId::from_raw(1), share: 1.0 };
            HotDetail {
                row: row(1, level, cost),
                hour: vec![HeatPoint { at, cost, bar: 5.0, level }],
                changes: vec![change],
                senders: vec![sender; senders],
                joins: JoinRow { admitted: 5, refused: 7, wait_ms: Quantiles { p50: cost, p99: 9.0 } },
                graphs_url: None,
            }
        };
        let merged =
            merge_details(detail(10.0, 20_000, 0), vec![detail(5.0, 24_000, 1), detail(7.0, 41_000, 0)]);
        let hour: Vec<(u64, f64)> = merged.hour.iter().map(|point| (point.at.get(), point.cost)).collect();
        assert_eq!(hour, [(20_000, 15.0), (41_000, 7.0)]);
        let changes: Vec<u64> = merged.changes.iter().map(|change| change.at.get()).collect();
        assert_eq!((changes, merged.senders.len()), (vec![41_000, 20_000], 1));
        assert_eq!(merged.row.cost, 22.0);
        assert_eq!((merged.joins.admitted, merged.joins.refused, merged.joins.wait_ms.p50), (15, 21, 10.0));
    }

    #[test]
    fn nonsense_of_another_node_is_cut() {
        let mut odd = board("x", (0..1_000).map(|id| row(id, HeatLevel::Hot, f64::MAX)).collect());
        odd.nodes = vec![odd.nodes[0].clone(); 500];
        odd.channels[0].work.deliveries = u64::MAX;
        odd.channels[0].spark = vec![u64::MAX; 10_000];
        let merged = merge(board("own", Vec::new()), vec![odd.clone(), odd]);
        assert_eq!(merged.nodes.len(), 3);
        assert!(merged.channels.len() == 50 && merged.channels.iter().all(|row| row.spark.len() <= SPARK));
        assert!(merged.channels[0].cost <= 2.0 * COST);
    }
}
