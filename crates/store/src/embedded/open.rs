//! Open channels: found by name and topic; and who owns a channel after its owner.

use madang_ids::{ChannelId, UserId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::channels::card_at;
use super::codec::{int, limit, number, small_number};
use crate::channels::FoundChannel;

/// Open channels that have been joined, whose name or topic holds `query` (in lower case), by id.
pub(super) fn find(
    db: &Connection,
    query: &str,
    after: Option<ChannelId>,
    rows: usize,
) -> Result<Vec<FoundChannel>> {
    let mut statement = db.prepare_cached(
        "SELECT c.id, c.kind, c.name, c.between_one, c.between_other, c.topic, c.avatar, s.count
         FROM channels c JOIN seats s ON s.channel = c.id
         WHERE c.searched IS NOT NULL AND c.id > ?1 AND instr(c.searched, ?2) > 0 ORDER BY c.id LIMIT ?3",
    )?;
    let after = after.map_or(0, |channel| int(channel.raw()));
    let found = statement.query_map(params![after, query, limit(rows)], |row| {
        Ok(FoundChannel { card: card_at(row, 0)?, members: small_number(row, 7)? })
    })?;
    found.collect()
}

/// An admin before a member, then who has been there longest.
pub(super) fn successor(db: &Connection, channel: ChannelId, owner: UserId) -> Result<Option<UserId>> {
    let mut statement = db.prepare_cached(
        "SELECT user FROM members WHERE channel = ?1 AND is_open = 1 AND user <> ?2
         ORDER BY role = 'member', joined_at, user LIMIT 1",
    )?;
    statement
        .query_row([int(channel.raw()), int(owner.raw())], |row| Ok(UserId::from_raw(number(row, 0)?)))
        .optional()
}
