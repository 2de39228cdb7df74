//! Seats, members and memberships: three partitions that tell the same.

use madang_ids::{ChannelId, UserId};
use rusqlite::Result;

use super::Check;
use crate::embedded::codec::number;

const SEATS: &str = "
    SELECT channel, count, open FROM (
        SELECT channel, count, (SELECT count(*) FROM members m WHERE m.channel = s.channel AND m.is_open = 1) AS open
        FROM seats s)
    WHERE count <> open";
const NO_SEATS: &str = "
    SELECT DISTINCT channel FROM members m
    WHERE NOT EXISTS (SELECT 1 FROM seats s WHERE s.channel = m.channel)";
/// Of whom the log has still to tell, her membership may lag behind.
const MEMBERS: &str = "
    SELECT m.channel, m.user FROM members m
    LEFT JOIN memberships s ON s.user = m.user AND s.channel = m.channel
    WHERE m.pending IS NULL
      AND (s.role IS NOT m.role OR s.spans IS NOT m.spans OR s.is_open IS NOT m.is_open)";
const MEMBERSHIPS: &str = "
    SELECT s.channel, s.user FROM memberships s
    WHERE s.role IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM members m WHERE m.channel = s.channel AND m.user = s.user)";

impl Check<'_> {
    pub(super) fn members(&mut self) -> Result<()> {
        self.find_each(SEATS, |row| {
            let (channel, count, open) = (channel(row)?, number(row, 1)?, number(row, 2)?);
            Ok(format!("channel {channel}: {count} seats are taken, and {open} members are there"))
        })?;
        self.find_each(NO_SEATS, |row| Ok(format!("channel {}: has members and no seats", channel(row)?)))?;
        self.find_each(MEMBERS, |row| {
            Ok(format!(
                "channel {}: user {} is a member, and her membership differs",
                channel(row)?,
                user(row)?
            ))
        })?;
        self.find_each(MEMBERSHIPS, |row| {
            Ok(format!("channel {}: user {} has a membership and is no member", channel(row)?, user(row)?))
        })
    }

    fn find_each(&mut self, sql: &str, tell: impl Fn(&rusqlite::Row<'_>) -> Result<String>) -> Result<()> {
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.report.find(None, tell(row)?);
        }
        Ok(())
    }
}

fn channel(row: &rusqlite::Row<'_>) -> Result<ChannelId> {
    Ok(ChannelId::from_raw(number(row, 0)?))
}

fn user(row: &rusqlite::Row<'_>) -> Result<UserId> {
    Ok(UserId::from_raw(number(row, 1)?))
}
