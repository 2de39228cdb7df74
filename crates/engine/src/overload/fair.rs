//! Fair queueing: the channels of a node share a worker by cost, so that a busy channel delays itself before it delays others.
//!
//! Intended wiring: one [`Fair`] in front of each worker that serves all channels of a node, keyed by channel. Direct messages and
//! small groups go through [`Lane::Direct`], so that they are quick even before a channel is known to be hot. The worker pops an item,
//! reports its wait to [`super::Shed`], and does the work; an item that does not fit is refused as overloaded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The settings of a [`Fair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FairConfig {
    /// The cost that a key may spend in a round. An item that costs n quanta waits for n rounds, so it should be no less than the
    /// greatest cost of an item: then each call is O(1). Zero counts as one.
    pub quantum: u64,
    /// The bytes that may wait for one key.
    pub key_bytes: u64,
    /// The bytes that may wait in each lane. The lanes have bounds of their own, so that a flood of channels leaves room for direct
    /// messages.
    pub lane_bytes: u64,
}

/// What an item takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Its share of the service. Zero counts as one.
    pub cost: u64,
    /// Its memory. Zero counts as one, so that the bounds on bytes bound items as well.
    pub bytes: u64,
}

/// The two kinds of keys. While both wait, each gets half of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Direct messages and small groups.
    Direct,
    /// All other channels.
    Others,
}

/// A queue that is fair among keys: deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin",
/// 1995).
///
/// Call [`Fair::push`] for each item and [`Fair::pop`] for the next one to work on; in any order. Items of one key leave in the order in
/// which they came. A key that has work in each round spends one quantum of cost a round, and what it did not spend in the next one.
/// Two keys of a lane that begin to wait together are never further apart than a quantum and the greatest cost, and an item of a key
/// that was idle waits for one round of the others at most. The lanes take turns by cost: direct items first, then whichever lane got
/// less while both waited. Memory: the items, which their bytes bound, and the keys that wait. O(1).
#[derive(Debug, Clone)]
pub struct Fair<K, T> {
    config: FairConfig,
    direct: Round<K, T>,
    others: Round<K, T>,
    /// The cost by which the direct lane got more than the other one, since both wait.
    direct_ahead: i64,
}

/// The keys of one lane.
#[derive(Debug, Clone)]
struct Round<K, T> {
    queues: HashMap<K, Queue<T>>,
    /// The keys that wait, the next one first.
    turns: VecDeque<K>,
    bytes: u64,
}

/// The items of one key. Never empty.
#[derive(Debug, Clone)]
struct Queue<T> {
    items: VecDeque<(Price, T)>,
    bytes: u64,
    /// The cost that may be spent yet in this turn.
    deficit: u64,
}

impl<K: Copy + Eq + Hash, T> Fair<K, T> {
    /// An empty queue.
    #[must_use]
    pub fn new(config: FairConfig) -> Self {
        let config = FairConfig { quantum: config.quantum.max(1), ..config };
        Self { config, direct: Round::new(), others: Round::new(), direct_ahead: 0 }
    }

    /// Appends an item to the queue of its key.
    ///
    /// # Errors
    /// The item, if something waits and the bound of its key or of its lane would be exceeded.
    pub fn push(&mut self, lane: Lane, key: K, price: Price, item: T) -> Result<(), T> {
        let config = self.config;
        let price = Price { cost: price.cost.max(1), bytes: price.bytes.max(1) };
        self.lane(lane).push(&config, key, price, item)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.direct.turns.is_empty() && self.others.turns.is_empty()
    }

    /// Takes the next item.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let has_both = !self.direct.turns.is_empty() && !self.others.turns.is_empty();
        let is_direct = if has_both { self.direct_ahead <= 0 } else { !self.direct.turns.is_empty() };
        let lane = if is_direct { Lane::Direct } else { Lane::Others };
        let quantum = self.config.quantum;
        let (key, cost, item) = self.lane(lane).pop(quantum)?;
        self.charge(lane, cost, has_both);
        Some((key, item))
    }

    fn lane(&mut self, lane: Lane) -> &mut Round<K, T> {
        match lane {
            Lane::Direct => &mut self.direct,
            Lane::Others => &mut self.others,
        }
    }

    /// Service to a lane that waits alone takes nothing from the other one.
    fn charge(&mut self, lane: Lane, cost: u64, has_both: bool) {
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        self.direct_ahead = match lane {
            _ if !has_both => 0,
            Lane::Direct => self.direct_ahead.saturating_add(cost),
            Lane::Others => self.direct_ahead.saturating_sub(cost),
        };
    }
}

impl<K: Copy + Eq + Hash, T> Round<K, T> {
    fn new() -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, config: &FairConfig, key: K, price: Price, item: T) -> Result<(), T> {
        let waiting = self.queues.get(&key).map_or(0, |queue| queue.bytes);
        // One item fits in any case, however large it is.
        let is_over = |waiting: u64, bound: u64| waiting > 0 && waiting.saturating_add(price.bytes) > bound;
        if is_over(waiting, config.key_bytes) || is_over(self.bytes, config.lane_bytes) {
            return Err(item);
        }
        let queue = self.queues.entry(key).or_insert_with(|| {
            self.turns.push_back(key);
            Queue { items: VecDeque::new(), bytes: 0, deficit: config.quantum }
        });
        queue.items.push_back((price, item));
        queue.bytes += price.bytes;
        self.bytes += price.bytes;
        Ok(())
    }

    fn pop(&mut self, quantum: u64) -> Option<(K, u64, T)> {
        loop {
            let key = *self.turns.front()?;
            let queue = self.queues.get_mut(&key)?;
            if let Some((price, item)) = queue.take() {
                self.bytes -= price.bytes;
                if queue.items.is_empty() {
                    // Its deficit goes with it: a key does not save up while it is idle.
                    self.queues.remove(&key);
                    self.turns.pop_front();
                }
                return Some((key, price.cost, item));
            }
            queue.deficit = queue.deficit.saturating_add(quantum);
            self.turns.rotate_left(1);
        }
    }
}

impl<T> Queue<T> {
    /// The first item, unless it costs more than the key may spend in this turn.
    fn take(&mut self) -> Option<(Price, T)> {
        let (price, item) = self.items.pop_front_if(|(price, _)| price.cost <= self.deficit)?;
        self.deficit -= price.cost;
        self.bytes -= price.bytes;
        Some((price, item))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUANTUM: u64 = 64;
    const CONFIG: FairConfig = FairConfig { quantum: QUANTUM, key_bytes: 1_000, lane_bytes: 2_500 };

    /// Its cost is its size.
    const fn price(size: u64) -> Price {
        Price { cost: size, bytes: size }
    }

    fn wide() -> FairConfig {
        FairConfig { key_bytes: u64::MAX, lane_bytes: u64::MAX, ..CONFIG }
    }

    #[test]
    fn a_flood_of_one_channel_delays_another_by_one_turn() {
        let mut fair = Fair::new(wide());
        (0..100_000).for_each(|number| fair.push(Lane::Others, 1, price(1), number).unwrap());
        (0..30).for_each(|_| assert_eq!(fair.pop().unwrap().0, 1));
        fair.push(Lane::Others, 2, price(1), 7).unwrap();
        let before = std::iter::from_fn(|| fair.pop()).take_while(|(key, _)| *key == 1).count();
        assert_eq!(before, 34, "the rest of the turn");
    }

    #[test]
    fn a_direct_message_waits_for_one_item_at_most() {
        let mut fair = Fair::new(wide());
        for key in 0..1_000 {
            (0..10).for_each(|_| fair.push(Lane::Others, key, price(50), "other").unwrap());
        }
        for _ in 0..20 {
            fair.push(Lane::Direct, 7, price(3), "direct").unwrap();
            assert_eq!(fair.pop(), Some((7, "direct")));
            fair.push(Lane::Direct, 7, price(3), "direct").unwrap();
            assert_eq!(fair.pop().unwrap().1, "other", "the lanes take turns");
            assert_eq!(fair.pop(), Some((7, "direct")));
            assert_eq!(fair.pop().unwrap().1, "other");
        }
    }

    #[test]
    fn what_does_not_fit_is_returned_and_a_lane_leaves_the_other_its_room() {
        let mut fair = Fair::new(CONFIG);
        assert_eq!(fair.push(Lane::Others, 1, price(999), 'a'), Ok(()));
        assert_eq!(fair.push(Lane::Others, 1, price(2), 'b'), Err('b'), "the bound of the key");
        assert_eq!(fair.push(Lane::Others, 1, price(0), 'c'), Ok(()), "it costs one");
        assert_eq!(fair.push(Lane::Others, 1, price(0), 'd'), Err('d'));
        assert_eq!(fair.push(Lane::Others, 2, price(1_000), 'e'), Ok(()));
        assert_eq!(fair.push(Lane::Others, 3, price(501), 'f'), Err('f'), "the bound of the lane");
        assert_eq!(fair.push(Lane::Others, 3, price(u64::MAX), 'g'), Err('g'));
        assert_eq!(fair.push(Lane::Direct, 1, price(1_000), 'h'), Ok(()));
        assert_eq!(std::iter::from_fn(|| fair.pop()).map(|(_, item)| item).collect::<String>(), "hace");
        assert_eq!((fair.others.bytes, fair.others.queues.len(), fair.others.turns.len()), (0, 0, 0));
        assert_eq!(fair.push(Lane::Others, 3, price(1_000), 'i'), Ok(()), "there is room again");
    }

    proptest! {
        /// As one queue for each key: nothing is lost, duplicated or reordered within a key, and the bounds hold.
        #[test]
        fn it_is_a_queue_for_each_key(steps in prop::collection::vec((any::<bool>(), 0_u8..5, 0_u64..300), 1..400)) {
            let mut fair = Fair::new(CONFIG);
            let mut model = HashMap::<u8, VecDeque<(u64, usize)>>::new();
            // Odd keys are direct.
            let lane = |key: u8| if key % 2 == 1 { Lane::Direct } else { Lane::Others };
            for (number, (is_push, key, cost)) in steps.into_iter().enumerate() {
                let waiting = |key: u8| model.get(&key).into_iter().flatten().map(|(cost, _)| cost).sum::<u64>();
                if is_push {
                    let in_lane: u64 = (0..5).filter(|other| lane(*other) == lane(key)).map(waiting).sum();
                    let charged = cost.max(1);
                    let fits = |waiting, bound| waiting == 0 || waiting + charged <= bound;
                    let fits = fits(waiting(key), 1_000) && fits(in_lane, 2_500);
                    prop_assert_eq!(fair.push(lane(key), key, price(cost), number), if fits { Ok(()) } else { Err(number) });
                    if fits {
                        model.entry(key).or_default().push_back((charged, number));
                    }
                } else if let Some((key, number)) = fair.pop() {
                    let (_, expected) = model.get_mut(&key).and_then(VecDeque::pop_front).unwrap();
                    prop_assert_eq!(number, expected);
                } else {
                    prop_assert!(model.values().all(VecDeque::is_empty));
                }
                let keys = model.values().filter(|queue| !queue.is_empty()).count();
                prop_assert_eq!(fair.direct.queues.len() + fair.others.queues.len(), keys);
                prop_assert_eq!(fair.direct.turns.len() + fair.others.turns.len(), keys);
            }
        }

        /// Two keys that begin together, with any costs up to the greatest, in the company of others.
        #[test]
        fn two_keys_with_work_get_the_same_service(
            costs in prop::collection::vec(prop::collection::vec(1_u64..=200, 40..80), 2..6),
            quantum in 1_u64..300,
        ) {
            let mut fair = Fair::new(FairConfig { quantum, ..wide() });
            for (key, costs) in costs.iter().enumerate() {
                costs.iter().for_each(|cost| fair.push(Lane::Others, key, price(*cost), *cost).unwrap());
            }
            let (mut served, mut left) = (vec![0_u64; costs.len()], costs.iter().map(Vec::len).collect::<Vec<_>>());
            while let Some((key, cost)) = fair.pop() {
                served[key] += cost;
                left[key] -= 1;
                let busy = || (0..costs.len()).filter(|key| left[*key] > 0);
                let most = busy().map(|key| served[key]).max().unwrap_or(0);
                let least = busy().map(|key| served[key]).min().unwrap_or(0);
                prop_assert!(most - least <= quantum + 200, "{served:?}");
            }
        }

        /// An item of an idle key waits for at most a quantum and the greatest cost of each other key.
        #[test]
        fn an_idle_key_waits_one_round(
            costs in prop::collection::vec(prop::collection::vec(1_u64..=QUANTUM, 1..80), 1..6),
            before in 0_usize..100,
            cost in 1_u64..=QUANTUM,
        ) {
            let mut fair = Fair::new(wide());
            for (key, costs) in costs.iter().enumerate() {
                costs.iter().for_each(|cost| fair.push(Lane::Others, key, price(*cost), *cost).unwrap());
            }
            for _ in 0..before {
                fair.pop();
            }
            fair.push(Lane::Others, 99, price(cost), cost).unwrap();
            let mut waited = HashMap::<usize, u64>::new();
            while let Some((key, cost)) = fair.pop().filter(|(key, _)| *key != 99) {
                *waited.entry(key).or_default() += cost;
            }
            prop_assert!(waited.values().all(|waited| *waited < QUANTUM + QUANTUM), "{waited:?}");
        }

        /// While both lanes wait, neither gets more than the greatest cost ahead.
        #[test]
        fn the_lanes_get_the_same_service(costs in prop::collection::vec((1_u64..200, 1_u64..200), 1..100)) {
            let mut fair = Fair::new(wide());
            for (number, (direct, other)) in costs.into_iter().enumerate() {
                fair.push(Lane::Direct, number % 7, price(direct), (Lane::Direct, direct)).unwrap();
                fair.push(Lane::Others, number % 3, price(other), (Lane::Others, other)).unwrap();
            }
            let mut ahead = 0_i64;
            while !fair.direct.turns.is_empty() && !fair.others.turns.is_empty() {
                let (_, (lane, cost)) = fair.pop().unwrap();
                let cost = i64::try_from(cost).unwrap();
                ahead += if lane == Lane::Direct { cost } else { -cost };
                prop_assert!(ahead.abs() <= 200);
            }
        }
    }
}
