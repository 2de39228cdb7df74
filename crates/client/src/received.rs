//! Which entries were received, and up to which cursor. Pure.
//!
//! A device applies an entry only if its `seq` is above the last one that it has of that log. A `seq` that skips
//! numbers is a gap, which the caller fills from history and reports. `seq` is dense, so no missing entry stays
//! unnoticed (G3, G4).

use std::collections::{BTreeMap, HashMap};

use madang_ids::{ChannelId, LogId, SealedCursor, Seq};
use madang_proto::rest::{ChannelView, Since};
use madang_proto::{ChannelHead, Content, Entry, SnapshotReason};

/// Most channels that a snapshot request names as known. The server accepts no more.
const SINCE_MAX: usize = 10_000;

/// The last entry and the read marker of each log on one device.
#[derive(Debug, Clone, Default)]
pub struct Received {
    cursor: Option<SealedCursor>,
    heads: HashMap<LogId, Seq>,
    /// Read markers as far as this device received them. A snapshot can then omit channels that have not changed.
    reads: HashMap<ChannelId, Seq>,
}

/// Entries that should have come before the following ones: all between the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The last entry before the gap.
    pub after: Seq,
    /// The first entry after the gap.
    pub before: Seq,
}

/// A part of a batch, in order.
#[derive(Debug)]
pub enum Piece {
    /// A gap.
    Missing(Missing),
    /// New entries, without a gap between them.
    Fresh(Vec<Entry>),
}

impl Received {
    /// Resumes from what an earlier run of the program stored.
    #[must_use]
    pub fn resume(cursor: Option<SealedCursor>, heads: HashMap<LogId, Seq>) -> Self {
        Self { cursor, heads, reads: HashMap::new() }
    }

    /// The cursor for the next `hello`.
    #[must_use]
    pub fn cursor(&self) -> Option<SealedCursor> {
        self.cursor.clone()
    }

    /// The last entry of `log` that was received.
    #[must_use]
    pub fn head(&self, log: LogId) -> Option<Seq> {
        self.heads.get(&log).copied()
    }

    /// The last entry of each log.
    #[must_use]
    pub const fn heads(&self) -> &HashMap<LogId, Seq> {
        &self.heads
    }

    /// Everything received so far is covered by `cursor`.
    pub fn apply_cursor(&mut self, cursor: SealedCursor) {
        self.cursor = Some(cursor);
    }

    /// Forgets what a snapshot invalidates. Returns the state of channels that the snapshot can omit if it has not
    /// changed.
    pub fn begin_snapshot(&mut self, reason: SnapshotReason) -> BTreeMap<ChannelId, Since> {
        match reason {
            // Places of another store have no meaning in this one. If they were kept, entries below them would be
            // dropped.
            SnapshotReason::ForeignCursor | SnapshotReason::BeyondStore => self.heads.clear(),
            // A snapshot does not contain the user's own log, and that log has no history: it starts anew.
            SnapshotReason::NoCursor | SnapshotReason::TooFarBehind | SnapshotReason::InboxReset => {
                self.heads.retain(|log, _| matches!(log, LogId::Channel(_)));
            }
            // The server continues from the cursor of this client when it can.
            SnapshotReason::InboxUnavailable => {}
        }
        let known = self.reads.iter().filter_map(|(channel, read_seq)| {
            let head_seq = self.head(LogId::Channel(*channel))?;
            // This client stores no settings, so every snapshot contains the channels that have some.
            Some((*channel, Since { head_seq, read_seq: *read_seq, settings_rev: 0 }))
        });
        known.take(SINCE_MAX).collect()
    }

    /// The caller now knows these channels up to their heads.
    pub fn apply_snapshot(&mut self, channels: &[ChannelView]) {
        for view in channels {
            let head = self.heads.entry(LogId::Channel(view.card.id)).or_default();
            *head = view.head_seq.max(*head);
            self.reads.insert(view.card.id, view.read_seq);
        }
    }

    /// The caller knows nothing about these channels any more.
    pub fn forget(&mut self, gone: &[ChannelId]) {
        for channel in gone {
            self.heads.remove(&LogId::Channel(*channel));
            self.reads.remove(channel);
        }
    }

    /// An active subscription is at this head. After a gap the log continues from the head, even if that is an earlier
    /// place, of another store.
    pub fn apply_head(&mut self, head: &ChannelHead) {
        let log = LogId::Channel(head.channel_id);
        match head.gap {
            true => drop(self.heads.insert(log, head.seq)),
            false => drop(self.heads.entry(log).or_insert(head.seq)),
        }
    }

    /// Takes a batch: drops entries that were received before, and splits the rest at gaps. The first batch of an
    /// unknown log may begin anywhere.
    pub fn apply(&mut self, log: LogId, entries: Vec<Entry>) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(1);
        for entry in entries {
            let head = self.heads.get(&log).copied();
            if head.is_some_and(|head| entry.seq <= head) {
                continue;
            }
            if let Some(after) = head.filter(|head| entry.seq > head.next()) {
                pieces.push(Piece::Missing(Missing { after, before: entry.seq }));
            }
            self.heads.insert(log, entry.seq);
            if let Content::Read { channel_id, seq, .. } = entry.content {
                // A read marker never moves back.
                let read = self.reads.entry(channel_id).or_default();
                *read = seq.max(*read);
            }
            match pieces.last_mut() {
                Some(Piece::Fresh(fresh)) => fresh.push(entry),
                _ => pieces.push(Piece::Fresh(vec![entry])),
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{ChannelId, Millis, UserId};
    use proptest::prelude::*;

    const LOG: LogId = LogId::Channel(ChannelId::from_raw(7));

    fn entry(seq: u64) -> Entry {
        let content = Content::Created { by: UserId::from_raw(1) };
        Entry { seq: Seq::new(seq), at: Millis::new(seq), content }
    }

    fn feed(received: &mut Received, seqs: &[u64]) -> (Vec<u64>, Vec<Missing>) {
        let (mut fresh, mut missing) = (Vec::new(), Vec::new());
        for piece in received.apply(LOG, seqs.iter().copied().map(entry).collect()) {
            match piece {
                Piece::Fresh(entries) => fresh.extend(entries.iter().map(|entry| entry.seq.get())),
                Piece::Missing(hole) => missing.push(hole),
            }
        }
        (fresh, missing)
    }

    #[test]
    fn repeated_entries_are_dropped() {
        let mut received = Received::default();
        assert_eq!(feed(&mut received, &[4, 5]).0, [4, 5]);
        assert_eq!(feed(&mut received, &[4, 5, 6]).0, [6]);
        assert_eq!(received.head(LOG), Some(Seq::new(6)));
    }

    #[test]
    fn a_skipped_seq_is_a_gap_between_two_places() {
        let mut received = Received::default();
        feed(&mut received, &[1]);
        let (fresh, missing) = feed(&mut received, &[4, 5, 8]);
        assert_eq!(fresh, [4, 5, 8]);
        let hole = |after, before| Missing { after: Seq::new(after), before: Seq::new(before) };
        assert_eq!(missing, [hole(1, 4), hole(5, 8)]);
    }

    #[test]
    fn a_cursor_is_kept_for_the_next_hello() {
        let mut received = Received::default();
        let cursor = SealedCursor::from("opaque".to_owned());
        received.apply_cursor(cursor.clone());
        assert_eq!(received.cursor(), Some(cursor));
    }

    #[test]
    fn after_a_gap_a_log_continues_from_its_head() {
        let head = |seq, gap| {
            let (seq, ordinal) = (Seq::new(seq), madang_ids::Ordinal::ZERO);
            ChannelHead { channel_id: ChannelId::from_raw(7), seq, ordinal, gap, pacing: None }
        };
        let mut received = Received::default();
        received.apply_head(&head(4, false));
        let (fresh, missing) = feed(&mut received, &[6]);
        assert_eq!((fresh, missing.len()), (vec![6], 1), "it continued after 4");
        received.apply_head(&head(9, false));
        assert_eq!(received.head(LOG), Some(Seq::new(6)), "the entries between are still missing");
        received.apply_head(&head(70, true));
        assert_eq!(feed(&mut received, &[70, 71]), (vec![71], Vec::new()));
        received.apply_head(&head(3, true));
        assert_eq!(feed(&mut received, &[4]), (vec![4], Vec::new()));
    }

    proptest! {
        #[test]
        fn fresh_and_missing_together_are_dense(jumps in prop::collection::vec((0_u64..9, 1_usize..5), 1..40)) {
            let mut received = Received::default();
            feed(&mut received, &[1]);
            let mut covered = vec![1];
            let mut place = 0_i64;
            for (jump, count) in jumps {
                place = (place + jump as i64 - 4).max(0);
                let seqs: Vec<u64> = (1..=count as u64).map(|step| place as u64 + step).collect();
                let (fresh, missing) = feed(&mut received, &seqs);
                covered.extend(missing.iter().flat_map(|hole| hole.after.get() + 1..hole.before.get()));
                covered.extend(fresh);
                place += count as i64;
            }
            covered.sort_unstable();
            let expected: Vec<u64> = (1..=covered.len() as u64).collect();
            prop_assert_eq!(covered, expected);
        }
    }
}
