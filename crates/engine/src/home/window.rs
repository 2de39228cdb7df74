//! The retry keys, message versions and notes of the last rows. Exact by construction: loaded with the tail, pushed with each
//! append.

use std::collections::{HashMap, VecDeque};

use madang_ids::{ChannelId, ClientMsgId, Seq, UserId};
use madang_proto::Content;

use crate::home::WINDOW_ROWS;
use crate::home::notes::NoteId;
use crate::log::{Row, SendRecord, Tail};

#[derive(Debug, Default)]
pub(super) struct Window {
    by_key: HashMap<(UserId, ClientMsgId), SendRecord>,
    /// The place of the entry of a version of a message.
    changes: HashMap<(Seq, u32), Seq>,
    /// In a user's own log: the highest read marker of each channel, and its place.
    reads: HashMap<ChannelId, (Seq, Seq)>,
    /// In a user's own log: the places of its notes.
    noted: HashMap<NoteId, Seq>,
    /// One for each row, also for rows that are no messages: the window is counted in rows.
    rows: VecDeque<Kept>,
    /// Rows at the old end whose sends the store has recorded.
    recorded: usize,
    /// The place of the last row.
    last: Seq,
}

/// The part of a row that the window keeps.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Sent(UserId, ClientMsgId),
    Changed(Seq, u32),
    /// A read marker of a channel, noted at this place.
    Read(ChannelId, Seq),
    Noted(NoteId),
    Other,
}

impl Window {
    pub(super) fn load(&mut self, tail: &Tail) {
        *self = Self::default();
        self.last = tail.head.seq.minus(tail.rows.len() as u64);
        tail.rows.iter().for_each(|row| self.push(row));
    }

    pub(super) fn push(&mut self, row: &Row) {
        let kept = self.keep(row);
        self.rows.push_back(kept);
        self.last = row.entry.seq;
        while self.rows.len() > WINDOW_ROWS {
            match self.rows.pop_front() {
                Some(Kept::Sent(sender, id)) => drop(self.by_key.remove(&(sender, id))),
                Some(Kept::Changed(target, version)) => self.forget_change(target, version),
                Some(Kept::Read(channel, place)) => self.forget_read(channel, place),
                Some(Kept::Noted(id)) => self.forget_noted(id),
                _ => {}
            }
            self.recorded = self.recorded.saturating_sub(1);
        }
    }

    /// The row that leaves may not be the last one with this version: a later one stays known.
    fn forget_change(&mut self, target: Seq, version: u32) {
        let first = self.last.minus(self.rows.len() as u64).next();
        if self.changes.get(&(target, version)).is_some_and(|at| *at < first) {
            self.changes.remove(&(target, version));
        }
    }

    /// An older log may have a note twice: a later one stays known.
    fn forget_noted(&mut self, id: NoteId) {
        let first = self.last.minus(self.rows.len() as u64).next();
        if self.noted.get(&id).is_some_and(|at| *at < first) {
            self.noted.remove(&id);
        }
    }

    fn keep(&mut self, row: &Row) -> Kept {
        if let Some(record) = record_of(row) {
            let (sender, id) = (record.key.sender, record.key.client_msg_id);
            self.by_key.insert((sender, id), record);
            return Kept::Sent(sender, id);
        }
        if let Content::Read { channel_id, seq, .. } = row.entry.content {
            let last = self.reads.entry(channel_id).or_default();
            // Logs of earlier versions of this program may have a lower marker behind a higher one.
            *last = (*last).max((seq, row.entry.seq));
            return Kept::Read(channel_id, row.entry.seq);
        }
        if let Some(id) = NoteId::of(&row.entry.content) {
            self.noted.insert(id, row.entry.seq);
            return Kept::Noted(id);
        }
        match row.entry.content.change() {
            Some(change) => {
                self.changes.insert((change.target, change.version), row.entry.seq);
                Kept::Changed(change.target, change.version)
            }
            None => Kept::Other,
        }
    }

    fn forget_read(&mut self, channel: ChannelId, place: Seq) {
        if self.reads.get(&channel).is_some_and(|(_, at)| *at == place) {
            self.reads.remove(&channel);
        }
    }

    /// The place of a read marker of the channel at `seq` or beyond, if it is among the last rows.
    pub(super) fn noted_read(&self, channel: ChannelId, seq: Seq) -> Option<Seq> {
        self.reads.get(&channel).filter(|(read, _)| *read >= seq).map(|(_, place)| *place)
    }

    /// The place of this note, if it is among the last rows.
    pub(super) fn noted(&self, id: NoteId) -> Option<Seq> {
        self.noted.get(&id).copied()
    }

    /// The place of the entry of a version of the message at `target`, if it is among the last rows.
    pub(super) fn change_at(&self, target: Seq, version: u32) -> Option<Seq> {
        self.changes.get(&(target, version)).copied()
    }

    pub(super) fn find(&self, key: (UserId, ClientMsgId)) -> Option<&SendRecord> {
        self.by_key.get(&key)
    }

    /// Whether the window holds every row of the log, so that a key that it does not know was never used.
    pub(super) fn is_whole(&self) -> bool {
        self.rows.len() as u64 == self.last.get()
    }

    /// The records to write before `count` more rows push old ones out. Half a window at once, so that a busy
    /// channel writes one group for every 128 messages.
    pub(super) fn leaving(&self, count: usize) -> Vec<SendRecord> {
        let out = (self.rows.len() + count).saturating_sub(WINDOW_ROWS);
        if out <= self.recorded {
            return Vec::new();
        }
        let upto = out.max(WINDOW_ROWS / 2).min(self.rows.len());
        let unrecorded = self.rows.range(self.recorded..upto);
        let record = |kept: &Kept| match kept {
            Kept::Sent(sender, id) => self.by_key.get(&(*sender, *id)).copied(),
            _ => None,
        };
        unrecorded.filter_map(record).collect()
    }

    /// The records of [`Self::leaving`] with the same `count` are durable.
    pub(super) fn mark_recorded(&mut self, count: usize) {
        let out = (self.rows.len() + count).saturating_sub(WINDOW_ROWS);
        if out > self.recorded {
            self.recorded = out.max(WINDOW_ROWS / 2).min(self.rows.len());
        }
    }
}

fn record_of(row: &Row) -> Option<SendRecord> {
    let message = row.entry.content.message()?;
    let key = row.key?;
    Some(SendRecord { key, seq: row.entry.seq, message_id: message.message_id, at: row.entry.at })
}

#[cfg(test)]
mod tests {
    use madang_ids::{Millis, Ordinal};
    use madang_proto::{Change, Content, Entry};

    use super::*;

    fn row(seq: u64, content: Content) -> Row {
        let entry = Entry { seq: Seq::new(seq), at: Millis::new(seq), content };
        Row { entry, ordinal: Ordinal::default(), key: None }
    }

    #[test]
    fn a_version_with_two_entries_is_known_until_the_last_row_leaves() {
        let by = UserId::from_raw(1);
        let edited = || Content::Edited(Change { target: Seq::new(1), version: 2, by, message: None });
        let other = || Content::Unpinned { target: Seq::new(1), by };
        let mut window = Window::default();
        window.push(&row(1, edited()));
        window.push(&row(2, edited()));
        let upto = WINDOW_ROWS as u64 + 2;
        for seq in 3..=upto {
            assert_eq!(window.change_at(Seq::new(1), 2), Some(Seq::new(2)), "before row {seq}");
            window.push(&row(seq, other()));
        }
        assert_eq!(window.change_at(Seq::new(1), 2), None, "both rows have left");
    }
}
