//! The parts of a log that a member may read.

use std::ops::RangeInclusive;

use madang_ids::Seq;
use serde::{Deserialize, Serialize};

/// One stay in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first entry of the stay.
    pub from: Seq,
    /// The last entry of the stay; `None` while it lasts.
    pub until: Option<Seq>,
}

/// The stays of a member in a channel, rising, at most [`Spans::MAX`]; the oldest goes first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// The most stays that are kept.
    pub const MAX: usize = 8;

    /// One stay that begins at `from`.
    #[must_use]
    pub fn since(from: Seq) -> Self {
        Self(vec![Span { from, until: None }])
    }

    /// Whether the member is in the channel now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.last().is_some_and(|span| span.until.is_none())
    }

    /// Begins another stay. Does nothing while one lasts.
    pub fn open(&mut self, from: Seq) {
        if self.is_open() {
            return;
        }
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        self.0.push(Span { from, until: None });
    }

    /// Ends the stay that lasts. Does nothing if none does.
    pub fn close(&mut self, until: Seq) {
        if let Some(span) = self.0.last_mut()
            && span.until.is_none()
        {
            span.until = Some(until.max(span.from));
        }
    }

    /// Moves the end of the last stay to `until`, if it has ended before.
    pub fn extend_until(&mut self, until: Seq) {
        if let Some(end) = self.0.last_mut().and_then(|span| span.until.as_mut()) {
            *end = until.max(*end);
        }
    }

    /// Moves the beginning of the stay that lasts to `from`, if it began before. A stay from the beginning of the log
    /// is not moved: its member is a founder, or the second user of a direct channel.
    pub fn begin_later(&mut self, from: Seq) {
        let is_movable = |span: &&mut Span| span.until.is_none() && span.from > Seq::new(1);
        if let Some(span) = self.0.last_mut().filter(is_movable) {
            span.from = from.max(span.from);
        }
    }

    /// Undoes the last join or leave.
    pub fn take_back(&mut self) {
        match self.0.last_mut() {
            Some(span) if span.until.is_some() => span.until = None,
            _ => drop(self.0.pop()),
        }
    }

    /// The last stay.
    #[must_use]
    pub fn last(&self) -> Option<Span> {
        self.0.last().copied()
    }

    /// The place of the last join or leave.
    #[must_use]
    pub fn edge(&self) -> Option<Seq> {
        self.last().map(|span| span.until.unwrap_or(span.from))
    }

    /// All stays, rising.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// Whether the entry at `seq` may be read.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        self.0.iter().any(|span| span.from <= seq && span.until.is_none_or(|until| seq <= until))
    }

    /// The parts of `range` that may be read, rising.
    pub fn clip(
        &self,
        range: RangeInclusive<Seq>,
    ) -> impl DoubleEndedIterator<Item = RangeInclusive<Seq>> + '_ {
        let (start, end) = range.into_inner();
        self.0.iter().filter_map(move |span| {
            let from = span.from.max(start);
            let to = span.until.map_or(end, |until| until.min(end));
            (from <= to).then_some(from..=to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(value: u64) -> Seq {
        Seq::new(value)
    }

    #[test]
    fn a_member_reads_the_entries_of_all_stays() {
        let mut spans = Spans::since(seq(3));
        spans.close(seq(5));
        spans.open(seq(9));
        assert!(spans.is_open());
        let readable: Vec<u64> = (1..=10).filter(|&place| spans.contains(seq(place))).collect();
        assert_eq!(readable, [3, 4, 5, 9, 10]);
        let parts: Vec<_> = spans.clip(seq(4)..=seq(9)).collect();
        assert_eq!(parts, [seq(4)..=seq(5), seq(9)..=seq(9)]);
    }

    #[test]
    fn the_last_change_can_be_moved_and_taken_back() {
        let mut spans = Spans::since(seq(3));
        spans.begin_later(seq(2));
        spans.begin_later(seq(4));
        spans.close(seq(6));
        spans.begin_later(seq(5));
        assert_eq!(spans.last(), Some(Span { from: seq(4), until: Some(seq(6)) }));
        spans.take_back();
        assert_eq!(spans, Spans::since(seq(4)));
        spans.take_back();
        assert_eq!(spans, Spans::default());
    }

    #[test]
    fn only_the_last_stays_are_remembered() {
        let mut spans = Spans::default();
        for place in 0..20 {
            spans.open(seq(place * 10 + 1));
            spans.close(seq(place * 10 + 5));
        }
        assert_eq!(spans.iter().count(), Spans::MAX);
        assert!(!spans.contains(seq(1)));
        assert!(spans.contains(seq(195)));
    }
}
