//! A set of places, kept as intervals: a log that arrived completely is one interval of any length.

/// Sorted, disjoint intervals that do not touch; both ends are included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Whether `place` is in the set.
    pub(crate) fn contains(&self, place: u64) -> bool {
        let index = self.after(place);
        index > 0 && self.0[index - 1].1 >= place
    }

    /// Adds a place; `false` if it was in the set.
    pub(crate) fn insert(&mut self, place: u64) -> bool {
        // The usual case: the place right after the last one.
        if let Some(last) = self.0.last_mut().filter(|last| last.1 + 1 == place) {
            last.1 = place;
            return true;
        }
        let index = self.after(place);
        if index > 0 && self.0[index - 1].1 >= place {
            return false;
        }
        let joins_left = index > 0 && self.0[index - 1].1 + 1 == place;
        let joins_right = self.0.get(index).is_some_and(|right| right.0 == place + 1);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[index - 1].1 = self.0[index].1;
                self.0.remove(index);
            }
            (true, false) => self.0[index - 1].1 = place,
            (false, true) => self.0[index].0 = place,
            (false, false) => self.0.insert(index, (place, place)),
        }
        true
    }

    /// Removes a place; `false` if it was not in the set.
    pub(crate) fn remove(&mut self, place: u64) -> bool {
        let index = self.after(place);
        if index == 0 || self.0[index - 1].1 < place {
            return false;
        }
        let (from, to) = self.0.remove(index - 1);
        if place < to {
            self.0.insert(index - 1, (place + 1, to));
        }
        if from < place {
            self.0.insert(index - 1, (from, place - 1));
        }
        true
    }

    /// Moves all places of `other` into this set.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        for (from, to) in other.0.drain(..) {
            (from..=to).for_each(|place| {
                self.insert(place);
            });
        }
    }

    /// Removes all places.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All places in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|(from, to)| *from..=*to)
    }

    /// The end of the interval that contains `place`.
    pub(crate) fn end_of(&self, place: u64) -> Option<u64> {
        let index = self.after(place).checked_sub(1)?;
        (self.0[index].1 >= place).then(|| self.0[index].1)
    }

    /// The greatest place; 0 if the set is empty.
    pub(crate) fn top(&self) -> u64 {
        self.0.last().map_or(0, |last| last.1)
    }

    /// The places of `from ..= to` that are not in the set.
    pub(crate) fn missing(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        (from..=to).filter(|place| !self.contains(*place))
    }

    /// The index of the first interval that begins above `place`.
    fn after(&self, place: u64) -> usize {
        match self.0.last() {
            Some(last) if last.0 <= place => self.0.len(),
            _ => self.0.partition_point(|span| span.0 <= place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 1_u64..40), 0..200)) {
            let mut spans = Spans::default();
            let mut model = BTreeSet::new();
            for (insert, place) in steps {
                if insert {
                    prop_assert_eq!(spans.insert(place), model.insert(place));
                } else {
                    prop_assert_eq!(spans.remove(place), model.remove(&place));
                }
            }
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            prop_assert!(spans.iter().eq(model.iter().copied()));
            prop_assert_eq!(spans.top(), model.last().copied().unwrap_or_default());
            for place in 1..40 {
                let end = (place..=40).take_while(|next| model.contains(next)).last();
                prop_assert_eq!(spans.end_of(place), end);
            }
            let missing: Vec<u64> = spans.missing(1, 40).collect();
            let expected: Vec<u64> = (1..=40).filter(|place| !model.contains(place)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
