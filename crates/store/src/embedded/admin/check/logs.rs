//! Checks logs: dense, rising, undamaged, and ending where their heads say.

use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Content, json};
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Result};

use super::Check;
use crate::embedded::codec::{int, number};

/// Rows between two reports of progress.
const PROGRESS_ROWS: u64 = 1_000_000;

/// One of the two tables of logs.
pub(super) struct Table {
    log: &'static str,
    heads: &'static str,
    id: fn(u64) -> LogId,
    /// Whether its logs may lack their first rows.
    is_trimmed: bool,
}

pub(super) const CHANNELS: Table =
    Table { log: "log", heads: "heads", id: |id| LogId::Channel(ChannelId::from_raw(id)), is_trimmed: false };
pub(super) const USERS: Table = Table {
    log: "user_log",
    heads: "user_heads",
    id: |id| LogId::User(UserId::from_raw(id)),
    is_trimmed: true,
};

/// The places of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    seq: u64,
    pos: u64,
    at_ms: u64,
    ordinal: u64,
}

const BEFORE_ALL: Place = Place { seq: 0, pos: 0, at_ms: 0, ordinal: 0 };

impl Place {
    fn of(row: &rusqlite::Row<'_>, column: usize) -> Result<Self> {
        Ok(Self {
            seq: number(row, column)?,
            pos: number(row, column + 1)?,
            at_ms: number(row, column + 2)?,
            ordinal: number(row, column + 3)?,
        })
    }

    /// The fault of a row that comes after `self`, if it has one.
    fn fault_of(self, next: Self) -> Option<String> {
        if next.seq != self.seq + 1 {
            return Some(format!("comes after seq {}", self.seq));
        }
        if next.pos <= self.pos {
            return Some(format!("its position {} is not above {}", next.pos, self.pos));
        }
        if next.at_ms < self.at_ms {
            return Some(format!("its time {} is before {}", next.at_ms, self.at_ms));
        }
        if next.ordinal < self.ordinal || next.ordinal > self.ordinal + 1 {
            return Some(format!("its ordinal {} does not follow {}", next.ordinal, self.ordinal));
        }
        None
    }
}

/// The reason why the content of a row cannot be read.
fn fault_of_content(content: ValueRef<'_>) -> Option<String> {
    match content.as_str() {
        Ok(text) => {
            json::read::<Content>(text).err().map(|error| format!("its content cannot be read: {error}"))
        }
        Err(error) => Some(format!("its content is not text: {error}")),
    }
}

impl Check<'_> {
    pub(super) fn logs(&mut self, table: &Table) -> Result<()> {
        let (whole, has_none) = self.whole_sql()?;
        let mut rows = self.db.prepare(&format!(
            "SELECT id, seq, pos, at_ms, ordinal, {whole}, {has_none}, content FROM {} ORDER BY id, seq",
            table.log
        ))?;
        let mut rows = rows.query([])?;
        let mut current: Option<(u64, Place)> = None;
        while let Some(row) = rows.next()? {
            let (id, place) = (number(row, 0)?, Place::of(row, 1)?);
            let before = match current {
                Some((log, before)) if log == id => before,
                ended => {
                    self.log_ended(table, ended)?;
                    self.before_first(table, id)?
                }
            };
            let at = Some(((table.id)(id), Seq::new(place.seq)));
            if let Some(fault) = before.fault_of(place) {
                self.report.find(at, fault);
            }
            if !row.get::<_, bool>(5)? {
                self.report.find(at, "differs from its checksum");
            } else if let Some(fault) = fault_of_content(row.get_ref(7)?) {
                self.report.find(at, fault);
            }
            self.count(place, row.get(6)?);
            current = Some((id, place));
        }
        self.log_ended(table, current)?;
        self.heads_alone(table)
    }

    /// The place before the first row of a log. Removed rows of an own log count as rows.
    fn before_first(&mut self, table: &Table, id: u64) -> Result<Place> {
        if !table.is_trimmed || !self.db.column_exists(None, table.heads, "trimmed")? {
            return Ok(BEFORE_ALL);
        }
        let sql = format!("SELECT trimmed FROM {} WHERE id = ?1", table.heads);
        let trimmed = self.db.prepare_cached(&sql)?.query_row([int(id)], |row| number(row, 0)).optional()?;
        let seq = trimmed.unwrap_or_default();
        self.report.trimmed += seq;
        Ok(Place { seq, ..BEFORE_ALL })
    }

    fn count(&mut self, place: Place, has_no_checksum: bool) {
        self.report.rows += 1;
        self.report.rows_without_checksum += u64::from(has_no_checksum);
        self.report.last_ms = self.report.last_ms.max(place.at_ms);
        if self.report.rows.is_multiple_of(PROGRESS_ROWS) {
            (self.progress)(&format!("{} rows", self.report.rows));
        }
    }

    fn log_ended(&mut self, table: &Table, ended: Option<(u64, Place)>) -> Result<()> {
        let Some((id, last)) = ended else { return Ok(()) };
        self.report.logs += 1;
        let sql = format!("SELECT seq, pos, at_ms, ordinal FROM {} WHERE id = ?1", table.heads);
        let head = self.db.prepare_cached(&sql)?.query_row([int(id)], |row| Place::of(row, 0)).optional()?;
        if head != Some(last) {
            let told = head.map_or_else(|| "no head".to_owned(), |head| format!("the head {head:?}"));
            let what = format!("is the last row, {last:?}, but the log has {told}");
            self.report.find(Some(((table.id)(id), Seq::new(last.seq))), what);
        }
        Ok(())
    }

    fn heads_alone(&mut self, table: &Table) -> Result<()> {
        let (heads, log) = (table.heads, table.log);
        let sql = format!(
            "SELECT id, seq FROM {heads} WHERE NOT EXISTS (SELECT 1 FROM {log} WHERE {log}.id = {heads}.id)"
        );
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let place = ((table.id)(number(row, 0)?), Seq::new(number(row, 1)?));
            self.report.find(Some(place), "the head has no row");
        }
        Ok(())
    }

    /// Checks that each position belongs to one row, and that the last assigned position is the greatest.
    pub(super) fn positions(&mut self) -> Result<()> {
        let last: u64 = self.db.query_row(
            "SELECT max(coalesce((SELECT max(pos) FROM heads), 0), coalesce((SELECT max(pos) FROM user_heads), 0))",
            [],
            |row| number(row, 0),
        )?;
        let position = self.report.position.get();
        if last != position {
            self.report
                .find(None, format!("the position is {position}, and the greatest of a row is {last}"));
        } else if self.report.rows + self.report.trimmed != position {
            let rows = self.report.rows + self.report.trimmed;
            self.report.find(None, format!("there are {rows} rows for {position} positions"));
        }
        Ok(())
    }
}
