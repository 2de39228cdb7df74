//! The channels that cost most, out of any number of them: weighted Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient
//! computation of frequent and top-k elements in data streams", 2005).

use std::collections::HashMap;
use std::hash::Hash;

use super::{Costs, Work};

/// A counter of the sketch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted<K> {
    /// The key.
    pub key: K,
    /// Its cost, never less than the true one.
    pub cost: f64,
    /// By how much it may be too high: what the key before it in the same counter had.
    pub error: f64,
    /// What happened since the key has its counter.
    pub work: Work,
}

/// Counts costs by key in a fixed number of counters. A key whose true cost is above the sum of all costs divided by the number of
/// counters has one. O(log counters) for each call, whatever the number of keys.
#[derive(Debug, Clone)]
pub struct Sketch<K> {
    costs: Costs,
    counters: Vec<Counted<K>>,
    /// A heap of counters, the cheapest first; and where each counter is in it.
    heap: Vec<usize>,
    place: Vec<usize>,
    of_key: HashMap<K, usize>,
    capacity: usize,
    total: f64,
}

impl<K: Copy + Eq + Hash> Sketch<K> {
    /// A sketch with this number of counters, about 130 bytes each.
    #[must_use]
    pub fn new(capacity: usize, costs: Costs) -> Self {
        Self {
            costs,
            counters: Vec::with_capacity(capacity),
            heap: Vec::with_capacity(capacity),
            place: Vec::with_capacity(capacity),
            of_key: HashMap::with_capacity(capacity),
            capacity: capacity.max(1),
            total: 0.0,
        }
    }

    /// Counts work.
    pub fn add(&mut self, key: K, work: Work) {
        let cost = work.cost(&self.costs);
        self.total += cost;
        if let Some(&at) = self.of_key.get(&key) {
            let counted = &mut self.counters[at];
            counted.cost += cost;
            counted.work = counted.work.and(work);
            self.sink(self.place[at]);
        } else if self.counters.len() < self.capacity {
            let at = self.counters.len();
            self.counters.push(Counted { key, cost, error: 0.0, work });
            self.heap.push(at);
            self.place.push(at);
            self.of_key.insert(key, at);
            self.rise(at);
        } else {
            // The cheapest key loses its counter. The new one may have been there before, so it inherits the cost.
            let at = self.heap[0];
            let least = self.counters[at].cost;
            self.of_key.remove(&self.counters[at].key);
            self.counters[at] = Counted { key, cost: least + cost, error: least, work };
            self.of_key.insert(key, at);
            self.sink(0);
        }
    }

    /// The cost of everything.
    #[must_use]
    pub const fn total(&self) -> f64 {
        self.total
    }

    /// The counters whose key has certainly cost at least this much, the most expensive first.
    #[must_use]
    pub fn above(&self, bar: f64) -> Vec<Counted<K>> {
        let certain = |counted: &&Counted<K>| counted.cost - counted.error >= bar;
        let mut above: Vec<Counted<K>> = self.counters.iter().filter(certain).copied().collect();
        above.sort_by(|one, other| other.cost.total_cmp(&one.cost));
        above
    }

    /// Begins again.
    pub fn clear(&mut self) {
        self.counters.clear();
        self.heap.clear();
        self.place.clear();
        self.of_key.clear();
        self.total = 0.0;
    }

    fn cost_at(&self, place: usize) -> f64 {
        self.counters[self.heap[place]].cost
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.place[self.heap[one]] = one;
        self.place[self.heap[other]] = other;
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.cost_at(above) <= self.cost_at(place) {
                return;
            }
            self.swap(above, place);
            place = above;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let below = (2 * place + 1..=2 * place + 2).filter(|below| *below < self.heap.len());
            let Some(least) = below.min_by(|one, other| self.cost_at(*one).total_cmp(&self.cost_at(*other)))
            else {
                return;
            };
            if self.cost_at(place) <= self.cost_at(least) {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(entries: u64) -> Work {
        Work { entries, ..Work::default() }
    }

    /// Random numbers of a seed (SplitMix64).
    struct Seeded(u64);

    impl Seeded {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }
    }

    proptest! {
        #[test]
        fn a_key_that_costs_its_share_has_a_counter_and_its_cost_is_bounded(
            work in prop::collection::vec((0_u16..200, 1_u64..50), 1..2_000)
        ) {
            let mut sketch = Sketch::new(16, Costs::default());
            let mut truth = HashMap::<u16, u64>::new();
            for (key, count) in &work {
                // Some keys are much more frequent.
                let key = if key % 3 == 0 { key % 5 } else { *key };
                sketch.add(key, entries(*count));
                *truth.entry(key).or_default() += count;
            }
            let total: u64 = truth.values().sum();
            prop_assert!((sketch.total() - total as f64).abs() < 1e-6);
            let counted: HashMap<u16, Counted<u16>> =
                sketch.above(f64::MIN).into_iter().map(|counted| (counted.key, counted)).collect();
            prop_assert!(counted.len() <= 16);
            for (key, count) in truth {
                match counted.get(&key) {
                    Some(found) => {
                        prop_assert!(found.cost >= count as f64 - 1e-6);
                        prop_assert!(found.cost - found.error <= count as f64 + 1e-6);
                    }
                    None => prop_assert!(count as f64 <= total as f64 / 16.0 + 1e-6),
                }
            }
            let least = sketch.counters.iter().map(|counted| counted.cost).fold(f64::MAX, f64::min);
            prop_assert_eq!(sketch.cost_at(0), least);
        }
    }

    #[test]
    fn one_channel_is_found_among_a_million() {
        let (mut sketch, mut random) = (Sketch::new(512, Costs::default()), Seeded(7));
        for _ in 0..2_000_000 {
            let key = random.next() % 1_000_000;
            // A hundredth of all entries is in one channel.
            sketch.add(if random.next().is_multiple_of(100) { 5 } else { key + 10 }, entries(1));
        }
        let above = sketch.above(2_000.0);
        assert_eq!(above.iter().map(|counted| counted.key).collect::<Vec<_>>(), [5]);
        assert_eq!(sketch.counters.capacity(), 512);
        assert!(sketch.of_key.capacity() < 4_096);
    }

    #[test]
    fn a_flood_of_small_channels_is_no_hot_one() {
        let mut sketch = Sketch::new(512, Costs::default());
        (0..1_000_000_u64).for_each(|key| sketch.add(key, entries(1)));
        assert_eq!(sketch.above(2.0).len(), 0, "each counter knows how wrong it may be");
        sketch.clear();
        assert_eq!((sketch.above(0.0).len(), sketch.total()), (0, 0.0));
    }
}
