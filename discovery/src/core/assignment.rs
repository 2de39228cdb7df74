//! Which nodes a client gets: those of its region first, then by free capacity.

use std::collections::HashMap;
use std::time::Duration;

use madang_bus::registry::{LiveProcess, ProcessRun, Role};
use madang_ids::UserId;
use madang_proto::limits::ASSIGNED_NODES;
use madang_proto::rest::Waiting;

use super::line::Line;
use super::view::View;

/// The answer to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'v> {
    /// To connect to these nodes, the best first.
    Connect(Vec<&'v LiveProcess>),
    /// To wait, because every node is full or drains.
    Wait(Waiting),
}

/// Assigns clients. It counts those it has sent to a node since the node last reported, because a report is up to 5 s old.
#[derive(Debug, Default)]
pub struct Assigner {
    /// By node: the renewal after which clients were sent, and how many.
    sent: HashMap<ProcessRun, (u64, u32)>,
    line: Line,
}

impl Assigner {
    /// Assigns a client. While others wait, one who comes later waits behind them. `random(n)` is a number below `n`.
    pub fn assign<'v>(
        &mut self,
        view: &'v View,
        user: UserId,
        region: &str,
        now: Duration,
        random: impl FnMut(u64) -> u64,
    ) -> Decision<'v> {
        let candidates = self.candidates(view);
        let free: u64 = candidates.iter().map(|(_, free)| free).sum();
        if self.line.len() > 0 || free == 0 {
            let place = self.line.place(user, now);
            if place > free {
                return Decision::Wait(self.line.wait(user, place, now));
            }
            self.line.take(user, now);
        }
        let nodes = ranked(candidates, region, random);
        if let Some(best) = nodes.first() {
            let sent = self.sent.entry(best.card.run).or_insert((best.renewal, 0));
            sent.1 = sent.1.saturating_add(1);
        }
        Decision::Connect(nodes)
    }

    /// Nodes for a client that must leave the node `but`: at most three, none if there is no other.
    pub fn others<'v>(
        &mut self,
        view: &'v View,
        but: ProcessRun,
        region: &str,
        random: impl FnMut(u64) -> u64,
    ) -> Vec<&'v LiveProcess> {
        let mut candidates = self.candidates(view);
        candidates.retain(|(node, _)| node.card.run.id != but.id);
        let nodes = ranked(candidates, region, random);
        if let Some(best) = nodes.first() {
            let sent = self.sent.entry(best.card.run).or_insert((best.renewal, 0));
            sent.1 = sent.1.saturating_add(1);
        }
        nodes
    }

    /// Users who wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// The nodes with room, and how much each has.
    fn candidates<'v>(&mut self, view: &'v View) -> Vec<(&'v LiveProcess, u64)> {
        // A node that has reported since counts the clients itself.
        self.sent.retain(|run, (renewal, _)| {
            view.find(run.role, run.id).is_some_and(|node| node.card.run == *run && node.renewal == *renewal)
        });
        let nodes = view.of(Role::Chat).filter(|node| !node.state.is_draining);
        let with_free = nodes.map(|node| {
            let sent = self.sent.get(&node.card.run).map_or(0, |(_, sent)| *sent);
            (node, u64::from(node.card.capacity.saturating_sub(node.state.load).saturating_sub(sent)))
        });
        with_free.filter(|(_, free)| *free > 0).collect()
    }
}

/// Draws nodes one after another: those of the region first, each with a probability in proportion to its free capacity. So clients
/// spread, and a node that has just started is not overrun.
fn ranked<'v>(
    mut candidates: Vec<(&'v LiveProcess, u64)>,
    region: &str,
    mut random: impl FnMut(u64) -> u64,
) -> Vec<&'v LiveProcess> {
    let is_near = |node: &LiveProcess| !region.is_empty() && node.card.region == region;
    let mut nodes = Vec::with_capacity(ASSIGNED_NODES);
    while nodes.len() < ASSIGNED_NODES && !candidates.is_empty() {
        let some_near = candidates.iter().any(|(node, _)| is_near(node));
        let may = |node: &LiveProcess| !some_near || is_near(node);
        let total: u64 = candidates.iter().filter(|(node, _)| may(node)).map(|(_, free)| free).sum();
        let mut left = random(total);
        let drawn = candidates.iter().position(|(node, free)| {
            let is_drawn = may(node) && left < *free;
            if may(node) && !is_drawn {
                left -= free;
            }
            is_drawn
        });
        let Some(drawn) = drawn else { break };
        nodes.push(candidates.swap_remove(drawn).0);
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_bus::registry::{ProcessCard, ProcessState};
    use madang_ids::{NodeEpoch, NodeId};
    use proptest::prelude::*;

    const ADA: UserId = UserId::from_raw(1);

    fn node(id: u16, region: &str, capacity: u32, load: u32) -> LiveProcess {
        let card = ProcessCard {
            run: ProcessRun { role: Role::Chat, id: NodeId(id), epoch: NodeEpoch(1) },
            name: format!("chat-{id}"),
            url: String::new(),
            region: region.to_owned(),
            capacity,
            version: String::new(),
        };
        LiveProcess { card, state: ProcessState { load, is_draining: false }, renewal: 1 }
    }

    fn draining(node: LiveProcess) -> LiveProcess {
        LiveProcess { state: ProcessState { is_draining: true, ..node.state }, ..node }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    fn ids(decision: &Decision<'_>) -> Vec<u16> {
        match decision {
            Decision::Connect(nodes) => nodes.iter().map(|node| node.card.run.id.0).collect(),
            Decision::Wait(waiting) => panic!("{waiting:?}"),
        }
    }

    fn place(decision: &Decision<'_>) -> u64 {
        match decision {
            Decision::Connect(nodes) => panic!("{nodes:?}"),
            Decision::Wait(waiting) => waiting.place,
        }
    }

    /// A plain generator, so that the tests are the same every time.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 7_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn nodes_of_the_region_come_first_and_then_the_others() {
        let view = View::new(vec![
            node(1, "us", 1_000, 0),
            node(2, "eu", 100, 90),
            node(3, "eu", 100, 99),
            node(4, "us", 1_000, 0),
        ]);
        let (mut assigner, mut random) = (Assigner::default(), numbers());
        let nodes = ids(&assigner.assign(&view, ADA, "eu", at(0), &mut random));
        assert_eq!(nodes.len(), 3);
        assert!(nodes[..2].contains(&2) && nodes[..2].contains(&3), "{nodes:?}");
        let anywhere = ids(&assigner.assign(&view, ADA, "mars", at(0), &mut random));
        assert_eq!(anywhere.len(), 3);
    }

    #[test]
    fn free_capacity_is_the_weight() {
        let view = View::new(vec![node(1, "", 10_000, 0), node(2, "", 10_000, 7_000)]);
        let (mut first, mut random) = (0, numbers());
        for _ in 0..1_000 {
            first += u32::from(ids(&Assigner::default().assign(&view, ADA, "", at(0), &mut random))[0] == 1);
        }
        // 10,000 of 13,000, or 769 of 1,000, with a standard deviation of 13.
        assert!((700..840).contains(&first), "{first}");
    }

    #[test]
    fn draining_and_full_nodes_are_never_assigned() {
        let view =
            View::new(vec![draining(node(1, "eu", 100, 0)), node(2, "eu", 100, 100), node(3, "us", 100, 99)]);
        let (mut assigner, mut random) = (Assigner::default(), numbers());
        assert_eq!(ids(&assigner.assign(&view, ADA, "eu", at(0), &mut random)), [3]);
        assert!(assigner.others(&view, node(3, "", 0, 0).card.run, "eu", &mut random).is_empty());
    }

    #[test]
    fn clients_that_were_sent_since_the_last_report_count() {
        let view = View::new(vec![node(1, "", 10, 8)]);
        let (mut assigner, mut random) = (Assigner::default(), numbers());
        for raw in 1..=2 {
            assert_eq!(ids(&assigner.assign(&view, UserId::from_raw(raw), "", at(0), &mut random)), [1]);
        }
        assert_eq!(place(&assigner.assign(&view, UserId::from_raw(3), "", at(0), &mut random)), 1);
        let reported = View::new(vec![LiveProcess { renewal: 2, ..node(1, "", 10, 9) }]);
        assert_eq!(ids(&assigner.assign(&reported, UserId::from_raw(3), "", at(1), &mut random)), [1]);
    }

    #[test]
    fn those_who_wait_get_free_places_in_their_order() {
        let full = View::new(vec![node(1, "", 10, 10)]);
        let (mut assigner, mut random) = (Assigner::default(), numbers());
        for raw in 1..=3 {
            assert_eq!(place(&assigner.assign(&full, UserId::from_raw(raw), "", at(0), &mut random)), raw);
        }
        let one_free = View::new(vec![node(1, "", 10, 9)]);
        let mut ask =
            |raw: u64| match assigner.assign(&one_free, UserId::from_raw(raw), "", at(1), &mut random) {
                Decision::Connect(_) => 0,
                Decision::Wait(waiting) => waiting.place,
            };
        assert_eq!([ask(3), ask(9), ask(1), ask(2), ask(3)], [3, 4, 0, 1, 2]);
    }

    #[test]
    fn an_empty_fleet_makes_everybody_wait() {
        let (mut assigner, mut random) = (Assigner::default(), numbers());
        assert_eq!(place(&assigner.assign(&View::default(), ADA, "", at(0), &mut random)), 1);
        assert_eq!(assigner.waiting(), 1);
    }

    proptest! {
        #[test]
        fn ranked_nodes_are_different_have_room_and_are_as_many_as_possible(
            nodes in prop::collection::vec((0_u32..20, 0_u32..20, 0_u8..3, any::<bool>()), 0..8),
            seed in any::<u64>(),
        ) {
            let make = |(id, (capacity, load, region, drains)): (usize, &(u32, u32, u8, bool))| {
                let node = node(u16::try_from(id).unwrap(), &region.to_string(), *capacity, *load);
                if *drains { draining(node) } else { node }
            };
            let view = View::new(nodes.iter().enumerate().map(make).collect());
            let has_room = |node: &&LiveProcess| {
                !node.state.is_draining && node.state.load < node.card.capacity
            };
            let able = view.processes().iter().filter(has_room).count();
            let mut state = seed;
            let random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 20) % below
            };
            match Assigner::default().assign(&view, ADA, "1", at(0), random) {
                Decision::Wait(_) => prop_assert_eq!(able, 0),
                Decision::Connect(assigned) => {
                    prop_assert_eq!(assigned.len(), able.min(3));
                    prop_assert!(assigned.iter().all(has_room));
                    let mut ids: Vec<_> = assigned.iter().map(|node| node.card.run.id).collect();
                    ids.sort();
                    ids.dedup();
                    prop_assert_eq!(ids.len(), assigned.len());
                    let near = |node: &&&LiveProcess| node.card.region == "1";
                    let all_near = view.processes().iter().filter(has_room).filter(|node| near(&node)).count();
                    let first_far = assigned.iter().position(|node| !near(&node)).unwrap_or(assigned.len());
                    prop_assert_eq!(first_far, all_near.min(assigned.len()));
                }
            }
        }
    }
}
