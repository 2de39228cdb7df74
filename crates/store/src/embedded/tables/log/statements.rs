//! The SQL of logs: the same for channels and for users, on tables of their own.

use madang_ids::LogId;

use crate::embedded::checksum::is_whole_sql;
use crate::embedded::codec::int;

/// The statements on one of the two tables of logs.
pub(in crate::embedded) struct Statements {
    pub(in crate::embedded) head: &'static str,
    pub(in crate::embedded) begin_head: &'static str,
    pub(in crate::embedded) move_head: &'static str,
    pub(in crate::embedded) insert: &'static str,
    pub(in crate::embedded) version: &'static str,
    pub(in crate::embedded) change: &'static str,
    pub(in crate::embedded) row: &'static str,
    pub(in crate::embedded) rows: &'static str,
    pub(in crate::embedded) rows_back: &'static str,
    pub(in crate::embedded) rows_by: &'static str,
    pub(in crate::embedded) first: &'static str,
    pub(in crate::embedded) at: &'static str,
    pub(in crate::embedded) positions_back: &'static str,
}

macro_rules! statements {
    ($log:literal, $heads:literal) => {
        Statements {
            head: concat!("SELECT seq, ordinal, at_ms, pos FROM ", $heads, " WHERE id = ?1"),
            begin_head: concat!(
                "INSERT INTO ",
                $heads,
                " (id, seq, ordinal, at_ms, pos) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
            ),
            move_head: concat!(
                "UPDATE ",
                $heads,
                " SET seq = ?2, ordinal = ?3, at_ms = ?4, pos = ?5",
                " WHERE id = ?1 AND seq = ?6 AND ordinal = ?7 AND at_ms = ?8"
            ),
            insert: concat!(
                "INSERT INTO ",
                $log,
                " (id, seq, pos, at_ms, ordinal, version, sender, client_msg_id, body_hash, content, checksum)",
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,",
                " row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10))"
            ),
            version: concat!("SELECT version FROM ", $log, " WHERE id = ?1 AND seq = ?2"),
            change: concat!(
                "UPDATE ",
                $log,
                " SET version = ?3, content = ?4, checksum = row_checksum(id, seq, pos, at_ms, ordinal, ?3,",
                " sender, client_msg_id, body_hash, ?4) WHERE id = ?1 AND seq = ?2"
            ),
            row: concat!(
                "SELECT seq, at_ms, ordinal, sender, client_msg_id, body_hash, content, ",
                is_whole_sql!(),
                ", version FROM ",
                $log,
                " WHERE id = ?1 AND seq = ?2"
            ),
            rows: concat!(
                "SELECT seq, at_ms, ordinal, sender, client_msg_id, body_hash, content, ",
                is_whole_sql!(),
                ", version FROM ",
                $log,
                " WHERE id = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq"
            ),
            rows_back: concat!(
                "SELECT seq, at_ms, ordinal, sender, client_msg_id, body_hash, content, ",
                is_whole_sql!(),
                ", version FROM ",
                $log,
                " WHERE id = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC"
            ),
            rows_by: concat!(
                "SELECT seq, at_ms, ordinal, sender, client_msg_id, body_hash, content, ",
                is_whole_sql!(),
                ", version FROM ",
                $log,
                " WHERE id = ?1 AND seq BETWEEN ?2 AND ?3 AND sender = ?4 ORDER BY seq"
            ),
            first: concat!("SELECT coalesce(min(seq), 1) FROM ", $log, " WHERE id = ?1"),
            at: concat!("SELECT at_ms FROM ", $log, " WHERE id = ?1 AND seq = ?2"),
            positions_back: concat!(
                "SELECT seq, pos FROM ",
                $log,
                " WHERE id = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC"
            ),
        }
    };
}

static CHANNELS: Statements = statements!("log", "heads");
static USERS: Statements = statements!("user_log", "user_heads");

/// The statements and the key of a log.
pub(in crate::embedded) const fn place(log: LogId) -> (&'static Statements, i64) {
    match log {
        LogId::Channel(id) => (&CHANNELS, int(id.raw())),
        LogId::User(id) => (&USERS, int(id.raw())),
    }
}
