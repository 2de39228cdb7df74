//! Sends that left the window of a home, by their retry keys.

use madang_ids::{ChannelId, ClientMsgId, MessageId, Millis, Seq, UserId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::embedded::codec::{bound, int, limit, number};
use crate::log::{BodyHash, RowKey, SendRecord};

pub(in crate::embedded) fn insert(db: &Connection, channel: ChannelId, record: &SendRecord) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO sends (channel, sender, client_msg_id, body_hash, seq, message_id, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    statement.execute(params![
        int(channel.raw()),
        int(record.key.sender.raw()),
        record.key.client_msg_id.value().to_be_bytes(),
        record.key.body_hash.0,
        int(record.seq.get()),
        int(record.message_id.raw()),
        int(record.at.get()),
    ])?;
    Ok(())
}

pub(in crate::embedded) fn find(
    db: &Connection,
    channel: ChannelId,
    (sender, client_msg_id): (UserId, ClientMsgId),
) -> Result<Option<SendRecord>> {
    let mut statement = db.prepare_cached(
        "SELECT body_hash, seq, message_id, at_ms FROM sends
         WHERE channel = ?1 AND sender = ?2 AND client_msg_id = ?3",
    )?;
    let key = params![int(channel.raw()), int(sender.raw()), client_msg_id.value().to_be_bytes()];
    statement
        .query_row(key, |row| {
            Ok(SendRecord {
                key: RowKey { sender, client_msg_id, body_hash: BodyHash(row.get(0)?) },
                seq: Seq::new(number(row, 1)?),
                message_id: MessageId::from_raw(number(row, 2)?),
                at: Millis::new(number(row, 3)?),
            })
        })
        .optional()
}

/// Removes records of hours that end before `before`. By whole hours, as the index has them: within an hour it would have to look
/// at each row, and at the younger ones in every call.
pub(in crate::embedded) fn forget(db: &Connection, before: Millis, rows: usize) -> Result<usize> {
    let mut statement = db.prepare_cached(
        "DELETE FROM sends WHERE (channel, sender, client_msg_id) IN
         (SELECT channel, sender, client_msg_id FROM sends
          WHERE at_ms / 3600000 < ?1 / 3600000 ORDER BY at_ms / 3600000 LIMIT ?2)",
    )?;
    statement.execute(params![bound(before.get()), limit(rows)])
}
