//! Reactions to messages.

use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::Reaction;
use rusqlite::{Connection, Result, params};

use crate::embedded::codec::{int, limit, number, small_number};
use crate::log::{OwnReactions, ReactionChange, ReactionPlace};

pub(in crate::embedded) fn change(
    db: &Connection,
    channel: ChannelId,
    target: Seq,
    changes: &[ReactionChange],
) -> Result<()> {
    for ReactionChange { user_id, emoji, on, .. } in changes {
        let mut statement = db.prepare_cached(if *on {
            "INSERT INTO reactions (channel, target, emoji, user) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM reactions WHERE channel = ?1 AND target = ?2 AND emoji = ?3 AND user = ?4"
        })?;
        statement.execute(params![int(channel.raw()), int(target.get()), emoji, int(user_id.raw())])?;
    }
    Ok(())
}

/// Removes all reactions to a message.
pub(in crate::embedded) fn forget(db: &Connection, channel: ChannelId, target: Seq) -> Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM reactions WHERE channel = ?1 AND target = ?2")?;
    statement.execute([int(channel.raw()), int(target.get())]).map(drop)
}

/// All reactions to a message, by emoji, with the first users of each.
pub(in crate::embedded) fn all(
    db: &Connection,
    channel: ChannelId,
    target: Seq,
    named: usize,
) -> Result<Vec<Reaction>> {
    let mut statement = db.prepare_cached(
        "SELECT emoji, count(*) FROM reactions WHERE channel = ?1 AND target = ?2 GROUP BY emoji ORDER BY emoji",
    )?;
    let counts = statement.query_map([int(channel.raw()), int(target.get())], |row| {
        Ok((row.get::<_, String>(0)?, small_number(row, 1)?))
    })?;
    counts
        .map(|counted| {
            let (emoji, count) = counted?;
            let users = users(db, channel, target, &emoji, None, named)?;
            Ok(Reaction { emoji, count, users })
        })
        .collect()
}

pub(in crate::embedded) fn by(
    db: &Connection,
    channel: ChannelId,
    user: UserId,
    after: Option<ReactionPlace>,
    scan: usize,
) -> Result<OwnReactions> {
    let mut statement = db.prepare_cached(
        "SELECT target, emoji, user FROM reactions WHERE channel = ?1 AND (target, emoji, user) > (?2, ?3, ?4)
         ORDER BY target, emoji, user LIMIT ?5",
    )?;
    let (target, emoji, last) = after
        .map_or((0, String::new(), 0), |(target, emoji, user)| (int(target.get()), emoji, int(user.raw())));
    let mut all = statement.query(params![int(channel.raw()), target, emoji, last, limit(scan)])?;
    let (mut own, mut count) = (OwnReactions::default(), 0);
    while let Some(row) = all.next()? {
        count += 1;
        let (target, emoji) = (Seq::new(number(row, 0)?), row.get::<_, String>(1)?);
        let by = UserId::from_raw(number(row, 2)?);
        if by == user {
            own.found.push((target, emoji.clone()));
        }
        own.next = Some((target, emoji, by));
    }
    own.next = own.next.filter(|_| count == scan);
    Ok(own)
}

pub(in crate::embedded) fn users(
    db: &Connection,
    channel: ChannelId,
    target: Seq,
    emoji: &str,
    after: Option<UserId>,
    rows: usize,
) -> Result<Vec<UserId>> {
    let mut statement = db.prepare_cached(
        "SELECT user FROM reactions WHERE channel = ?1 AND target = ?2 AND emoji = ?3 AND user > ?4
         ORDER BY user LIMIT ?5",
    )?;
    let after = after.map_or(0, |user| int(user.raw()));
    let key = params![int(channel.raw()), int(target.get()), emoji, after, limit(rows)];
    statement.query_map(key, |row| Ok(UserId::from_raw(number(row, 0)?)))?.collect()
}
