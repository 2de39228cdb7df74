//! The statements of logs.

use crate::scylla::session::{Class, Statement};

pub(super) const PLACE: Statement =
    Statement { class: Class::Read, cql: "SELECT bucket FROM log_place WHERE kind = ? AND id = ?" };
pub(super) const SET_PLACE: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO log_place (kind, id, bucket) VALUES (?, ?, ?) USING TIMESTAMP ?",
};
pub(super) const HEAD: Statement = Statement {
    class: Class::Read,
    cql: "SELECT head_seq, head_ordinal, head_at, message_at, details FROM log
          WHERE kind = ? AND id = ? AND bucket = ? LIMIT 1",
};
pub(super) const SERIAL_HEAD: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT head_seq, head_ordinal, head_at, message_at, details FROM log
          WHERE kind = ? AND id = ? AND bucket = ? LIMIT 1",
};
/// The head and the last rows in one serial read. Bodies are not read.
pub(super) const TAIL: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT head_seq, head_ordinal, head_at, seq, at, ordinal, version, sender, client_msg_id, body_hash, content FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
pub(super) const LAST_ROWS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT head_seq, head_ordinal, head_at, seq, at, ordinal, version, sender, client_msg_id, body_hash, content FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
pub(super) const RISING: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq >= ? AND seq <= ?
          ORDER BY part DESC, seq ASC, key DESC LIMIT ?",
};
pub(super) const FALLING: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq >= ? AND seq <= ?
          ORDER BY part ASC, seq DESC, key ASC LIMIT ?",
};
pub(super) const SINGLE: Statement = Statement {
    class: Class::Read,
    cql:
        "SELECT seq, at, ordinal, version, sender, client_msg_id, body_hash, content, body, reactions FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x",
};
pub(super) const TIME: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at FROM log WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x",
};
pub(super) const ALL_KEYS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT key, body_hash, target, message_id, at FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 1 AND seq = 0 AND key > ? LIMIT ?",
};
pub(super) const KEY: Statement = Statement {
    class: Class::SerialRead,
    cql: "SELECT key, body_hash, target, message_id, at FROM log
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 1 AND seq = 0 AND key = ?",
};
pub(super) const MOVE_HEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET head_seq = ?, head_ordinal = ?, head_at = ?, message_at = ?, details = ?
          WHERE kind = ? AND id = ? AND bucket = ? IF head_seq = ? AND head_ordinal = ? AND head_at = ?",
};
pub(super) const FIRST_HEAD: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET head_seq = ?, head_ordinal = ?, head_at = ?, message_at = ?, details = ?
          WHERE kind = ? AND id = ? AND bucket = ? IF head_seq = null",
};
pub(super) const INSERT_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO log (kind, id, bucket, part, seq, key, at, ordinal, version, sender, client_msg_id, body_hash, content,
          body, reactions) VALUES (?, ?, ?, 0, ?, 0x, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
};
pub(super) const INSERT_KEY: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO log (kind, id, bucket, part, seq, key, body_hash, target, message_id, at)
          VALUES (?, ?, ?, 1, 0, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
pub(super) const CHANGE_ROW: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE log SET version = ?, content = ?, body = ?, reactions = ?
          WHERE kind = ? AND id = ? AND bucket = ? AND part = 0 AND seq = ? AND key = 0x IF version = ?",
};
pub(super) const SEND: Statement = Statement {
    class: Class::Read,
    cql: "SELECT body_hash, seq, message_id, at FROM sends WHERE channel = ? AND sender = ? AND client_msg_id = ?",
};
pub(super) const PUT_SEND: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO sends (channel, sender, client_msg_id, body_hash, seq, message_id, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
};
pub(super) const PUT_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO reactions (channel, target, emoji, user) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
};
pub(super) const REMOVE_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM reactions USING TIMESTAMP ? WHERE channel = ? AND target = ? AND emoji = ? AND user = ?",
};
pub(super) const REACTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT emoji, user FROM reactions WHERE channel = ? AND target = ?",
};
pub(super) const FORGET_REACTIONS: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM reactions USING TIMESTAMP ? WHERE channel = ? AND target = ?",
};
pub(super) const REACTORS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT user FROM reactions WHERE channel = ? AND target = ? AND emoji = ? AND user > ? LIMIT ?",
};
pub(super) const PUT_OWN_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO reactions_by_user (channel, user, target, emoji) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
};
pub(super) const REMOVE_OWN_REACTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM reactions_by_user USING TIMESTAMP ? WHERE channel = ? AND user = ? AND target = ? AND emoji = ?",
};
pub(super) const OWN_REACTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT target, emoji FROM reactions_by_user WHERE channel = ? AND user = ? AND (target, emoji) > (?, ?) LIMIT ?",
};
pub(super) const PUT_MENTION: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO mentions (user, at, channel, seq, sender) VALUES (?, ?, ?, ?, ?)",
};
pub(super) const PUT_MENTION_BY_CHANNEL: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO mentions_by_channel (user, channel, seq, at, sender) VALUES (?, ?, ?, ?, ?)",
};
pub(super) const MENTION_AT: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at FROM mentions_by_channel WHERE user = ? AND channel = ? AND seq = ?",
};
pub(super) const REMOVE_MENTION: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM mentions WHERE user = ? AND at = ? AND channel = ? AND seq = ?",
};
pub(super) const REMOVE_MENTION_BY_CHANNEL: Statement = Statement {
    class: Class::Write,
    cql: "DELETE FROM mentions_by_channel WHERE user = ? AND channel = ? AND seq = ?",
};
pub(super) const MENTIONS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT at, channel, seq, sender FROM mentions WHERE user = ? AND (at, channel, seq) < (?, ?, ?) LIMIT ?",
};
pub(super) const PUT_MARKER: Statement = Statement {
    class: Class::Write,
    cql: "INSERT INTO markers (user, channel, seq, ordinal) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
};
