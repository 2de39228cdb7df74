//! A user's channels as lists show them, read from five tables at once.

use madang_ids::{ChannelId, Millis, Ordinal, Seq, UserId};
use rusqlite::{Connection, OptionalExtension, Result, Row};

use super::channels::{channel_at, membership_at};
use super::codec::{bound, int, limit, number};
use super::log::head_at;
use super::settings::settings_at;
use crate::channels::{MENTIONS_COUNTED, Marker, Overview};

// `concat!` takes literals only.
const _: () = assert!(MENTIONS_COUNTED == 1_000, "overview_sql! counts mentions up to 1000");

/// Overviews of a user's channels, `?1`.
macro_rules! overview_sql {
    ($where:literal) => {
        concat!(
            "SELECT m.user, m.channel, m.role, m.spans, m.as_of, m.in_inbox, m.marker_seq, m.marker_ordinal,
             coalesce(h.seq, 0), coalesce(h.ordinal, 0), coalesce(h.at_ms, 0) AS at_ms,
             (SELECT count(*) FROM (SELECT DISTINCT x.seq FROM mentions x
              WHERE x.channel = m.channel AND x.user IN (0, m.user) AND x.seq > m.marker_seq
              AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.user = m.user AND b.other = x.sender)
              AND x.seq <= coalesce(json_extract(m.spans, '$[#-1].until'), x.seq) LIMIT 1000)),
             c.id, c.kind, c.name, c.between_one, c.between_other, c.topic, c.avatar, c.created_by, c.created_at,
             c.capacity, c.slow_mode_s, c.pins, c.state,
             t.rev, t.favourite, t.marked_unread, t.muted_until, t.hidden_ordinal
             FROM memberships m CROSS JOIN channels c ON c.id = m.channel LEFT JOIN heads h ON h.id = m.channel
             LEFT JOIN channel_settings t ON t.user = m.user AND t.channel = m.channel
             WHERE m.user = ?1 AND m.role IS NOT NULL ",
            $where
        )
    };
}

pub(super) fn of(db: &Connection, user: UserId, channel: ChannelId) -> Result<Option<Overview>> {
    let sql = overview_sql!("AND m.channel = ?2");
    db.prepare_cached(sql)?.query_row([int(user.raw()), int(channel.raw())], overview_row).optional()
}

pub(super) fn by_id(
    db: &Connection,
    user: UserId,
    after: Option<ChannelId>,
    rows: usize,
) -> Result<Vec<Overview>> {
    let sql = overview_sql!("AND m.is_open = 1 AND m.channel > ?2 ORDER BY m.channel LIMIT ?3");
    let after = after.map_or(0, |channel| int(channel.raw()));
    db.prepare_cached(sql)?.query_map([int(user.raw()), after, limit(rows)], overview_row)?.collect()
}

pub(super) fn left(
    db: &Connection,
    user: UserId,
    after: Option<ChannelId>,
    rows: usize,
) -> Result<Vec<Overview>> {
    let sql = overview_sql!(
        "AND m.is_open = 0 AND c.kind <> 'open' AND c.state <> 2 AND m.channel > ?2 ORDER BY m.channel LIMIT ?3"
    );
    let after = after.map_or(0, |channel| int(channel.raw()));
    db.prepare_cached(sql)?.query_map([int(user.raw()), after, limit(rows)], overview_row)?.collect()
}

pub(super) fn by_activity(
    db: &Connection,
    user: UserId,
    after: Option<(Millis, ChannelId)>,
    rows: usize,
) -> Result<Vec<Overview>> {
    let sql = overview_sql!(
        "AND m.is_open = 1 AND (coalesce(h.at_ms, 0), m.channel) < (?2, ?3)
         ORDER BY at_ms DESC, m.channel DESC LIMIT ?4"
    );
    let (at, channel) =
        after.map_or((i64::MAX, i64::MAX), |(at, channel)| (bound(at.get()), int(channel.raw())));
    db.prepare_cached(sql)?.query_map([int(user.raw()), at, channel, limit(rows)], overview_row)?.collect()
}

fn overview_row(row: &Row<'_>) -> Result<Overview> {
    Ok(Overview {
        membership: membership_at(row, 0)?,
        marker: Marker { seq: Seq::new(number(row, 6)?), ordinal: Ordinal::new(number(row, 7)?) },
        head: head_at(row, 8)?,
        mentions: number(row, 11)?,
        channel: channel_at(row, 12)?,
        settings: settings_at(row, 25)?,
    })
}
