//! The retry keys of the last rows, exact by construction: loaded with the tail, pushed with each append.

use std::collections::{HashMap, VecDeque};

use madang_ids::{ClientMsgId, Seq, UserId};

use crate::home::WINDOW_ROWS;
use crate::log::{Row, SendRecord, Tail};

#[derive(Debug, Default)]
pub(super) struct Window {
    by_key: HashMap<(UserId, ClientMsgId), SendRecord>,
    /// One a row, also for rows that are no messages: the window is counted in rows.
    rows: VecDeque<Option<(UserId, ClientMsgId)>>,
    /// Rows at the old end that are recorded in the store already.
    recorded: usize,
    /// The place of the last row.
    last: Seq,
}

impl Window {
    pub(super) fn load(&mut self, tail: &Tail) {
        *self = Self::default();
        self.last = tail.head.seq.minus(tail.rows.len() as u64);
        tail.rows.iter().for_each(|row| self.push(row));
    }

    pub(super) fn push(&mut self, row: &Row) {
        let record = record_of(row);
        let key = record.map(|record| (record.key.sender, record.key.client_msg_id));
        if let (Some(key), Some(record)) = (key, record) {
            self.by_key.insert(key, record);
        }
        self.rows.push_back(key);
        self.last = row.entry.seq;
        while self.rows.len() > WINDOW_ROWS {
            if let Some(Some(key)) = self.rows.pop_front() {
                self.by_key.remove(&key);
            }
            self.recorded = self.recorded.saturating_sub(1);
        }
    }

    pub(super) fn find(&self, key: (UserId, ClientMsgId)) -> Option<&SendRecord> {
        self.by_key.get(&key)
    }

    /// Whether the window holds every row of the log, so that what it does not know was never sent.
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
        unrecorded.flatten().filter_map(|key| self.by_key.get(key).copied()).collect()
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
