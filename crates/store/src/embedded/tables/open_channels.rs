//! Open channels: the search by name and topic, and the next owner of a channel.

use madang_ids::{ChannelId, UserId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::channels::card_at;
use crate::directory::{FoundChannel, FoundPage, searched};
use crate::embedded::codec::{int, limit, number, optional_number, small_number};
use crate::embedded::readable::readable;

/// Open channels that have been joined, whose name or topic holds `query` (caseless), by id. The texts are folded here: a
/// folder of an earlier version keeps them in lower case only.
pub(in crate::embedded) fn find(
    db: &Connection,
    query: &str,
    after: Option<ChannelId>,
    rows: usize,
    scan: usize,
) -> Result<FoundPage> {
    let mut statement = db.prepare_cached(
        "SELECT c.id, c.kind, c.name, c.between_one, c.between_other, c.topic, c.avatar, s.count
         FROM channels c LEFT JOIN seats s ON s.channel = c.id
         WHERE c.searched IS NOT NULL AND c.id > ?1 ORDER BY c.id LIMIT ?2",
    )?;
    let mut looked_at =
        statement.query(params![after.map_or(0, |channel| int(channel.raw())), limit(scan)])?;
    let (mut page, mut count) = (FoundPage::default(), 0);
    while let Some(row) = looked_at.next()? {
        count += 1;
        page.next = Some(ChannelId::from_raw(number(row, 0)?));
        // An unreadable channel is not found; `check` reports it.
        let Some(card) = readable(card_at(row, 0))? else { continue };
        // A channel without seats is half made.
        let members = optional_number(row, 7)?.and_then(|members| u32::try_from(members).ok());
        if let Some(members) = members.filter(|_| searched(card.name.as_deref(), &card.topic).contains(query))
        {
            page.channels.push(FoundChannel { card, members });
            if page.channels.len() == rows {
                return Ok(page);
            }
        }
    }
    page.next = page.next.filter(|_| count == scan);
    Ok(page)
}

/// The number of open channels that a user has made, up to `most`.
pub(in crate::embedded) fn made_by(db: &Connection, user: UserId, most: u32) -> Result<u32> {
    let mut statement = db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM channels WHERE created_by = ?1 AND searched IS NOT NULL LIMIT ?2)",
    )?;
    statement.query_row(params![int(user.raw()), most], |row| small_number(row, 0))
}

/// The next owner: an admin before a member, then the one who joined first.
pub(in crate::embedded) fn successor(
    db: &Connection,
    channel: ChannelId,
    owner: UserId,
) -> Result<Option<UserId>> {
    let mut statement = db.prepare_cached(
        "SELECT user FROM members WHERE channel = ?1 AND is_open = 1 AND user <> ?2
         ORDER BY role = 'member', joined_at, user LIMIT 1",
    )?;
    statement
        .query_row([int(channel.raw()), int(owner.raw())], |row| Ok(UserId::from_raw(number(row, 0)?)))
        .optional()
}
