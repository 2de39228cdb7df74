//! Checks everything in a data folder that is not in use: whether it is as it was written, and consistent. Reads only.

mod logs;
mod members;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use madang_ids::{LogId, Position, Seq};
use rusqlite::Connection;

use super::damage;
use super::folder::{DATABASE, Folder};
use crate::embedded::acked::{self, Noted};
use crate::embedded::checksum;
use crate::embedded::codec::number;
use crate::embedded::open_error::OpenError;
use crate::embedded::schema::{self, Medium};

/// Findings that are reported one by one; the others are counted.
const FINDINGS: usize = 1_000;
/// Messages of SQLite's own check.
const INTEGRITY_FINDINGS: usize = 100;

/// A damage or an inconsistency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The place, if it is in a log.
    pub place: Option<(LogId, Seq)>,
    /// A description for operators.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((log, seq)) => write!(f, "{log}, seq {}: {}", seq.get(), self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The first findings.
    pub findings: Vec<Finding>,
    /// The number of further findings.
    pub more: u64,
    /// Rows of logs that were read.
    pub rows: u64,
    /// Rows among them that version 1 wrote, without a checksum.
    pub rows_without_checksum: u64,
    /// Rows of users' own logs that upkeep has removed because of their age.
    pub trimmed: u64,
    /// Logs that were read.
    pub logs: u64,
    /// The database's position.
    pub position: Position,
    /// The time of the last entry, in milliseconds since 1970.
    pub last_ms: u64,
}

impl Report {
    fn find(&mut self, place: Option<(LogId, Seq)>, what: impl Into<String>) {
        if self.findings.len() < FINDINGS {
            self.findings.push(Finding { place, what: what.into() });
        } else {
            self.more += 1;
        }
    }
}

/// Checks a data folder or a backup. `progress` is called about each second with the part that is being checked.
///
/// # Errors
/// It does not exist, another process uses it, or a newer program wrote it. Damage is a finding, not an error.
pub fn check(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Report, OpenError> {
    let folder = Folder::open_existing(folder)?;
    check_locked(&folder, progress)
}

/// As [`check`], for a folder that the caller has locked.
pub(in crate::embedded) fn check_locked(
    folder: &Folder,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, OpenError> {
    let file = folder.path().join(DATABASE);
    let mut report = Report::default();
    if let Err(OpenError::Damaged { what, .. }) = damage::check_header(&file) {
        report.find(None, format!("{}: {what}", file.display()));
        return Ok(report);
    }
    let opened = schema::open_reader(&file, Medium::default())
        .and_then(|db| Ok((db.pragma_query_value(None, "user_version", |row| row.get(0))?, db)));
    let (found, db): (i64, Connection) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let what = damage::of_length(&file).unwrap_or_else(|| error.to_string());
            report.find(None, format!("{}: {what}", file.display()));
            return Ok(report);
        }
    };
    schema::check_version(folder, found, Medium::default())?;
    let is_current = usize::try_from(found).is_ok_and(|found| found == schema::MIGRATIONS.len());
    let check = Check { db: &db, is_current, report, progress };
    Ok(check.run(folder))
}

struct Check<'a> {
    db: &'a Connection,
    /// Whether the file is of this program's version.
    is_current: bool,
    report: Report,
    progress: &'a mut dyn FnMut(&str),
}

impl Check<'_> {
    fn run(mut self, folder: &Folder) -> Report {
        self.step("the database file", Self::integrity);
        self.step("the position", |check| check.position(folder));
        self.step("the logs of channels", |check| check.logs(&logs::CHANNELS));
        self.step("the logs of users", |check| check.logs(&logs::USERS));
        self.step("positions", Self::positions);
        self.step("members", Self::members);
        self.step("rows of channels and members", Self::rows_of_channels);
        self.step("epochs", Self::epochs);
        self.report
    }

    /// Checks one part. A part that cannot be read is a finding, and the next part is checked.
    fn step(&mut self, what: &str, look: impl FnOnce(&mut Self) -> rusqlite::Result<()>) {
        (self.progress)(what);
        if let Err(error) = look(self) {
            self.report.find(None, format!("{what} cannot be read further: {error}"));
        }
    }

    fn integrity(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.db.prepare(&format!("PRAGMA integrity_check({INTEGRITY_FINDINGS})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let what: String = row.get(0)?;
            if what != "ok" {
                self.report.find(None, format!("the database file: {what}"));
            }
        }
        Ok(())
    }

    fn position(&mut self, folder: &Folder) -> rusqlite::Result<()> {
        let position = self.db.query_row("SELECT value FROM position", [], |row| number(row, 0))?;
        self.report.position = Position::new(position);
        match acked::read(folder.path()) {
            Ok(Noted::Position(acked)) if acked.get() > position => {
                let acked = acked.get();
                let lost = acked - position;
                let what = format!(
                    "positions up to {acked} were acked, the database ends at {position}: {lost} are lost"
                );
                self.report.find(None, what);
            }
            Ok(Noted::Torn) => self.report.find(None, "the acked position cannot be read"),
            _ => {}
        }
        Ok(())
    }

    /// A start begins where the one before it ended, or earlier after a restore.
    fn epochs(&mut self) -> rusqlite::Result<()> {
        let mut statement =
            self.db.prepare("SELECT start_order, start_pos FROM epochs ORDER BY start_order")?;
        let mut rows = statement.query([])?;
        let mut last = 0;
        while let Some(row) = rows.next()? {
            let (order, start) = (number(row, 0)?, number(row, 1)?);
            if start < last || start > self.report.position.get() {
                let what = format!("start {order} begins at position {start}, after {last}");
                self.report.find(None, what);
            }
            last = start;
        }
        Ok(())
    }

    /// Whether rows of this file have checksums.
    fn whole_sql(&self) -> rusqlite::Result<(&'static str, &'static str)> {
        let has_sums = self.db.column_exists(None, "log", "checksum")?;
        Ok(if has_sums { (checksum::is_whole_sql!(), "checksum IS NULL") } else { ("1", "1") })
    }
}
