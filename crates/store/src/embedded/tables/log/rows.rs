//! Reads rows of a log. An unreadable row is replaced by a placeholder.

use std::ops::RangeInclusive;

use madang_ids::{ClientMsgId, LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Content, Entry, Unreadable, json};
use rusqlite::{Connection, Result};

use super::statements::place;
use crate::embedded::codec::{bound, int, number, optional_number, small_number};
use crate::embedded::unreadable::Unreadables;
use crate::log::{BodyHash, Row, RowKey, SentRows};

/// A reader of one log.
pub(super) struct Rows<'a> {
    pub(super) db: &'a Connection,
    pub(super) log: LogId,
    pub(super) unreadables: &'a Unreadables,
}

impl Rows<'_> {
    pub(super) fn read(
        &self,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
        is_back: bool,
    ) -> Result<Vec<Row>> {
        let (statements, id) = place(self.log);
        let sql = if is_back { statements.rows_back } else { statements.rows };
        let mut statement = self.db.prepare_cached(sql)?;
        let mut found = statement.query([id, bound(range.start().get()), bound(range.end().get())])?;
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        while let Some(row) = found.next()? {
            bytes = bytes.saturating_add(row.get_ref(6)?.as_bytes().map_or(0, <[u8]>::len));
            if bytes > max_bytes && !rows.is_empty() {
                break;
            }
            rows.push(self.row(row)?);
        }
        Ok(rows)
    }

    pub(super) fn sent_by(
        &self,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> Result<SentRows> {
        let (statements, id) = place(self.log);
        let mut statement = self.db.prepare_cached(statements.rows_by)?;
        let (start, end) = (bound(range.start().get()), bound(range.end().get()));
        let mut found = statement.query([id, start, end, int(sender.raw())])?;
        let (mut sent, mut bytes) = (SentRows { rows: Vec::new(), upto: *range.end() }, 0_usize);
        while let Some(row) = found.next()? {
            bytes = bytes.saturating_add(row.get_ref(6)?.as_bytes().map_or(0, <[u8]>::len));
            if bytes > max_bytes && !sent.rows.is_empty() {
                sent.upto = sent.rows.last().map_or(Seq::ZERO, |row| row.entry.seq);
                break;
            }
            sent.rows.push(self.row(row)?);
        }
        Ok(sent)
    }

    /// Rows without bodies; one whole row at a time is in memory.
    pub(super) fn tail(&self, range: RangeInclusive<Seq>) -> Result<Vec<Row>> {
        let (statements, id) = place(self.log);
        let mut statement = self.db.prepare_cached(statements.rows)?;
        let mut found = statement.query([id, bound(range.start().get()), bound(range.end().get())])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(self.row(row)?.without_body());
        }
        Ok(rows)
    }

    pub(super) fn at(&self, seqs: &[Seq], max_bytes: usize) -> Result<Vec<Option<Row>>> {
        let (statements, id) = place(self.log);
        let mut statement = self.db.prepare_cached(statements.row)?;
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        for seq in seqs {
            let mut found = statement.query([id, bound(seq.get())])?;
            let Some(row) = found.next()? else {
                rows.push(None);
                continue;
            };
            bytes = bytes.saturating_add(row.get_ref(6)?.as_bytes().map_or(0, <[u8]>::len));
            if bytes > max_bytes && !rows.is_empty() {
                break;
            }
            rows.push(Some(self.row(row)?));
        }
        Ok(rows)
    }

    /// A row. Damaged or unreadable content is replaced by a placeholder, so that the rows around it are served.
    fn row(&self, row: &rusqlite::Row<'_>) -> Result<Row> {
        let (seq, ordinal) = (Seq::new(number(row, 0)?), Ordinal::new(number(row, 2)?));
        let (content, key) = match content(row)? {
            Some(content) => (content, key(row)?),
            None => {
                self.unreadables.note(self.log, seq);
                let key = key(row).ok().flatten();
                let (sender_id, ordinal) = (key.map(|key| key.sender), key.map(|_| ordinal));
                let version = small_number(row, 8).unwrap_or(1);
                (Content::Unreadable(Unreadable { sender_id, ordinal, version }), key)
            }
        };
        let entry = Entry { seq, at: Millis::new(number(row, 1)?), content };
        Ok(Row { entry, ordinal, key })
    }
}

/// The content of a row; `None` if it is lost.
fn content(row: &rusqlite::Row<'_>) -> Result<Option<Content>> {
    let is_whole: bool = row.get(7)?;
    let text = row.get_ref(6)?.as_str().ok().filter(|_| is_whole);
    Ok(text.and_then(|text| json::read(text).ok()))
}

fn key(row: &rusqlite::Row<'_>) -> Result<Option<RowKey>> {
    Ok(match optional_number(row, 3)? {
        Some(sender) => Some(RowKey {
            sender: UserId::from_raw(sender),
            client_msg_id: client_msg_id(row, 4)?,
            body_hash: BodyHash(row.get(5)?),
        }),
        None => None,
    })
}

fn client_msg_id(row: &rusqlite::Row<'_>, column: usize) -> Result<ClientMsgId> {
    Ok(ClientMsgId::from_uuid(u128::from_be_bytes(row.get(column)?)))
}
