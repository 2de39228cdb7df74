//! Settings of users about channels, and messages that they hid.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis, Ordinal, Seq, UserId};
use madang_proto::ChannelSettings;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::embedded::Embedded;
use crate::embedded::codec::{bound, int, json, limit, number, optional_json, optional_number};
use crate::error::StoreResult;
use crate::settings::SettingStore;

#[async_trait]
impl SettingStore for Embedded {
    async fn put_channel_settings(
        &self,
        user: UserId,
        channel: ChannelId,
        settings: &ChannelSettings,
    ) -> StoreResult<bool> {
        let settings = *settings;
        self.write(move |transaction| put(transaction.db(), user, channel, &settings)).await
    }

    async fn channel_settings(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT rev, favourite, marked_unread, muted_until, hidden_ordinal, alerts FROM channel_settings
                 WHERE user = ?1 AND channel = ?2",
            )?;
            let found = statement.query_row([int(user.raw()), int(channel.raw())], |row| settings_at(row, 0));
            Ok(found.optional()?.unwrap_or_default())
        })
        .await
    }

    async fn hide_message(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        at_most: usize,
    ) -> StoreResult<bool> {
        self.write(move |transaction| hide(transaction.db(), user, channel, seq, at_most)).await
    }

    async fn hidden_messages(
        &self,
        user: UserId,
        ranges: &[(ChannelId, RangeInclusive<Seq>)],
    ) -> StoreResult<Vec<(ChannelId, Seq)>> {
        let ranges = ranges.to_vec();
        self.read(move |db| hidden(db, user, &ranges)).await
    }
}

/// Settings in six columns from `column` on, all of them null if nothing was ever set.
pub(in crate::embedded) fn settings_at(row: &Row<'_>, column: usize) -> Result<ChannelSettings> {
    let Some(rev) = optional_number(row, column)? else { return Ok(ChannelSettings::default()) };
    Ok(ChannelSettings {
        rev,
        favourite: row.get(column + 1)?,
        marked_unread: row.get(column + 2)?,
        muted_until: optional_number(row, column + 3)?.map(Millis::new),
        hidden_ordinal: optional_number(row, column + 4)?.map(Ordinal::new),
        alerts: optional_json(row, column + 5)?,
    })
}

fn put(db: &Connection, user: UserId, channel: ChannelId, settings: &ChannelSettings) -> Result<bool> {
    let (user, channel) = (int(user.raw()), int(channel.raw()));
    let mut statement =
        db.prepare_cached("SELECT rev FROM channel_settings WHERE user = ?1 AND channel = ?2")?;
    let found = statement.query_row([user, channel], |row| number(row, 0)).optional()?;
    if found.unwrap_or_default() + 1 != settings.rev {
        return Ok(false);
    }
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO channel_settings
         (user, channel, rev, favourite, marked_unread, muted_until, hidden_ordinal, alerts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    statement.execute(params![
        user,
        channel,
        int(settings.rev),
        settings.favourite,
        settings.marked_unread,
        settings.muted_until.map(|until| bound(until.get())),
        settings.hidden_ordinal.map(|ordinal| bound(ordinal.get())),
        settings.alerts.as_ref().map(json).transpose()?,
    ])?;
    Ok(true)
}

fn hide(db: &Connection, user: UserId, channel: ChannelId, seq: Seq, at_most: usize) -> Result<bool> {
    let key = [int(user.raw()), int(channel.raw()), int(seq.get())];
    let mut others = db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM hidden_messages
         WHERE user = ?1 AND channel = ?2 AND seq <> ?3 LIMIT ?4)",
    )?;
    let others: i64 = others.query_row([key[0], key[1], key[2], limit(at_most)], |row| row.get(0))?;
    if others >= limit(at_most) {
        return Ok(false);
    }
    let mut statement = db.prepare_cached(
        "INSERT INTO hidden_messages (user, channel, seq) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?;
    statement.execute(key)?;
    Ok(true)
}

pub(super) fn hidden(
    db: &Connection,
    user: UserId,
    ranges: &[(ChannelId, RangeInclusive<Seq>)],
) -> Result<Vec<(ChannelId, Seq)>> {
    // Most users hide nothing: one query finds that.
    let mut any = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM hidden_messages WHERE user = ?1)")?;
    if !any.query_row([int(user.raw())], |row| row.get::<_, bool>(0))? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(
        "SELECT seq FROM hidden_messages WHERE user = ?1 AND channel = ?2 AND seq BETWEEN ?3 AND ?4",
    )?;
    let mut found = Vec::new();
    for (channel, range) in ranges {
        let (first, last) = (bound(range.start().get()), bound(range.end().get()));
        let seqs = statement.query_map([int(user.raw()), int(channel.raw()), first, last], |row| {
            Ok(Seq::new(number(row, 0)?))
        })?;
        for seq in seqs {
            found.push((*channel, seq?));
        }
    }
    Ok(found)
}
