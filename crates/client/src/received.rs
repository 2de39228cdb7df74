//! What has come, and up to which cursor. Pure.
//!
//! A device applies an entry only if its `seq` is above what it has of that log; a `seq` that jumps is a hole, which
//! the caller fills from history and reports. `seq` is dense, so nothing can be missing in silence (G3, G4).

use std::collections::{BTreeMap, HashMap};

use madang_ids::{ChannelId, LogId, SealedCursor, Seq};
use madang_proto::rest::{ChannelView, Since};
use madang_proto::{ChannelHead, Content, Entry, SnapshotReason};

/// Channels that a snapshot is told of as known; the server takes no more.
const SINCE_MAX: usize = 10_000;

/// The places of one device.
#[derive(Debug, Clone, Default)]
pub struct Received {
    cursor: Option<SealedCursor>,
    heads: HashMap<LogId, Seq>,
    /// Read markers, as far as they were told: a snapshot is spared what has not changed.
    reads: HashMap<ChannelId, Seq>,
}

/// Entries that should have come before these: all between the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The last entry that is there.
    pub after: Seq,
    /// The first one behind the hole.
    pub before: Seq,
}

/// A part of a batch, in order.
#[derive(Debug)]
pub enum Piece {
    /// A hole.
    Missing(Missing),
    /// Entries that are new, without a hole between them.
    Fresh(Vec<Entry>),
}

impl Received {
    /// Goes on from what an earlier run of the program kept.
    #[must_use]
    pub fn resume(cursor: Option<SealedCursor>, heads: HashMap<LogId, Seq>) -> Self {
        Self { cursor, heads, reads: HashMap::new() }
    }

    /// What to give in `hello`.
    #[must_use]
    pub fn cursor(&self) -> Option<SealedCursor> {
        self.cursor.clone()
    }

    /// The last entry that is there of `log`.
    #[must_use]
    pub fn head(&self, log: LogId) -> Option<Seq> {
        self.heads.get(&log).copied()
    }

    /// The last entries of all logs.
    #[must_use]
    pub const fn heads(&self) -> &HashMap<LogId, Seq> {
        &self.heads
    }

    /// Everything that came so far is covered by `cursor`.
    pub fn apply_cursor(&mut self, cursor: SealedCursor) {
        self.cursor = Some(cursor);
    }

    /// Forgets what a snapshot makes void, and says what it need not repeat.
    pub fn begin_snapshot(&mut self, reason: SnapshotReason) -> BTreeMap<ChannelId, Since> {
        match reason {
            // Places of another store mean nothing in this one; kept, they would swallow its entries.
            SnapshotReason::ForeignCursor | SnapshotReason::BeyondStore => self.heads.clear(),
            // The user's own log is in no snapshot and has no history: it begins anew.
            SnapshotReason::NoCursor | SnapshotReason::TooFarBehind => {
                self.heads.retain(|log, _| matches!(log, LogId::Channel(_)));
            }
        }
        let known = self.reads.iter().filter_map(|(channel, read_seq)| {
            let head_seq = self.head(LogId::Channel(*channel))?;
            // This client keeps no settings, so channels that have some come with each snapshot.
            Some((*channel, Since { head_seq, read_seq: *read_seq, settings_rev: 0 }))
        });
        known.take(SINCE_MAX).collect()
    }

    /// The caller knows these channels now up to their heads.
    pub fn apply_snapshot(&mut self, channels: &[ChannelView]) {
        for view in channels {
            let head = self.heads.entry(LogId::Channel(view.card.id)).or_default();
            *head = view.head_seq.max(*head);
            self.reads.insert(view.card.id, view.read_seq);
        }
    }

    /// The caller knows nothing of these channels any more.
    pub fn forget(&mut self, gone: &[ChannelId]) {
        for channel in gone {
            self.heads.remove(&LogId::Channel(*channel));
            self.reads.remove(channel);
        }
    }

    /// An active subscription stands here. Behind a gap the log goes on from its head, also where that is an earlier
    /// place, of another store.
    pub fn apply_head(&mut self, head: &ChannelHead) {
        let log = LogId::Channel(head.channel_id);
        match head.gap {
            true => drop(self.heads.insert(log, head.seq)),
            false => drop(self.heads.entry(log).or_insert(head.seq)),
        }
    }

    /// Takes a batch: drops what is there already, and cuts the rest at holes. The first batch of a log that was never
    /// heard of begins it, wherever it begins.
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
                // A marker never goes back.
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
    fn what_comes_again_is_dropped() {
        let mut received = Received::default();
        assert_eq!(feed(&mut received, &[4, 5]).0, [4, 5]);
        assert_eq!(feed(&mut received, &[4, 5, 6]).0, [6]);
        assert_eq!(received.head(LOG), Some(Seq::new(6)));
    }

    #[test]
    fn a_jump_is_a_hole_between_two_places() {
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
    fn behind_a_gap_a_log_goes_on_from_its_head() {
        let head = |seq, gap| {
            let (seq, ordinal) = (Seq::new(seq), madang_ids::Ordinal::ZERO);
            ChannelHead { channel_id: ChannelId::from_raw(7), seq, ordinal, gap }
        };
        let mut received = Received::default();
        received.apply_head(&head(4, false));
        let (fresh, missing) = feed(&mut received, &[6]);
        assert_eq!((fresh, missing.len()), (vec![6], 1), "it began behind 4");
        received.apply_head(&head(9, false));
        assert_eq!(received.head(LOG), Some(Seq::new(6)), "what lies between comes yet");
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
