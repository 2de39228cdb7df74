//! Checks that seats, members and memberships agree.

use madang_ids::{ChannelId, UserId};
use rusqlite::Result;

use super::Check;
use crate::embedded::codec::number;
use crate::embedded::tables::channels::channel_at;
use crate::embedded::tables::members::{member_of, membership_at};

const SEATS: &str = "
    SELECT channel, count, open FROM (
        SELECT channel, count, (SELECT count(*) FROM members m WHERE m.channel = s.channel AND m.is_open = 1) AS open
        FROM seats s)
    WHERE count <> open";
const NO_SEATS: &str = "
    SELECT DISTINCT channel FROM members m
    WHERE NOT EXISTS (SELECT 1 FROM seats s WHERE s.channel = m.channel)";
/// A member with a pending change may be ahead of the membership; a user who was banned without ever having joined has none.
const MEMBERS: &str = "
    SELECT m.channel, m.user FROM members m
    LEFT JOIN memberships s ON s.user = m.user AND s.channel = m.channel
    WHERE m.pending IS NULL AND NOT (s.user IS NULL AND m.spans = '[]')
      AND (s.role IS NOT m.role OR s.spans IS NOT m.spans OR s.is_open IS NOT m.is_open)";
/// `has_accepted` is written to both together.
const ACCEPTED: &str = "
    SELECT m.channel, m.user FROM members m JOIN memberships s ON s.user = m.user AND s.channel = m.channel
    WHERE m.is_open = 1 AND s.is_open = 1 AND s.has_accepted IS NOT m.has_accepted";
const MEMBERSHIPS: &str = "
    SELECT s.channel, s.user FROM memberships s
    WHERE s.role IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM members m WHERE m.channel = s.channel AND m.user = s.user)";

const ALL_CHANNELS: &str = "
    SELECT id, kind, name, between_one, between_other, topic, avatar, created_by, created_at, capacity, slow_mode_s, pins, state
    FROM channels";
const ALL_MEMBERS: &str = "SELECT user, role, joined_at, spans, pending, muted_until, banned_until, has_accepted, channel FROM members";
const ALL_MEMBERSHIPS: &str = "SELECT user, channel, role, spans, as_of, in_inbox, has_accepted FROM memberships WHERE role IS NOT NULL";
const INVITATIONS: &str = "
    SELECT i.channel, i.user FROM group_invitations i
    WHERE i.state NOT IN ('waiting', 'declined', 'ended')
       OR NOT EXISTS (SELECT 1 FROM channels c WHERE c.id = i.channel AND c.kind = 'group')
       OR (i.state = 'ended' AND i.is_told = 1)";

impl Check<'_> {
    /// Finds rows that the server cannot read. Only in a folder of this version: an older one has other columns.
    pub(super) fn rows_of_channels(&mut self) -> Result<()> {
        if !self.is_current {
            return Ok(());
        }
        self.find_each(ACCEPTED, |row| {
            let (channel, user) = (channel(row)?, user(row)?);
            Ok(format!(
                "channel {channel}: the member row and the membership of user {user} differ in whether the \
                 user has accepted"
            ))
        })?;
        self.find_each(INVITATIONS, |row| {
            let (channel, user) = (channel(row)?, user(row)?);
            Ok(format!(
                "channel {channel}: the invitation of user {user} refers to no group, or has an unknown state"
            ))
        })?;
        self.find_unreadable(ALL_CHANNELS, |row| {
            let (read, id) = (channel_at(row, 0), ChannelId::from_raw(number(row, 0)?));
            Ok(read.err().map(|error| format!("channel {id}: its row cannot be read: {error}")))
        })?;
        self.find_unreadable(ALL_MEMBERS, |row| {
            let (read, id) = (member_of(row), ChannelId::from_raw(number(row, 8)?));
            let user = UserId::from_raw(number(row, 0)?);
            Ok(read.err().map(|error| format!("channel {id}: its member {user} cannot be read: {error}")))
        })?;
        self.find_unreadable(ALL_MEMBERSHIPS, |row| {
            let (read, id) = (membership_at(row, 0), ChannelId::from_raw(number(row, 1)?));
            let user = UserId::from_raw(number(row, 0)?);
            Ok(read
                .err()
                .map(|error| format!("channel {id}: the membership of user {user} cannot be read: {error}")))
        })
    }

    fn find_unreadable(
        &mut self,
        sql: &str,
        fault: impl Fn(&rusqlite::Row<'_>) -> Result<Option<String>>,
    ) -> Result<()> {
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(what) = fault(row)? {
                self.report.find(None, what);
            }
        }
        Ok(())
    }

    pub(super) fn members(&mut self) -> Result<()> {
        self.find_each(SEATS, |row| {
            let (channel, count, open) = (channel(row)?, number(row, 1)?, number(row, 2)?);
            Ok(format!("channel {channel}: {count} seats are taken, but there are {open} members"))
        })?;
        self.find_each(NO_SEATS, |row| Ok(format!("channel {}: has members but no seats", channel(row)?)))?;
        self.find_each(MEMBERS, |row| {
            Ok(format!(
                "channel {}: user {} is a member, but their membership differs",
                channel(row)?,
                user(row)?
            ))
        })?;
        self.find_each(MEMBERSHIPS, |row| {
            Ok(format!("channel {}: user {} has a membership but is not a member", channel(row)?, user(row)?))
        })
    }

    fn find_each(
        &mut self,
        sql: &str,
        describe: impl Fn(&rusqlite::Row<'_>) -> Result<String>,
    ) -> Result<()> {
        let mut statement = self.db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.report.find(None, describe(row)?);
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
